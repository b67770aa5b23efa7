//! Load, apply, wait: the engine behind every command. It says what happens as
//! events and prints nothing.
#![warn(missing_docs)]

pub mod apply;
pub mod build;
pub mod event;
mod fingerprint;
mod lockfiles;
pub mod logs;
mod run_spec;
pub mod state;
pub mod status;
mod trouble;
mod up;
pub mod wait;
pub mod warnings;

pub use up::{Running, UpError, UpOptions, needs, up};
