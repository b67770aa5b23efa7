//! Packages and source archives of Debian releases other than this machine's, fetched and
//! not installed: apt is asked with folders of its own, so that the machine stays what it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// apt with lists of its own.
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Asks for the lists that `sources` name (`deb trixie`); they are kept in `folder`.
    pub fn ask(folder: &Path, sources: &[&str]) -> io::Result<Self> {
        let archive = archive().ok_or_else(|| {
            io::Error::other("apt has no archive of Debian's; name one in /etc/apt/sources.list")
        })?;
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("cache/archives/partial"))?;
        let lines: String = sources
            .iter()
            .filter_map(|source| source.split_once(' '))
            .map(|(kind, release)| {
                format!(
                    "{kind} [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
                     {archive} {release} main\n"
                )
            })
            .collect();
        fs::write(folder.join("sources.list"), lines)?;
        let apt = Self {
            folder: folder.to_owned(),
        };
        // Without this it is content when it gets no list at all.
        apt.get(folder, &["update", "-qq", "--error-on=any"])?;
        Ok(apt)
    }

    /// Fetches packages into `to`.
    pub fn packages(&self, to: &Path, packages: &[&str]) -> io::Result<()> {
        self.get(to, &[&["download", "-qq"], packages].concat())
    }

    /// Fetches the upstream archives of source packages into `to`.
    pub fn sources(&self, to: &Path, packages: &[&str]) -> io::Result<()> {
        let words = ["source", "-qq", "--download-only", "--tar-only"];
        self.get(to, &[&words[..], packages].concat())
    }

    fn get(&self, to: &Path, words: &[&str]) -> io::Result<()> {
        let mut command = Command::new("apt-get");
        command.current_dir(to);
        for (option, path) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "none"),
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            let path = self.folder.join(path);
            command.args(["-o", &format!("{option}={}", path.display())]);
        }
        // It may not read the folder as its own user.
        command.args(["-o", "APT::Sandbox::User="]);
        // A mirror that stands still for a while serves all the same.
        command.args(["-o", "Acquire::Check-Valid-Until=false"]);
        // Nobody reads descriptions here.
        command.args(["-o", "Acquire::Languages=none"]);
        command.args([
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]);
        let output = command.args(words).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        eprint!("{said}");
        let why = said.lines().find(|line| line.starts_with("E: "));
        Err(io::Error::other(format!(
            "`apt-get {}` failed: {}",
            words.join(" "),
            why.unwrap_or("it does not say why")
        )))
    }
}

/// Where this machine has Debian's main archive from.
fn archive() -> Option<String> {
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

/// Unpacks the packages that lie in `from` into `to`.
pub fn unpack(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let package = entry?.path();
        if package.extension().is_none_or(|kind| kind != "deb") {
            continue;
        }
        let mut command = Command::new("dpkg");
        if !command.arg("-x").arg(&package).arg(to).status()?.success() {
            let what = format!("{} can't be unpacked", package.display());
            return Err(io::Error::other(what));
        }
    }
    Ok(())
}
