//! Load, apply, wait: the engine behind every command. It says what happens as
//! events and prints nothing.
#![warn(missing_docs)]

pub mod apply;
pub mod build;
pub mod control;
pub mod debug;
pub mod event;
mod images;
mod ledger;
mod live;
mod lockfiles;
pub mod logs;
mod nodes;
mod observe;
mod prints;
pub mod reload;
mod run_spec;
mod stamp;
mod start;
pub mod state;
pub mod status;
#[cfg(test)]
mod testing;
mod up;
mod usage;
mod venv;
mod wait;
pub mod warnings;
mod workload;

pub use devenv_platform::{IngressController, Isolation, Runtime, TargetKind};
pub use stamp::ORIGIN;
pub use up::{Running, UpError, UpOptions, needs, up};
pub use workload::NotReady;
