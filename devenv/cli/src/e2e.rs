//! What end-to-end runs need of this program: systems to run against.

pub mod environments;
