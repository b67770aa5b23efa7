//! api3.

fn main() {}
