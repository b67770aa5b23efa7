//! api2.

fn main() {}
