//! The devenv command.

fn main() {}
