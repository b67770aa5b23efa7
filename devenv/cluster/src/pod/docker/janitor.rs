//! `devenv docker-janitor`: removes a system's containers when the supervisor dies
//! without having done so. The engine, not the kernel, keeps containers: nothing else
//! would end them.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::sweep::{self, Owner};
use crate::pod::runtime::RuntimeError;

/// `argv[1]` of the process.
const ROLE: &str = "docker-janitor";
/// What a supervisor says that makes no more pods.
const DONE: u8 = b'.';
/// How long after the last container another one may appear: the engine makes one that
/// it was asked for also when nobody waits for it any more.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// The supervisor's side. The supervisor's death makes the process do its work.
#[derive(Debug)]
pub(crate) struct Janitor {
    process: Mutex<(Child, Option<ChildStdin>)>,
}

impl Janitor {
    /// Starts the process for the containers of `owner` on the engine at `host`. `folder`
    /// is there as long as there may be some.
    pub(crate) fn start(host: &str, owner: &Owner, folder: &Path) -> Result<Janitor, RuntimeError> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("devenv")
            .args([ROLE, host, &owner.of_generation()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in the terminal is for the supervisor, which ends things in order.
            .process_group(0);
        let mut process = command.spawn()?;
        let stdin = process.stdin.take();
        Ok(Janitor {
            process: Mutex::new((process, stdin)),
        })
    }

    /// No more containers are made: it removes what is left and ends.
    pub(crate) fn dismiss(&self) {
        let mut held = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut stdin) = held.1.take() {
            // One that is dead needs no word.
            let _ = stdin.write_all(&[DONE]);
        }
        let _ = held.0.wait();
    }
}

/// Plays the role if this process was started for it, and then never returns.
pub fn run_role_if_asked() {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [role, host, label, folder] = arguments.as_slice() else {
        return;
    };
    let (true, Some(host), Some(label)) = (role == ROLE, host.to_str(), label.to_str()) else {
        return;
    };
    std::process::exit(run(host, label, Path::new(folder)));
}

fn run(host: &str, label: &str, folder: &Path) -> i32 {
    let mut word = [0];
    let said = std::io::stdin().read(&mut word);
    let in_order = matches!(said, Ok(1)) && word[0] == DONE;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return 1 };
    let swept = runtime.block_on(async {
        let docker = bollard::Docker::connect_with_host(host).ok()?;
        sweep::containers(&docker, label).await.ok()?;
        if !in_order {
            tokio::time::sleep(ON_ITS_WAY).await;
            sweep::containers(&docker, label).await.ok()?;
        }
        Some(())
    });
    if swept.is_none() {
        // The folder stays, and makes the next `up` or `down` look.
        return 1;
    }
    let _ = fs::remove_dir_all(folder);
    // Where no newer start has its own in it.
    let _ = folder.parent().map(fs::remove_dir);
    0
}
