//! The services' tests on real MySQL in a container, after those on this machine's server.

use crate::offline;
use crate::part::{self, Outcome};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

/// Chooses the server of the tests' harness: `container` or `local`.
const CHOICE: &str = "DEVENV_TEST_DATABASE";
/// Names the container's image.
const IMAGE: &str = "DEVENV_TEST_MYSQL_IMAGE";
/// What the harness takes unless told otherwise.
const OFFICIAL: &str = "mysql:8.4";
/// Names this run; its containers have it as the label.
const RUN: &str = "DEVENV_TEST_RUN";
const LABEL: &str = "dev.devenv.test.run";
/// How long the last program's container may take to go.
const GONE: Duration = Duration::from_secs(30);

/// Has a command's tests use this machine's server.
pub fn local(command: &mut Command) -> &mut Command {
    command.env(CHOICE, "local")
}

/// Runs tests on MySQL in containers, none of which may be left.
pub fn in_container(name: &str, tests: &mut Command) -> Outcome {
    let Some(image) = image() else {
        let why = format!(
            "the services' tests on real MySQL: no Docker Engine with the image {} or {OFFICIAL}",
            offline::MYSQL
        );
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        return Outcome::without_command(name, !ci, Some(why));
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let run = format!(
        "{}-{}",
        std::process::id(),
        now.map_or(0, |now| now.as_nanos())
    );
    tests
        .env(CHOICE, "container")
        .env(IMAGE, image)
        .env(RUN, &run);
    let outcome = part::tests(name, tests);
    let left = left(&run);
    if left.is_empty() {
        return outcome;
    }
    println!("{name}: containers were left, and are removed: {left:?}");
    for container in &left {
        docker(&["rm", "--force", "--volumes", container]);
    }
    outcome.and(Outcome::without_command(name, false, None))
}

/// The one that was asked for, ours, or the official one if it is here: nothing is downloaded.
fn image() -> Option<String> {
    let asked = std::env::var(IMAGE).ok();
    let known = [offline::MYSQL, OFFICIAL].map(str::to_owned);
    asked
        .into_iter()
        .chain(known)
        .find(|image| offline::exists(image))
}

/// The containers of a run, once those that are being removed are gone.
fn left(run: &str) -> Vec<String> {
    let label = format!("label={LABEL}={run}");
    let begin = Instant::now();
    loop {
        let left = docker(&["ps", "--all", "--quiet", "--filter", &label]);
        if left.is_empty() || begin.elapsed() > GONE {
            return left;
        }
        sleep(Duration::from_millis(100));
    }
}

/// The lines that docker prints.
fn docker(words: &[&str]) -> Vec<String> {
    let output = Command::new("docker")
        .args(words)
        .stdin(Stdio::null())
        .output();
    let stdout = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}
