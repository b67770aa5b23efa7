//! The server of the live page: built files from memory, configuration from the environment.
#![warn(missing_docs)]

mod app;
mod config;
mod site;

pub use app::app;
pub use config::{Config, ConfigError};
pub use site::{Site, SiteError};
