//! From source to something that runs: each image's install and build commands, run
//! as the owner of the checkout, and skipped while nothing they read has changed.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use devenv_model::{Command, ImageSource};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::{
    event::{Bus, Event},
    fingerprint::{self, Ledger},
    lockfiles,
};

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The command ran and failed.
    #[error("building {images} failed: `{command}` ended with {status}")]
    Failed {
        /// The images that the command builds.
        images: String,
        /// The command as written.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it printed, both outputs as they came. It is no part of the
        /// message: whoever saw it come must not see it again.
        output: String,
    },
    /// The command could not be started.
    #[error("building {images} failed: `{command}` could not be started in {}", dir.display())]
    Start {
        /// The images that the command builds.
        images: String,
        /// The command as written.
        command: String,
        /// Where.
        dir: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// What the build should have made is not there.
    #[error("{origin}: {image} has no program to run: {} does not exist{hint}", program.display())]
    NoProgram {
        /// Where devenv.toml says so.
        origin: String,
        /// The image.
        image: String,
        /// What devenv.toml says is run.
        program: PathBuf,
        /// What to do.
        hint: String,
    },
    /// The sources can't be read.
    #[error("can't read the sources of {image}")]
    Sources {
        /// The image.
        image: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

/// How many lines of a failed command are kept for the error: what compilers say of
/// one mistake can be long, and the first one counts.
const TAIL: usize = 500;

/// One command and the images that want it: four services of one Cargo workspace
/// name the same command, and it is run once.
struct Job<'a> {
    command: &'a Command,
    dir: PathBuf,
    images: Vec<&'a ImageSource>,
}

/// Builds whatever of `images` has changed; returns what was run, for the report.
pub async fn build_all(
    root: &Path,
    images: &[&ImageSource],
    owner: (u32, u32),
    ledger: &Ledger,
    bus: &Bus,
) -> Result<Vec<String>, BuildError> {
    let mut ran = Vec::new();
    // An install is a build's precondition, so all of them come first.
    for stage in [Stage::Install, Stage::Build] {
        let runs = jobs(images, stage)
            .into_iter()
            .map(|job| run_if_changed(root, job, stage, owner, ledger, bus));
        for done in futures_util::future::join_all(runs).await {
            ran.extend(done?);
        }
    }
    for image in images {
        check_program(image)?;
    }
    Ok(ran)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Install,
    Build,
}

fn jobs<'a>(images: &[&'a ImageSource], stage: Stage) -> Vec<Job<'a>> {
    let mut jobs: BTreeMap<(PathBuf, String), Job<'a>> = BTreeMap::new();
    for image in images {
        let command = match stage {
            Stage::Install => image.install.as_ref(),
            Stage::Build => image.build.as_ref(),
        };
        let Some(command) = command else { continue };
        let dir = image.workdir.clone();
        jobs.entry((dir.clone(), command.to_string()))
            .or_insert_with(|| Job {
                command,
                dir,
                images: Vec::new(),
            })
            .images
            .push(image);
    }
    jobs.into_values().collect()
}

async fn run_if_changed(
    root: &Path,
    job: Job<'_>,
    stage: Stage,
    owner: (u32, u32),
    ledger: &Ledger,
    bus: &Bus,
) -> Result<Option<String>, BuildError> {
    let names: Vec<&str> = job.images.iter().map(|i| i.name.as_str()).collect();
    let names = names.join(", ");
    let command = job.command.to_string();
    let key = format!("{stage:?} {command}");
    let inputs: Vec<PathBuf> = job
        .images
        .iter()
        .flat_map(|i| i.watch.iter().cloned())
        .collect();
    let unreadable = |source| BuildError::Sources {
        image: names.clone(),
        source,
    };
    let files = match stage {
        Stage::Install => lockfiles::of(root, &inputs),
        Stage::Build => fingerprint::files(root, &inputs),
    };
    let files = files.map_err(unreadable)?;
    let print = fingerprint::of(root, &command, &files).map_err(unreadable)?;
    let made = || job.images.iter().all(|i| check_program(i).is_ok());
    if ledger.knows(&key, &print) && (stage == Stage::Install || made()) {
        return Ok(None);
    }
    let started = Instant::now();
    run(&job, &names, owner, bus).await?;
    ledger.record(&key, &print);
    Ok(Some(format!("{command} ({})", seconds(started.elapsed()))))
}

