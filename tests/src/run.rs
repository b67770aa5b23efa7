//! A command that ran to its end, and what it said.

use serde_json::Value;
use std::fmt;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// A finished command.
#[derive(Debug, Clone)]
pub struct Run {
    pub words: String,
    /// The exit code; `None`: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Run {
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// What was printed, read as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// Both outputs.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "devenv {} ended with {:?} after {:.1?}\n--- stdout\n{}\n--- stderr\n{}",
            self.words, self.code, self.took, self.stdout, self.stderr
        )
    }
}

/// Runs to the end. The outputs go to files: a daemon that keeps them open must
/// not keep the test.
pub(crate) fn finish(command: &mut Command, limit: Duration, words: String) -> Run {
    let start = Instant::now();
    let [mut out, mut err] = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
    let mut child = command
        .stdout(out.try_clone().expect("a file handle"))
        .stderr(err.try_clone().expect("a file handle"))
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let mut overdue = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > limit && !overdue {
            overdue = true;
            let group = i32::try_from(child.id()).map(nix::unistd::Pid::from_raw);
            if let Ok(group) = group {
                let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = start.elapsed();
    let read = |file: &mut fs::File| {
        use std::io::{Read, Seek};
        let mut bytes = Vec::new();
        let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let run = Run {
        words,
        code: status.code(),
        stdout: read(&mut out),
        stderr: read(&mut err),
        took,
    };
    assert!(!overdue, "not over within {limit:?}: {run}");
    run
}
