//! The Docker Engine that the tests of containers need.

use crate::needs::{self, Missing};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long an engine may take to answer after its start.
const START: Duration = Duration::from_secs(60);
/// What an engine calls the runtime of ours.
const RUNTIME: &str = "devenv-test";

/// A Docker Engine that we have started; ends when dropped.
#[derive(Debug)]
pub struct Engine {
    child: Child,
}

impl Engine {
    /// The machine's Docker Engine: the one that answers (`None`), or one that is started
    /// for as long as what is returned lives and writes to `log`. `Err`: why there is none.
    pub fn ensure(root: &Path, log: &Path) -> Result<Option<Self>, Missing> {
        let why = "the tests of containers";
        if answers() {
            return Ok(None);
        }
        let Some(dockerd) = needs::find("dockerd") else {
            return Err(("dockerd", why.into()));
        };
        let file = fs::create_dir_all(log.parent().unwrap_or(log)).and_then(|()| File::create(log));
        let started = file.and_then(|file| {
            let mut command = Command::new(dockerd);
            if capabilities_lack() && !runtimes_are_configured() {
                command.args(runtime_flags(root));
            }
            command
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file)
                .spawn()
        });
        let Ok(child) = started else {
            return Err(("a running dockerd", why.into()));
        };
        let mut engine = Self { child };
        let begin = Instant::now();
        while !answers() {
            let ended = engine.child.try_wait().ok().flatten().is_some();
            if ended || begin.elapsed() > START {
                eprintln!("dockerd does not answer; see {}", log.display());
                return Err(("a running dockerd", why.into()));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(Some(engine))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Asked to, it ends its containerd and unmounts what it has mounted.
        let asked = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .is_ok_and(|status| status.success());
        if asked {
            let _ = self.child.wait();
        }
    }
}

/// Whether the engine can run privileged containers.
pub fn runs_privileged() -> bool {
    !capabilities_lack() || says(&["info", "--format", "{{.DefaultRuntime}}"]) != "runc"
}

/// What to do about one that can't.
pub fn mend(root: &Path) -> String {
    format!(
        "this machine lacks capabilities that privileged containers ask for; end its dockerd and \
         start it as `dockerd {}`",
        runtime_flags(root).join(" ")
    )
}

/// What makes an engine leave out the capabilities that are not here.
fn runtime_flags(root: &Path) -> [String; 2] {
    let runtime: PathBuf = root.join("tests/offline/kind/runtime");
    [
        format!("--add-runtime={RUNTIME}={}", runtime.display()),
        format!("--default-runtime={RUNTIME}"),
    ]
}

/// An engine refuses to start with flags for what its file says as well.
fn runtimes_are_configured() -> bool {
    fs::read_to_string("/etc/docker/daemon.json").is_ok_and(|text| text.contains("runtime"))
}

/// Whether some capability of the kernel's can't be had on this machine.
fn capabilities_lack() -> bool {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    lack(
        &read("/proc/self/status"),
        &read("/proc/sys/kernel/cap_last_cap"),
    )
    .unwrap_or(false)
}

fn lack(status: &str, last: &str) -> Option<bool> {
    let held = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let held = u64::from_str_radix(held?.trim(), 16).ok()?;
    let last: u32 = last.trim().parse().ok()?;
    let all = u64::MAX >> 63u32.checked_sub(last)?;
    Some(held & all != all)
}

fn answers() -> bool {
    !says(&["version", "--format", "{{.Server.Version}}"]).is_empty()
}

/// What docker answers; nothing when it fails.
fn says(words: &[&str]) -> String {
    let output = Command::new("docker")
        .args(words)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::lack;

    #[test]
    fn a_capability_that_is_not_in_the_bounding_set_is_seen() {
        let status = |held: &str| format!("Name:\tx\nCapBnd:\t{held}\nCapAmb:\t0\n");
        assert_eq!(lack(&status("000001ffffffffff"), "40\n"), Some(false));
        // Without CAP_SYS_RESOURCE.
        assert_eq!(lack(&status("000001fffeffffff"), "40\n"), Some(true));
        // A kernel that knows fewer.
        assert_eq!(lack(&status("0000003fffffffff"), "37\n"), Some(false));
        assert_eq!(lack("", "40"), None);
    }
}
