//! What this machine must have, what of it is missing, and the command that mends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Stdio,
};

use serde::Serialize;

use crate::cloudsql::engine::{Engine, which};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked for.
    pub name: String,
    /// What was found.
    pub state: State,
    /// The version or place found, or what is missing and what for.
    pub detail: String,
    /// The command that mends it, for people to read and `--yes` to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// There.
    Ok,
    /// Not there, and nothing that was asked for needs it.
    Optional,
    /// Not there, and `up` can't do without.
    Missing,
}

/// What mends a missing thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fix {
    /// Packages of this system's package manager; `--yes` consents to installing them.
    Packages(Vec<String>),
    /// A command that people run themselves.
    Command(String),
}

/// What a project asks of the machine.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Whether a database server of this machine stands in for Cloud SQL.
    pub database: bool,
    /// The programs that installs, builds and runs begin with, and who needs each:
    /// `[image.api1]`.
    pub programs: BTreeMap<String, BTreeSet<String>>,
}

/// Looks at everything that `needs` names.
pub fn examine(needs: &Needs) -> Vec<Check> {
    let mut checks = vec![namespaces()];
    if needs.database {
        checks.push(database());
    }
    checks.extend(programs(needs));
    if !needs.programs.contains_key("kubectl") {
        checks.push(program("kubectl", None));
    }
    checks
}

/// What of `needs` is not there; quicker than [`examine`], since nothing is asked for
/// its version.
pub fn missing(needs: &Needs) -> Vec<Check> {
    let mut checks = Vec::new();
    if needs.database && Engine::installed().is_none() {
        checks.push(database());
    }
    checks.extend(programs(needs));
    checks.retain(|c| c.state == State::Missing);
    checks
}

fn programs(needs: &Needs) -> impl Iterator<Item = Check> {
    let by_name = needs.programs.iter().filter(|(p, _)| !p.contains('/'));
    by_name.map(|(p, users)| program(p, Some(users)))
}

fn database() -> Check {
    let name = "database server".to_owned();
    match Engine::find() {
        Ok(engine) => Check {
            name,
            state: State::Ok,
            detail: format!("{engine} at {}", engine.server.display()),
            fix: None,
        },
        Err(e) => Check {
            name,
            state: State::Missing,
            detail: e.to_string(),
            fix: Some(Fix::Packages(vec![
                "mariadb-server-core".to_owned(),
                "mariadb-client-core".to_owned(),
            ])),
        },
    }
}

fn program(name: &str, users: Option<&BTreeSet<String>>) -> Check {
    if let Some(path) = which(name) {
        return Check {
            name: name.to_owned(),
            state: State::Ok,
            detail: path.display().to_string(),
            fix: None,
        };
    }
    let (state, detail) = match users {
        Some(users) => {
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            let detail = format!("not in PATH; devenv.toml {} runs it", users.join(", "));
            (State::Missing, detail)
        }
        None => (
            State::Optional,
            "not in PATH; devenv itself does without it".to_owned(),
        ),
    };
    Check {
        name: name.to_owned(),
        state,
        detail,
        fix: package_of(name),
    }
}

/// The Debian packages that hold a program, or where else it comes from.
fn package_of(program: &str) -> Option<Fix> {
    let packages: &[&str] = match program {
        "npm" | "npx" => &["nodejs", "npm"],
        "node" => &["nodejs"],
        "python3" => &["python3", "python3-venv"],
        "pip" | "pip3" => &["python3-pip", "python3-venv"],
        "go" => &["golang-go"],
        "mvn" => &["maven", "default-jdk-headless"],
        "gradle" => &["gradle"],
        "make" => &["make"],
        "gcc" | "cc" => &["gcc", "libc6-dev"],
        "cargo" | "rustc" => {
            let text = "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh";
            return Some(Fix::Command(text.to_owned()));
        }
        "kubectl" => {
            let text = "see https://kubernetes.io/docs/tasks/tools/ (or: gcloud components install kubectl)";
            return Some(Fix::Command(text.to_owned()));
        }
        _ => return None,
    };
    Some(Fix::Packages(
        packages.iter().map(|p| (*p).to_owned()).collect(),
    ))
}

