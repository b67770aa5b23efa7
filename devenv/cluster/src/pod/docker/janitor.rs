//! `devenv docker-janitor`: removes a system's containers when the supervisor dies
//! without having done so. The engine, not the kernel, keeps containers: nothing else
//! would end them.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::sweep::{self, Owner};
use crate::pod::runtime::RuntimeError;

/// `argv[1]` of the process.
const ROLE: &str = "docker-janitor";

/// The supervisor's side. Dropping it makes the process do its work, as the supervisor's
/// death does, and waits for that.
#[derive(Debug)]
pub(crate) struct Janitor {
    process: Child,
}

impl Janitor {
    /// Starts the process for the containers of `owner` on the engine at `host`.
    pub(crate) fn start(host: &str, owner: &Owner) -> Result<Janitor, RuntimeError> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("devenv")
            .args([ROLE, host, &owner.system])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in the terminal is for the supervisor, which ends things in order.
            .process_group(0);
        let process = command.spawn()?;
        Ok(Janitor { process })
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Plays the role if this process was started for it, and then never returns.
pub fn run_role_if_asked() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, host, system] = arguments.as_slice() else {
        return;
    };
    if role != ROLE {
        return;
    }
    std::process::exit(run(host, Path::new(system)));
}

fn run(host: &str, state_dir: &Path) -> i32 {
    // The supervisor never writes: its end, in whatever way, is what can be read.
    let _ = std::io::stdin().read(&mut [0]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return 1 };
    let swept = runtime.block_on(async {
        let docker = bollard::Docker::connect_with_host(host).ok()?;
        sweep::containers(&docker, state_dir).await.ok()
    });
    i32::from(swept.is_none())
}
