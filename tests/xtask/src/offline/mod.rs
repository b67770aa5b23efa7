//! Images that the tests of containers build on where no registry can be asked: made of
//! Debian's packages by mmdebstrap, and kept as archives in the user's cache folder. The one
//! that is compiled as well is in [`kind`].

mod kind;

pub use kind::{NODE as KIND_NODE, usable as has_kind_node};

use crate::needs::{self, Missing};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const WHY: &str = "the tests of containers";
/// What `docker build` and the tests call them.
const BASE: &str = "devenv-test/base:1";
pub const MYSQL: &str = "devenv-test/mysql:9-3";

/// A Debian of its own, as an image.
struct Debian {
    image: &'static str,
    suite: &'static str,
    packages: Vec<&'static str>,
    /// What mmdebstrap is told besides.
    options: &'static [&'static str],
}

/// Makes what is missing of the images; answers what can't be had.
pub fn images(root: &Path) -> Vec<Missing> {
    let mut missing = Vec::new();
    if !exists(BASE) && !base(root) {
        missing.push((BASE, WHY.into()));
    }
    if !exists(MYSQL) && !mysql(root) {
        missing.push((MYSQL, WHY.into()));
    }
    if let Err(why) = kind::ensure(root) {
        missing.push((KIND_NODE, why.into()));
    }
    missing
}

fn base(root: &Path) -> bool {
    let mut packages = vec!["ca-certificates", "python3", "python3-pip", "python3-venv"];
    let over = over();
    if over.is_none() {
        packages.extend(["nodejs", "npm"]);
    }
    let debian = Debian {
        image: "devenv-test/debian:bookworm",
        suite: "bookworm",
        packages,
        options: &[],
    };
    let Ok(folder) = folder("base") else {
        return false;
    };
    debian.ensure()
        && made(copy_all(&root.join("tests/offline/base"), &folder))
        && made(archive_over(over.as_ref(), &folder))
        && build(&folder, BASE)
}

fn mysql(root: &Path) -> bool {
    let debian = Debian {
        image: "devenv-test/debian:sid-mysql",
        suite: "sid",
        packages: vec!["mysql-server-core", "mysql-client-core"],
        options: &[],
    };
    debian.ensure() && build(&root.join("tests/offline/mysql"), MYSQL)
}

impl Debian {
    /// Whether the engine has it now.
    fn ensure(&self) -> bool {
        if exists(self.image) {
            return true;
        }
        let name = self.image.replace(['/', ':'], "-");
        let archive = cache().join(format!("{name}.tar"));
        (archive.is_file() || made(self.make(&archive))) && {
            eprintln!("importing {}", self.image);
            quietly(
                Command::new("docker")
                    .arg("import")
                    .arg(&archive)
                    .arg(self.image),
            )
        }
    }

    fn make(&self, archive: &Path) -> io::Result<()> {
        eprintln!("making {} of Debian's packages", self.image);
        fs::create_dir_all(cache())?;
        let unfinished = archive.with_extension("unfinished.tar");
        let log = archive.with_extension("log");
        let done = quietly(
            Command::new("mmdebstrap")
                // A mirror that stands still for a while serves all the same.
                .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
                .args(["--variant=minbase", "--quiet"])
                .args(self.options)
                .arg(format!("--include={}", self.packages.join(",")))
                .arg(self.suite)
                .arg(&unfinished)
                // Its hooks are talkative.
                .stderr(File::create(&log)?),
        );
        if !done {
            let log = log.display();
            return Err(io::Error::other(format!("mmdebstrap failed, see {log}")));
        }
        fs::remove_file(log)?;
        fs::rename(unfinished, archive)
    }
}

/// This machine's Node.js, where it is one program that runs on any Debian, and its npm.
fn over() -> Option<(PathBuf, PathBuf)> {
    let node = needs::find("node")?.canonicalize().ok()?;
    let npm = PathBuf::from("/usr/lib/node_modules/npm");
    let needed = Command::new("ldd").arg(&node).output().ok()?;
    let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
    // Debian's own needs libraries that come with its package.
    (npm.is_dir() && !needed.contains("libnode")).then_some((node, npm))
}

/// Everything that lies over the base: `over.tar` in `folder`.
fn archive_over(over: Option<&(PathBuf, PathBuf)>, folder: &Path) -> io::Result<()> {
    let root = folder.join("over");
    for below in [
        "etc/ssl/certs",
        "usr/local/bin",
        "usr/local/lib/node_modules",
    ] {
        fs::create_dir_all(root.join(below))?;
    }
    // Those of whoever stands between this machine and the registries.
    let certificates = "etc/ssl/certs/ca-certificates.crt";
    fs::copy(Path::new("/").join(certificates), root.join(certificates))?;
    symlink("/usr/bin/python3", root.join("usr/local/bin/python"))?;
    if let Some((node, npm)) = over {
        fs::copy(node, root.join("usr/local/bin/node"))?;
        let to = root.join("usr/local/lib/node_modules");
        let copied = quietly(Command::new("cp").arg("-r").arg(npm).arg(to));
        if !copied {
            return Err(io::Error::other("npm can't be copied"));
        }
        let cli = "../lib/node_modules/npm/bin/npm-cli.js";
        symlink(cli, root.join("usr/local/bin/npm"))?;
    }
    let archived = quietly(
        Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(folder.join("over.tar"))
            .args(["--owner=0", "--group=0", "."]),
    );
    fs::remove_dir_all(&root)?;
    match archived {
        true => Ok(()),
        false => Err(io::Error::other("tar failed")),
    }
}

/// An empty folder for what is built.
fn folder(name: &str) -> io::Result<PathBuf> {
    let folder = cache().join(name);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Where archives are kept from run to run, whatever checkout it is.
fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(home).unwrap_or_else(std::env::temp_dir);
    base.join("devenv-tests")
}

fn build(folder: &Path, image: &str) -> bool {
    eprintln!("building {image}");
    // Without BuildKit: the client of some distributions lacks its plugin.
    quietly(
        Command::new("docker")
            .args(["build", "--quiet", "--tag", image])
            .arg(folder)
            .env("DOCKER_BUILDKIT", "0"),
    )
}

/// Whether the engine has an image.
pub fn exists(image: &str) -> bool {
    let mut inspect = Command::new("docker");
    inspect
        .args(["image", "inspect", image])
        .stderr(Stdio::null());
    quietly(&mut inspect)
}

fn made(result: io::Result<()>) -> bool {
    if let Err(error) = &result {
        eprintln!("{WHY}: {error}");
    }
    result.is_ok()
}

fn quietly(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
