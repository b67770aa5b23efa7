//! Warm `up -d` to ready, against the bare sum of what it starts.

use crate::Failure;
use crate::bare::{self, Credentials};
use crate::figures::{Report, Series};
use crate::project::{Project, copy};
use std::fs;
use std::path::{Path, PathBuf};

/// Brings the system up once so that everything is warm, then both forms in turn.
pub fn run(runs: usize) -> Result<Report, Failure> {
    let project = Project::new()?;
    project.run(&["up", "-d"])?;
    let credentials = Credentials::of_url(project.run(&["url", "database"])?.0.trim())?;
    let status = project.status()?;
    let pid = status["database"]["pid"]
        .as_u64()
        .ok_or("`devenv status -o json` names no database.pid")?;
    let engine = engine(pid)?;
    project.run(&["down"])?;

    let prepared = tempfile::Builder::new()
        .prefix("bb-bench-data-")
        .tempdir()?;
    let data = prepared.path().join("data");
    copy(&data_folder(&project.path().join(".devenv/data"))?, &data)?;
    // The first start by hand may have something to recover; it does not count.
    bare::start(project.path(), &engine, &data, &credentials)?;

    let (mut ours, mut sum) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(project.run(&["up", "-d"])?.1);
        project.run(&["down"])?;
        sum.push(bare::start(project.path(), &engine, &data, &credentials)?);
    }
    Ok(Report::compared(
        "up",
        Series::of_times("devenv up -d, warm, until all is ready", &ours),
        Series::of_times("engine and services by hand, until all answer", &sum),
        "at most 1.3 times, and under 1 s",
    ))
}

/// The engine's program and command line, as it runs now.
fn engine(pid: u64) -> Result<Vec<String>, Failure> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline"))?;
    let mut words: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    // argv[0] may be a bare name.
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    let first = words.first_mut().ok_or("the engine has no command line")?;
    *first = program.to_string_lossy().into_owned();
    Ok(words)
}

/// The folder in which InnoDB's system tablespace lies.
fn data_folder(under: &Path) -> Result<PathBuf, Failure> {
    if under.join("ibdata1").is_file() {
        return Ok(under.to_path_buf());
    }
    for entry in fs::read_dir(under)? {
        let path = entry?.path();
        if path.is_dir()
            && let Ok(found) = data_folder(&path)
        {
            return Ok(found);
        }
    }
    Err(format!("no database below {}", under.display()).into())
}