async fn run(job: &Job<'_>, names: &str, owner: (u32, u32), bus: &Bus) -> Result<(), BuildError> {
    let text = job.command.to_string();
    let argv = job.command.argv();
    let mut command = tokio::process::Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .current_dir(&job.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it started ends with it.
        .process_group(0)
        .kill_on_drop(true);
    forget_outer_cargo(&mut command);
    if nix::unistd::geteuid().is_root() && owner.0 != 0 {
        command.uid(owner.0).gid(owner.1);
    }
    let mut child = command.spawn().map_err(|source| BuildError::Start {
        images: names.to_owned(),
        command: text.clone(),
        dir: job.dir.clone(),
        source,
    })?;
    let group = child
        .id()
        .map(|id| KillGroup(Pid::from_raw(id.cast_signed())));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let tail = Mutex::default();
    let ((), (), status) = tokio::join!(
        lines(out, names, bus, &tail),
        lines(err, names, bus, &tail),
        child.wait()
    );
    if let Some(group) = group {
        group.ended();
    }
    let failed = |status: String, output: String| BuildError::Failed {
        images: names.to_owned(),
        command: text.clone(),
        status,
        output,
    };
    let status = status.map_err(|e| failed(e.to_string(), String::new()))?;
    if status.success() {
        return Ok(());
    }
    let tail = tail.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tail: Vec<String> = tail.into();
    Err(failed(status.to_string(), tail.join("\n")))
}

/// Kills the whole group when the build is given up.
struct KillGroup(Pid);

impl KillGroup {
    fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for KillGroup {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// `cargo run` sets variables about devenv's own package; a build that saw them
/// would be rebuilt whenever devenv is run in another way.
fn forget_outer_cargo(command: &mut tokio::process::Command) {
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let outer = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "DEP_"];
        if name == "CARGO_CRATE_NAME"
            || name == "CARGO_PRIMARY_PACKAGE"
            || name == "OUT_DIR"
            || outer.iter().any(|p| name.starts_with(p))
        {
            command.env_remove(name);
        }
    }
}

async fn lines(
    from: Option<impl AsyncRead + Unpin>,
    source: &str,
    bus: &Bus,
    tail: &Mutex<VecDeque<String>>,
) {
    let Some(from) = from else { return };
    let mut reader = BufReader::new(from);
    let mut raw = Vec::new();
    loop {
        raw.clear();
        match reader.read_until(b'\n', &mut raw).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&raw).trim_end().to_owned();
        bus.emit(Event::Output {
            source: source.to_owned(),
            line: line.clone(),
        });
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

fn check_program(image: &ImageSource) -> Result<(), BuildError> {
    let argv = image.run.argv();
    let Some(program) = argv.first().filter(|p| p.contains('/')) else {
        return Ok(());
    };
    // Without the `.` that `./run.sh` would leave in the middle.
    let program: PathBuf = image.workdir.join(program).components().collect();
    if program.exists() {
        return Ok(());
    }
    let hint = match &image.build {
        Some(b) => format!("; `{b}` should have made it"),
        None => format!(
            "; say in devenv.toml how it is made: [image.{}] build = …",
            image.name
        ),
    };
    Err(BuildError::NoProgram {
        origin: image.origin.to_string(),
        image: image.name.clone(),
        program,
        hint,
    })
}

fn seconds(d: Duration) -> String {
    if d < Duration::from_secs(1) {
        format!("{} ms", d.as_millis())
    } else {
        format!("{:.1} s", d.as_secs_f64())
    }
}
