//! Finds the database engine of this machine that stands in for Cloud SQL.

use std::{
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Which family of server a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Flavour {
    /// Oracle's MySQL, what Cloud SQL runs.
    MySQL,
    /// MariaDB, which stands in for it where MySQL is not installed.
    MariaDB,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MySQL => "MySQL",
            Self::MariaDB => "MariaDB",
        })
    }
}

/// An installed database server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// The server program.
    pub server: PathBuf,
    /// Its family.
    pub flavour: Flavour,
    /// Its version, e.g. `10.11.19`.
    pub version: String,
}

/// Why no engine can be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Neither mysqld nor mariadbd is installed.
    #[error(
        "no MySQL or MariaDB server is installed (looked for mysqld and mariadbd in PATH and in /usr/sbin, /usr/local/mysql/bin)"
    )]
    NotInstalled,
    /// The program does not tell what it is.
    #[error("{} does not tell its version: {reason}", server.display())]
    Unknown {
        /// The program.
        server: PathBuf,
        /// What came instead.
        reason: String,
    },
}

impl Engine {
    /// The engine of this machine: MySQL before MariaDB, since Cloud SQL is MySQL.
    pub fn find() -> Result<Self, EngineError> {
        Self::ask(&Self::installed().ok_or(EngineError::NotInstalled)?)
    }

    /// The server program that [`Self::find`] asks; asking takes a while, this doesn't.
    pub fn installed() -> Option<PathBuf> {
        ["mysqld", "mariadbd"].iter().find_map(|name| which(name))
    }

    /// Asks a server program what it is.
    pub fn ask(server: &Path) -> Result<Self, EngineError> {
        let unknown = |reason: String| EngineError::Unknown {
            server: server.to_owned(),
            reason,
        };
        let out = Command::new(server)
            .args(["--no-defaults", "--version"])
            .output()
            .map_err(|e| unknown(e.to_string()))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (flavour, version) = parse_version(&text).ok_or_else(|| unknown(text.clone()))?;
        Ok(Self {
            server: server.to_owned(),
            flavour,
            version,
        })
    }

    /// The system user that the server is started as, which it wants named when it
    /// would run as root.
    pub fn user_argument(uid: u32) -> Option<&'static str> {
        (uid == 0).then_some("--user=root")
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flavour, self.version)
    }
}

/// Reads `mysqld  Ver 9.7.4 for Linux …` and `mariadbd  Ver 10.11.19-MariaDB-… for …`.
fn parse_version(text: &str) -> Option<(Flavour, String)> {
    let after = text.split("Ver ").nth(1)?;
    let word = after.split_whitespace().next()?;
    let flavour = if text.contains("MariaDB") {
        Flavour::MariaDB
    } else {
        Flavour::MySQL
    };
    let version: String = word
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    (!version.is_empty()).then_some((flavour, version))
}

/// A program in PATH, or in the folders that servers are put into and that an
/// ordinary user's PATH leaves out.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = [
        "/usr/sbin",
        "/usr/local/sbin",
        "/usr/local/mysql/bin",
        "/usr/libexec",
    ];
    std::env::split_paths(&path)
        .chain(usual.iter().map(PathBuf::from))
        .map(|dir| dir.join(OsStr::new(name)))
        .find(|p| fs::metadata(p).is_ok_and(|m| m.is_file() && is_executable(&m)))
}

fn is_executable(m: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    m.permissions().mode() & 0o111 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)",
        Flavour::MariaDB,
        "10.11.19"
    )]
    #[case(
        "/usr/sbin/mysqld  Ver 9.7.4-0debian1 for Linux on x86_64 ((Debian))",
        Flavour::MySQL,
        "9.7.4"
    )]
    #[case(
        "mysqld  Ver 8.0.44 for Linux on x86_64 (MySQL Community Server - GPL)",
        Flavour::MySQL,
        "8.0.44"
    )]
    fn versions(#[case] text: &str, #[case] flavour: Flavour, #[case] version: &str) {
        assert_eq!(parse_version(text), Some((flavour, version.to_owned())));
    }

    #[test]
    fn nonsense_is_no_version() {
        assert_eq!(parse_version("bash: mysqld: not found"), None);
        assert_eq!(parse_version("Ver x"), None);
    }
}
