//! Tools of the tests that are no packages of this distribution, kept in the target
//! folder.

use crate::apt::{self, Apt};
use crate::needs::{self, Missing};
use crate::offline;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The newest that the oldest supported Rust builds.
const HURL: &str = "8.0.1";
const LOCUST: &str = "locust>=2.20,<3";
/// The Compose 2 whose labels and hashes ours are compared with.
const COMPOSE: &str = "docker-compose=2.26.1-4";
/// The real kind.
const KIND: &str = "kind";
/// The Debian that has both.
const NEWER: &str = "deb trixie";

/// Where they are, below cargo's target folder.
#[derive(Debug, Clone)]
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    pub fn of(target: &Path) -> Self {
        Self {
            folder: target.join("tools"),
        }
    }

    /// Makes the tools known to what `command` starts.
    pub fn offer(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.hurl(), self.locust()]
            .into_iter()
            .filter_map(|tool| tool.parent().map(Path::to_owned))
            .chain(std::env::split_paths(&path));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        if self.compose().is_file() {
            command.env("DEVENV_TEST_COMPOSE", self.compose());
        }
        if self.kind().is_file() && offline::has_kind_node() {
            command.env("DEVENV_TEST_KIND", self.kind());
            command.env("DEVENV_TEST_KIND_NODE", offline::KIND_NODE);
        }
    }

    /// Installs what is missing and answers what still is, with who misses it.
    pub fn install(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        if needs::find("hurl").is_none() && !self.hurl().is_file() {
            self.install_hurl();
            if !self.hurl().is_file() {
                missing.push(("hurl", "the suite of the read side".into()));
            }
        }
        if needs::find("locust").is_none() && !self.locust().is_file() {
            self.install_locust();
            if !self.locust().is_file() {
                missing.push(("locust", "the suite of the traffic generators".into()));
            }
        }
        let newer = [
            (COMPOSE, self.compose(), "the tests of compose files"),
            (KIND, self.kind(), "the tests of kind"),
        ];
        let lacking = newer.iter().filter(|(_, program, _)| !program.is_file());
        let packages: Vec<_> = lacking.clone().map(|(package, _, _)| *package).collect();
        if !packages.is_empty()
            && let Err(error) = self.install_newer(&packages)
        {
            eprintln!("{}: {error}", packages.join(", "));
        }
        missing.extend(
            lacking
                .filter(|(_, program, _)| !program.is_file())
                .map(|(package, _, why)| (*package, (*why).into())),
        );
        missing
    }

    fn hurl(&self) -> PathBuf {
        self.folder.join("hurl/bin/hurl")
    }

    fn install_hurl(&self) {
        eprintln!("installing Hurl {HURL}");
        needs::apt(&[
            "libcurl4-openssl-dev",
            "libxml2-dev",
            "libclang-dev",
            "pkg-config",
        ]);
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = self.folder.join("hurl/build");
        // Without optimisation: building it so takes longer than all that it runs here.
        run(Command::new(cargo)
            .args(["install", "--quiet", "--locked", "--debug", "hurl"])
            .args(["--version", HURL, "--root"])
            .arg(self.folder.join("hurl"))
            .env("CARGO_TARGET_DIR", &build));
        let _ = fs::remove_dir_all(build);
    }

    fn locust(&self) -> PathBuf {
        self.folder.join("locust/bin/locust")
    }

    fn install_locust(&self) {
        eprintln!("installing Locust");
        let venv = self.folder.join("locust");
        let made = run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        if made {
            run(Command::new(venv.join("bin/pip")).args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                LOCUST,
            ]));
        }
    }

    fn compose(&self) -> PathBuf {
        self.folder
            .join("compose/usr/libexec/docker/cli-plugins/docker-compose")
    }

    fn kind(&self) -> PathBuf {
        self.folder.join("kind/usr/bin/kind")
    }

    /// Unpacks packages of a newer Debian.
    fn install_newer(&self, packages: &[&str]) -> io::Result<()> {
        eprintln!("unpacking Debian's {}", packages.join(" and "));
        let lists = self.folder.join("apt");
        fs::create_dir_all(&lists)?;
        let apt = Apt::ask(&lists, &[NEWER])?;
        for package in packages {
            let folder = match *package {
                COMPOSE => self.folder.join("compose"),
                _ => self.folder.join("kind"),
            };
            let fetched = folder.join("fetched");
            fs::create_dir_all(&fetched)?;
            apt.packages(&fetched, &[package])?;
            apt::unpack(&fetched, &folder)?;
            fs::remove_dir_all(fetched)?;
        }
        fs::remove_dir_all(lists)
    }
}

fn run(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
