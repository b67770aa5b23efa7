//! No server outlives its tests. One that is dropped is ended; what is shared by a whole
//! process never is, and a process that is killed drops nothing.
//!
//! So each server has a keeper: a shell that reads from this process. Whatever way this
//! process ends, the kernel closes the pipe, and the shell removes what has the container's
//! label, or kills the server's process and removes its files. Should both be killed, the next
//! test that starts a container removes it ([`sweep`]).

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Names the process that a container ends with.
const OWNER: &str = "dev.devenv.test.owner";
/// Names the container among those of its owner.
const NAME: &str = "dev.devenv.test.name";
/// Names the run of all tests, for who starts their programs and looks after them.
const RUN: &str = "dev.devenv.test.run";
/// Where that run's name comes from.
const RUN_VARIABLE: &str = "DEVENV_TEST_RUN";

const REMOVE_CONTAINER: &str = "read -r _; docker ps --all --quiet --no-trunc \
    --filter \"label=$1\" --filter \"label=$2\" | xargs -r docker rm --force --volumes";

/// Each line names the process that there is now, or none.
const END_PROCESS: &str = "while read -r line; do pid=$line; done
    [ -z \"$pid\" ] || kill -KILL \"$pid\"; rm -rf \"$1\"";

/// Removes what is left of one server when it is dropped, or this process ends.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
    labels: Vec<(&'static str, String)>,
}

impl Keeper {
    /// Of a container that is to be started with its [`labels`](Self::labels).
    ///
    /// # Panics
    /// Where no engine answers a docker client: then nobody would remove it.
    pub fn of_container(port: u16) -> Self {
        let version = Command::new("docker")
            .args(["version", "--format", "{{.Server.Version}}"])
            .stdin(Stdio::null())
            .output();
        match version {
            Ok(output) if output.status.success() => {}
            Ok(output) => panic!(
                "no Docker Engine answers: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
            Err(error) => panic!("docker can't be run: {error}; install its client"),
        }
        let owner = owner(std::process::id()).expect("this process is in /proc");
        let mut labels = vec![(OWNER, owner), (NAME, port.to_string())];
        let arguments: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if let Ok(run) = std::env::var(RUN_VARIABLE) {
            labels.push((RUN, run));
        }
        Self {
            child: shell(REMOVE_CONTAINER, &arguments),
            labels,
        }
    }

    /// Of a process that will be [told](Self::tell), with files in this folder.
    ///
    /// # Panics
    /// Where there is no shell.
    pub fn of_process(folder: &Path) -> Self {
        Self {
            child: shell(END_PROCESS, &[folder.display().to_string()]),
            labels: Vec::new(),
        }
    }

    /// What its container must have.
    pub fn labels(&self) -> &[(&'static str, String)] {
        &self.labels
    }

    /// Which process is the server's now.
    ///
    /// # Panics
    /// When the shell was killed.
    pub fn tell(&mut self, pid: Option<u32>) {
        let line = pid.map(|pid| pid.to_string()).unwrap_or_default();
        let stdin = self.child.stdin.as_mut().expect("it was asked for");
        writeln!(stdin, "{line}").expect("the keeper lives");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// In a process group of its own, so that it is not interrupted from the terminal with us.
fn shell(script: &str, arguments: &[String]) -> Child {
    Command::new("sh")
        .args(["-c", script, "keeper"])
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts")
}

/// Removes the containers of owners of this machine that are gone.
pub fn sweep() {
    let format = format!("{{{{.ID}}}} {{{{.Label \"{OWNER}\"}}}}");
    let listed = Command::new("docker")
        .args(["ps", "--all", "--no-trunc", "--format", &format])
        .args(["--filter", &format!("label={OWNER}")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(listed) = listed else { return };
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let Some((container, owner)) = line.split_once(' ') else {
            continue;
        };
        if is_gone(owner) {
            // Another process's sweep may be faster.
            let _ = Command::new("docker")
                .args(["rm", "--force", "--volumes", container])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Which machine's, since which boot and in which namespace a process has its number, and
/// since when: nothing of another machine or container on the same engine looks like ours.
fn owner(pid: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, a bracket too. Field 22 is the start.
    let since = stat.rsplit_once(") ")?.1.split(' ').nth(19)?;
    let boot = boot.trim();
    Some(format!("{boot}/{}/{pid}/{since}", namespace.display()))
}

/// Whether the process that a label names was one of here, and is no more.
fn is_gone(label: &str) -> bool {
    let Some(me) = owner(std::process::id()) else {
        return false;
    };
    let place = |owner: &str| {
        let mut parts = owner.rsplitn(3, '/');
        let _since = parts.next();
        let pid = parts.next().and_then(|pid| pid.parse::<u32>().ok());
        (parts.next().map(str::to_owned), pid)
    };
    let (there, pid) = place(label);
    let (here, _) = place(&me);
    there == here && pid.is_some_and(|pid| owner(pid).as_deref() != Some(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_gone_when_its_number_is_another_s() {
        let me = owner(std::process::id()).unwrap();
        assert!(!is_gone(&me));
        // My number, but of one that started earlier or later.
        assert!(is_gone(&format!("{me}0")));
        let elsewhere = format!("another-boot/{}0", me.split_once('/').unwrap().1);
        assert!(!is_gone(&elsewhere));
        assert!(!is_gone("nonsense"));
        let mut child = Command::new("true").spawn().unwrap();
        let its = owner(child.id()).unwrap();
        child.wait().unwrap();
        assert!(is_gone(&its));
    }
}