/// Whether this user may make namespaces, which pods are made of. Without them pods run
/// as plain processes, so nothing that was asked for is missing.
fn namespaces() -> Check {
    let read = |path: &str| fs::read_to_string(path).map(|s| s.trim().to_owned()).ok();
    let fix = if nix::unistd::geteuid().is_root() {
        None
    } else if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1")
    {
        Some("sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
    } else if read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        Some("sudo sysctl -w kernel.unprivileged_userns_clone=1")
    } else if read("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        Some("sudo sysctl -w user.max_user_namespaces=15000")
    } else {
        None
    };
    match fix {
        None => Check {
            name: "namespaces".to_owned(),
            state: State::Ok,
            detail: "pods get a network and a root of their own".to_owned(),
            fix: None,
        },
        Some(command) => Check {
            name: "namespaces".to_owned(),
            state: State::Optional,
            detail: "this machine forbids them to ordinary users: pods run as plain processes, get their port in \
                     PORT, and share files and network with everything else"
                .to_owned(),
            fix: Some(Fix::Command(command.to_owned())),
        },
    }
}

/// The command that installs `packages`, with sudo where it is needed.
pub fn install_command(packages: &[String]) -> String {
    let sudo = if nix::unistd::geteuid().is_root() {
        ""
    } else {
        "sudo "
    };
    format!(
        "{sudo}apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Why packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Not a Debian-like system.
    #[error("devenv installs packages with apt-get, which is not here; install by hand: {}", .0.join(" "))]
    NoApt(Vec<String>),
    /// The command failed.
    #[error("`{command}` failed: {output}")]
    Failed {
        /// The command, to be run by hand.
        command: String,
        /// The end of its output.
        output: String,
    },
}

/// Installs packages; what `--yes` consents to.
pub async fn install(packages: &[String]) -> Result<(), InstallError> {
    if which("apt-get").is_none() {
        return Err(InstallError::NoApt(packages.to_vec()));
    }
    let command = install_command(packages);
    if run(&command).await.is_ok() {
        return Ok(());
    }
    // A new machine has no package lists, or old ones.
    let sudo = if nix::unistd::geteuid().is_root() {
        ""
    } else {
        "sudo "
    };
    run(&format!("{sudo}apt-get update")).await?;
    run(&command).await
}

async fn run(command: &str) -> Result<(), InstallError> {
    let failed = |output: String| InstallError::Failed {
        command: command.to_owned(),
        output,
    };
    let out = tokio::process::Command::new("sh")
        .args(["-c", command])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| failed(e.to_string()))?;
    if out.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let tail: Vec<&str> = text.lines().rev().take(5).collect();
    Err(failed(
        tail.into_iter().rev().collect::<Vec<_>>().join("\n"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let needs = Needs {
            database: false,
            programs: ["sh", "no-such-program-here"]
                .map(|p| (p.to_owned(), BTreeSet::from(["[image.x]".to_owned()])))
                .into(),
        };
        let checks = examine(&needs);
        let of = |n: &str| checks.iter().find(|c| c.name == n).unwrap();
        assert_eq!(of("sh").state, State::Ok);
        assert_eq!(of("no-such-program-here").state, State::Missing);
        assert_eq!(of("no-such-program-here").fix, None);
        assert!(of("no-such-program-here").detail.contains("[image.x]"));
        let names: Vec<String> = missing(&needs).into_iter().map(|c| c.name).collect();
        assert!(
            names.contains(&"no-such-program-here".to_owned()) && !names.contains(&"sh".to_owned())
        );
        assert_eq!(
            package_of("npm"),
            Some(Fix::Packages(vec!["nodejs".into(), "npm".into()]))
        );
    }
}
