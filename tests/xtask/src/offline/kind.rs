//! The node of a real kind cluster: Kubernetes, compiled from Debian's source packages.
//! That takes minutes, so what comes of it is kept as an archive that Docker loads in seconds.

use super::{Debian, cache, exists, folder, quietly};
use crate::apt::Apt;
use crate::engine;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

/// The image. A changed recipe takes another tag: engines and archives keep the old one.
pub const NODE: &str = "devenv-test/kind-node:1.20.2-2";
/// What only its building needs, by this label of its Dockerfile.
const LEFT: &str = "label=devenv-test.left-by=kind-node";

/// Where a node's programs come from, and its files.
const SOURCES: &[&str] = &["kubernetes/bookworm", "kind/trixie"];
/// The Go that compiles them, a library of theirs in a newer version, and etcd.
const PACKAGES: &[&str] = &[
    "golang-1.19-go",
    "golang-1.19-src",
    "golang-github-modern-go-reflect2-dev",
    "etcd-server",
];

/// Whether clusters can be made of it.
pub fn usable() -> bool {
    exists(NODE) && engine::runs_privileged()
}

/// Makes the image unless it is here. `Err`: why the tests of kind can't be run.
pub fn ensure(root: &Path) -> Result<(), String> {
    if !engine::runs_privileged() {
        let mend = engine::mend(root);
        return Err(format!("the tests of kind; {mend}"));
    }
    let archive = cache().join("kind-node-1.20.2-2.tar");
    let here = || exists(NODE) || (archive.is_file() && load(&archive));
    if here() {
        return Ok(());
    }
    // Another checkout's run may be making it, in the same folder.
    let lock = fs::create_dir_all(cache()).and_then(|()| {
        let lock = File::create(cache().join("kind-node.lock"))?;
        lock.lock().map(|()| lock)
    });
    if lock.is_ok() && here() {
        return Ok(());
    }
    let log = cache().join("kind-node.log");
    make(root, &log, &archive).map_err(|error| {
        let log = log.display();
        format!("the tests of kind; {error}, see {log}; the next run tries again")
    })
}

fn load(archive: &Path) -> bool {
    eprintln!("loading {NODE}");
    let mut load = Command::new("docker");
    // An archive that was cut short is made anew.
    quietly(load.args(["load", "--input"]).arg(archive)) && exists(NODE)
}

fn make(root: &Path, log: &Path, archive: &Path) -> io::Result<()> {
    eprintln!(
        "making {NODE} of Debian's sources: minutes, but once; see {}",
        log.display()
    );
    let work = folder("kind-node")?;
    let log = File::create(log)?;
    let fetched = fetch(&work)?;
    // While the one compiles, the other waits for the network and the disk most of its time.
    let (built, debian) = thread::scope(|scope| {
        let debian = scope.spawn(|| debian().ensure());
        let script = root.join("tests/offline/kind/build.sh");
        let built = logged(&log, Command::new(script).arg(fetched).arg(&work));
        (built, debian.join().unwrap_or(false))
    });
    built?;
    if !debian {
        return Err(io::Error::other("its Debian can't be had"));
    }
    let mut build = Command::new("docker");
    build
        .args(["build", "--force-rm", "--network=none", "--tag", NODE])
        .arg(work.join("context"))
        // Without BuildKit: the client of some distributions lacks its plugin.
        .env("DOCKER_BUILDKIT", "0");
    logged(&log, &mut build)?;
    tidy();
    let unfinished = archive.with_extension("unfinished.tar");
    let mut save = Command::new("docker");
    logged(&log, save.args(["save", NODE, "--output"]).arg(&unfinished))?;
    fs::rename(unfinished, archive)?;
    fs::remove_dir_all(work)
}

fn debian() -> Debian {
    Debian {
        image: "devenv-test/debian:bookworm-kind",
        suite: "bookworm",
        packages: vec![
            "conntrack",
            "containerd",
            "containernetworking-plugins",
            "ethtool",
            "iproute2",
            "iptables",
            "kmod",
            "mount",
            "procps",
            "runc",
            "socat",
            "systemd",
        ],
        options: &[
            // Else the whole of Perl comes with what merges /usr afterwards.
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            // Every cluster that is made copies the image's files.
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
        ],
    }
}

/// The folder with all that the build takes from Debian.
fn fetch(work: &Path) -> io::Result<PathBuf> {
    let fetched = work.join("fetched");
    fs::create_dir_all(&fetched)?;
    let releases = ["deb bookworm", "deb-src bookworm", "deb-src trixie"];
    let apt = Apt::ask(&work.join("apt"), &releases)?;
    apt.packages(&fetched, PACKAGES)?;
    apt.sources(&fetched, SOURCES)?;
    Ok(fetched)
}

/// Removes what the build has left in the engine and the image does not need.
fn tidy() {
    let mut list = Command::new("docker");
    list.args(["image", "list", "--quiet", "--filter", "dangling=true"]);
    let Ok(left) = list.args(["--filter", LEFT]).output() else {
        return;
    };
    for image in String::from_utf8_lossy(&left.stdout).lines() {
        quietly(Command::new("docker").args(["image", "rm", image]));
    }
}

/// Runs a command that writes to the log alone.
fn logged(log: &File, command: &mut Command) -> io::Result<()> {
    let name = PathBuf::from(command.get_program());
    let name = name.file_name().unwrap_or_default().display().to_string();
    let done = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .status()?;
    match done.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{name} failed ({done})"))),
    }
}
