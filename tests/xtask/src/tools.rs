//! Tools of the tests that are no packages of this distribution, kept in the target
//! folder, and the Docker Engine that the tests of containers need.

use crate::needs::{self, Missing};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The newest that the oldest supported Rust builds.
const HURL: &str = "8.0.1";
const LOCUST: &str = "locust>=2.20,<3";
/// The Compose 2 whose labels and hashes ours are compared with.
const COMPOSE: &str = "docker-compose=2.26.1-4";
const COMPOSE_RELEASE: &str = "trixie";

/// How long an engine may take to answer after its start.
const ENGINE: Duration = Duration::from_secs(60);

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
    }

    /// Installs what is missing and answers what still is, with who misses it.
    pub fn install(&self) -> Vec<Missing> {
        let mut missing = Vec::new();
        if needs::find("hurl").is_none() && !self.hurl().is_file() {
            self.install_hurl();
            if !self.hurl().is_file() {
                missing.push(("hurl", "the suite of the read side"));
            }
        }
        if needs::find("locust").is_none() && !self.locust().is_file() {
            self.install_locust();
            if !self.locust().is_file() {
                missing.push(("locust", "the suite of the traffic generators"));
            }
        }
        if !self.compose().is_file() {
            self.install_compose();
            if !self.compose().is_file() {
                missing.push(("docker compose", "the tests of compose files"));
            }
        }
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

    /// From a newer Debian, unpacked and not installed: apt is asked with folders of its
    /// own, so that this machine's release stays what it is.
    fn install_compose(&self) {
        let Some(archive) = debian_archive() else {
            return;
        };
        eprintln!("unpacking Debian's {COMPOSE}");
        let folder = self.folder.join("compose");
        let apt = folder.join("apt");
        let made = fs::create_dir_all(apt.join("lists/partial"))
            .and_then(|()| fs::create_dir_all(apt.join("cache/archives/partial")))
            .and_then(|()| {
                let source = format!(
                    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {archive} \
                     {COMPOSE_RELEASE} main\n"
                );
                fs::write(apt.join("sources.list"), source)
            });
        if let Err(error) = made {
            eprintln!("{}: {error}", apt.display());
            return;
        }
        let ask = |words: &[&str]| {
            let mut command = Command::new("apt-get");
            command.current_dir(&apt);
            for (option, path) in [
                ("Dir::Etc::SourceList", "sources.list"),
                ("Dir::Etc::SourceParts", "none"),
                ("Dir::State::Lists", "lists"),
                ("Dir::Cache", "cache"),
            ] {
                let path = apt.join(path);
                command.args(["-o", &format!("{option}={}", path.display())]);
            }
            // It may not read the folder as its own user.
            command.args(["-o", "APT::Sandbox::User="]);
            run(command.args(words))
        };
        if !ask(&["update", "-qq"]) || !ask(&["download", "-qq", COMPOSE]) {
            return;
        }
        let packages = fs::read_dir(&apt).into_iter().flatten().flatten();
        for package in packages.map(|entry| entry.path()) {
            if package.extension().is_some_and(|kind| kind == "deb") {
                run(Command::new("dpkg").arg("-x").arg(package).arg(&folder));
            }
        }
        let _ = fs::remove_dir_all(apt);
    }

    /// The machine's Docker Engine: the one that answers, or one that is started for as
    /// long as what is returned lives. `Err`: why there is none.
    pub fn engine(&self) -> Result<Option<Engine>, Missing> {
        let why = "the tests of containers";
        if answers() {
            return Ok(None);
        }
        let Some(dockerd) = needs::find("dockerd") else {
            return Err(("dockerd", why));
        };
        let log = fs::create_dir_all(&self.folder)
            .and_then(|()| File::create(self.folder.join("dockerd.log")));
        let started = log.and_then(|log| {
            Command::new(dockerd)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
        });
        let Ok(child) = started else {
            return Err(("a running dockerd", why));
        };
        let mut engine = Engine { child };
        let begin = Instant::now();
        while !answers() {
            let ended = engine.child.try_wait().ok().flatten().is_some();
            if ended || begin.elapsed() > ENGINE {
                let log = self.folder.join("dockerd.log");
                eprintln!("dockerd does not answer; see {}", log.display());
                return Err(("a running dockerd", why));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(Some(engine))
    }
}

/// A Docker Engine that we have started; ends when dropped.
#[derive(Debug)]
pub struct Engine {
    child: Child,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Asked to, it ends its containerd and unmounts what it has mounted.
        let asked = run(Command::new("kill").arg(self.child.id().to_string()));
        if asked {
            let _ = self.child.wait();
        }
    }
}

fn answers() -> bool {
    Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Where this machine has Debian's main archive from.
fn debian_archive() -> Option<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| line.trim_end_matches('/'))
        .find(|uri| uri.ends_with("/debian"))
        .map(str::to_owned)
}

fn run(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
