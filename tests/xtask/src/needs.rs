//! What the tests need beyond Rust, and how it is installed on Debian and Ubuntu.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A tool, the package that brings it, and who needs it.
struct Need {
    tool: &'static str,
    package: &'static str,
    why: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        tool: "mariadbd",
        package: "mariadb-server-core",
        why: "the database tests",
    },
    Need {
        tool: "mariadb",
        package: "mariadb-client-core",
        why: "looking into a test's database by hand",
    },
    Need {
        tool: "node",
        package: "nodejs",
        why: "the page, the npm socket.io-client and the seed services",
    },
    Need {
        tool: "npm",
        package: "npm",
        why: "the page, the npm socket.io-client and the seed services",
    },
    Need {
        tool: "chromium",
        package: "chromium",
        why: "the browser test",
    },
    Need {
        tool: "chromedriver",
        package: "chromium-driver",
        why: "the browser test",
    },
    Need {
        tool: "kubectl",
        package: "kubernetes-client",
        why: "the kubectl test",
    },
    Need {
        tool: "python3",
        package: "python3",
        why: "the python-socketio client and the seed services",
    },
    Need {
        tool: "ip",
        package: "iproute2",
        why: "the inventory's own tests",
    },
    Need {
        tool: "unshare",
        package: "util-linux",
        why: "the inventory's own tests",
    },
    Need {
        tool: "curl",
        package: "curl",
        why: "the kubectl test",
    },
    Need {
        tool: "jq",
        package: "jq",
        why: "reading `-o json` in scripts",
    },
    Need {
        tool: "docker-registry",
        package: "docker-registry",
        why: "the test of ingress-nginx in kind",
    },
    Need {
        tool: "gdbserver",
        package: "gdbserver",
        why: "the debugger test",
    },
    Need {
        tool: "gdb",
        package: "gdb",
        why: "the debugger test",
    },
    Need {
        tool: "git",
        package: "git",
        why: "copying the checkout's files",
    },
    Need {
        tool: "dockerd",
        package: "docker.io",
        why: "the tests of containers",
    },
    Need {
        tool: "iptables",
        package: "iptables",
        why: "the tests of containers",
    },
    Need {
        tool: "busybox",
        package: "busybox-static",
        why: "the tests of containers",
    },
    Need {
        tool: "mmdebstrap",
        package: "mmdebstrap",
        why: "the tests of containers",
    },
];

/// A tool that is not here, and who misses it.
pub type Missing = (&'static str, Cow<'static, str>);

/// Installs what is missing and answers what still is.
/// Asks the package lists only when something is missing.
pub fn install() -> Vec<Missing> {
    let mut packages: Vec<&str> = NEEDS
        .iter()
        .filter(|need| find(need.tool).is_none())
        .map(|need| need.package)
        .collect();
    // A Python without ensurepip (Debian's, bare) cannot make a venv.
    if !python_makes_venvs() {
        packages.push("python3-venv");
    }
    packages.dedup();
    if !packages.is_empty() {
        apt(&packages);
    }
    let mut missing: Vec<_> = NEEDS
        .iter()
        .filter(|need| find(need.tool).is_none())
        .map(|need| (need.tool, need.why.into()))
        .collect();
    if find("python3").is_some() && !python_makes_venvs() {
        missing.push((
            "python3-venv",
            "the python-socketio client and the seed services".into(),
        ));
    }
    missing
}

fn python_makes_venvs() -> bool {
    Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Installs the packages, one by one when they cannot be had together: one that
/// this release does not know must not keep the others away.
pub fn apt(packages: &[&str]) {
    if find("apt-get").is_none() {
        eprintln!(
            "missing, and there is no apt-get to install them: {}",
            packages.join(" ")
        );
        return;
    }
    let Some(prefix) = privilege() else {
        eprintln!(
            "missing, and neither root nor a sudo that asks nothing is here; install them with\n  sudo apt-get install {}",
            packages.join(" ")
        );
        return;
    };
    eprintln!("installing {}", packages.join(" "));
    run(&prefix, &["update", "-qq"]);
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    if !run(&prefix, &[&install[..], packages].concat()) {
        for package in packages {
            run(&prefix, &[&install[..], &[package]].concat());
        }
    }
}

fn run(prefix: &[&str], arguments: &[&str]) -> bool {
    let mut words = prefix.to_vec();
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    words.extend(arguments);
    Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What to put before a command so that root runs it; `None`: root is out of reach.
fn privilege() -> Option<Vec<&'static str>> {
    // The owner of a process's /proc entry is its effective user.
    let root = std::fs::metadata("/proc/self")
        .map(|entry| std::os::unix::fs::MetadataExt::uid(&entry) == 0)
        .unwrap_or(false);
    if root {
        return Some(vec![]);
    }
    let sudo = Command::new("sudo")
        .args(["-n", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    sudo.is_ok_and(|status| status.success())
        .then(|| vec!["sudo", "-n"])
}

/// Where a tool is: on the PATH, or in the administrators' folders that an
/// ordinary user's PATH leaves out.
pub fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(tool))
        .find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|entry| entry.is_file() && entry.permissions().mode() & 0o111 != 0)
}
