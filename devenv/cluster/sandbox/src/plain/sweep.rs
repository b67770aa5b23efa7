//! What is left when everything was killed at once: found by a variable in its
//! environment, and ended.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid},
};

/// The variable that every program and build has, with the run directory.
pub(super) const MARKER: &str = "DEVENV_RUN_DIR";
/// How long killed processes may take to go.
const LIMIT: Duration = Duration::from_secs(5);

/// Kills what an earlier run with this run directory has left, and waits for its end.
pub(super) fn sweep(run_dir: &str) -> io::Result<()> {
    let entry = format!("{MARKER}={run_dir}");
    let begin = Instant::now();
    loop {
        let left = marked(&entry)?;
        if left.is_empty() || begin.elapsed() > LIMIT {
            return Ok(());
        }
        for pid in left {
            // Dead by now, or out of reach.
            let _ = kill(pid, Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn marked(entry: &str) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        let pid = process.file_name().to_str().and_then(|n| n.parse().ok());
        let Some(pid) = pid.map(Pid::from_raw) else {
            continue;
        };
        // Another user's, or gone; a zombie's is empty.
        let Ok(environment) = fs::read(process.path().join("environ")) else {
            continue;
        };
        let has_it = environment
            .split(|b| *b == 0)
            .any(|e| e == entry.as_bytes());
        if has_it && pid != getpid() {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_what_this_run_directory_left_is_ended() {
        let sleep = |run_dir: &str| {
            let mut command = Command::new("sleep");
            command.arg("1000").env(MARKER, run_dir).spawn().unwrap()
        };
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().to_str().unwrap();
        let (mut left, mut other) = (sleep(ours), sleep(&format!("{ours}-2")));
        // The child is there before its exec has ended.
        let begin = Instant::now();
        while marked(&format!("{MARKER}={ours}")).unwrap().is_empty() {
            assert!(begin.elapsed() < LIMIT);
            thread::yield_now();
        }
        sweep(ours).unwrap();
        assert!(!left.wait().unwrap().success());
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
