//! Support for the black-box tests: they drive the built `devenv` on copies of
//! the reference application, as a person would.
//!
//! [`project`] makes a copy and runs the command in it, [`inventory`] says what a
//! machine has before and after, [`loader`] keeps a ledger of every record that
//! was acknowledged, [`database`] compares it with the rows, [`clients`] brings
//! the Socket.IO clients and the browser, [`environments`] what programs in other
//! languages need. [`contract`] is for the services alone, without `devenv`.

pub mod clients;
pub mod containers;
pub mod contract;
pub mod database;
pub mod debuggers;
pub mod editing;
pub mod engine_registry;
pub mod environments;
pub mod inventory;
pub mod loader;
pub mod paced;
pub mod project;
pub mod record;
pub mod registry;
mod run;

use std::time::{Duration, Instant};

/// Whether this is CI, where a test that cannot run is a failure.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Says that a test does not run and why, in the form that `cargo xtask test`
/// counts.
///
/// # Panics
/// Under `CI=true`: there everything that a test needs is installed.
pub fn skip(reason: &str) {
    assert!(!is_ci(), "skipped under CI: {reason}");
    println!("SKIP: {reason}");
}

/// Notes what was proven where, for the table that `cargo xtask test` prints at its end.
pub fn proven(target: &str, profile: &str, what: &str) {
    println!("PROVEN: {target} | {profile} | {what}");
}

/// Where a tool is: on the PATH, or in the administrators' folders.
pub fn find_tool(tool: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(std::path::PathBuf::from))
        .map(|folder| folder.join(tool))
        .find(|file| file.is_file())
}

/// Asks again every `every` until there is an answer or the time is over.
pub async fn until<T>(
    limit: Duration,
    every: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(every).await;
    }
}

/// Rounds of a kill test, from `DEVENV_ROUNDS`.
pub fn rounds(default: u32) -> u32 {
    std::env::var("DEVENV_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(default)
}
