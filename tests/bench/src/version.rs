//! The floor of every command: `devenv --version` against `/bin/true`.

use crate::figures::{Report, Series};
use crate::{Failure, built};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs both in turn, `runs` times each.
pub fn run(runs: usize) -> Result<Report, Failure> {
    let devenv = built("devenv")?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    // The first of each pays for the page cache.
    once(&devenv, &["--version"])?;
    once(Path::new("/bin/true"), &[])?;
    for _ in 0..runs {
        ours.push(once(&devenv, &["--version"])?);
        bare.push(once(Path::new("/bin/true"), &[])?);
    }
    Ok(Report::compared(
        "version",
        Series::of_times("devenv --version", &ours),
        Series::of_times("/bin/true", &bare),
        "at most 10 ms",
    ))
}

fn once(program: &Path, arguments: &[&str]) -> Result<Duration, Failure> {
    let start = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    let took = start.elapsed();
    if status.success() {
        Ok(took)
    } else {
        Err(format!("{} ended with {status}", program.display()).into())
    }
}
