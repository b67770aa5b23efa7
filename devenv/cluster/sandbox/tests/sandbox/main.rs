//! The sandbox on this machine, as root and as an ordinary user.
//!
//! A test binary with its own `main`: the sandbox re-executes the running
//! program in its roles, and the tests use it as the pods' program too.

mod cluster;
mod failures;
mod files;
mod host;
mod leftovers;
mod lifecycle;
mod limits;
mod network;
mod overlays;
mod plain;
mod programs;
mod rooms;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::OnceLock,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

/// A numeric user without an account, so that the machine's user database
/// stays as it is.
const USER: u32 = 54_321;

type Scenario = (&'static str, fn());

fn main() -> ExitCode {
    devenv_sandbox::run_role_if_asked();
    if programs::run_if_asked() {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let root = nix::unistd::geteuid().is_root();
    let mut trials = Vec::new();
    for (name, scenario) in scenarios() {
        let here = if root { "root" } else { "user" };
        trials.push(Trial::test(format!("{name}::{here}"), move || {
            scenario();
            Ok(())
        }));
        if root {
            trials.push(Trial::test(format!("{name}::user"), move || as_user(name)));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // A static is not dropped by itself.
    if let Some(copy) = COPY.get() {
        let _ = fs::remove_dir_all(copy.path());
    }
    conclusion.exit_code()
}

fn scenarios() -> impl Iterator<Item = Scenario> {
    [
        network::SCENARIOS,
        rooms::SCENARIOS,
        files::SCENARIOS,
        overlays::SCENARIOS,
        failures::SCENARIOS,
        lifecycle::SCENARIOS,
        limits::SCENARIOS,
        host::SCENARIOS,
        leftovers::SCENARIOS,
        plain::SCENARIOS,
    ]
    .concat()
    .into_iter()
}

/// Runs one scenario in a process of the ordinary user.
fn as_user(name: &str) -> Result<(), Failed> {
    let program = program_for_all();
    let output = Command::new("setpriv")
        .args([
            &format!("--reuid={USER}"),
            &format!("--regid={USER}"),
            "--clear-groups",
            "--",
        ])
        .arg(&program)
        .args(["--exact", &format!("{name}::user"), "--nocapture"])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            println!("skipped {name}::user: cannot run setpriv: {error}");
            return Ok(());
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() && said.contains("1 passed") {
        return Ok(());
    }
    Err(format!("as user {USER}: {}\n{said}", output.status).into())
}

/// A directory with a copy of this program.
static COPY: OnceLock<TempDir> = OnceLock::new();

/// A copy of this program at a place that every user can read: the checkout
/// may lie in a home directory.
fn program_for_all() -> PathBuf {
    let path = |dir: &TempDir| dir.path().join("sandbox-test");
    path(COPY.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        fs::copy(std::env::current_exe().unwrap(), path(&dir)).unwrap();
        dir
    }))
}
