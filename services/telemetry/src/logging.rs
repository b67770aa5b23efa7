//! The log: lines on standard error, which Kubernetes collects.

use std::io::IsTerminal;

/// Sends the process's log to standard error through `filter`
/// ([`crate::Config::log`]). A second call changes nothing, so that tests may
/// start several services in one process.
pub fn init(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
