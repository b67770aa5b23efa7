//! api1.

fn main() {}
