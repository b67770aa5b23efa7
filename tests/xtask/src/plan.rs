//! Which parts there are, in which order, and the command of each.
//!
//! Tests are run by `cargo test` wherever this runs, so that a machine with
//! another runner installed does not test otherwise than CI.

use crate::engine::Engine;
use crate::part::{self, Outcome};
use crate::tools::Tools;
use crate::{database, needs, offline, page, report};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The parts of `test`, in their order: what fails soonest and cheapest first.
pub const PARTS: &[&str] = &[
    "fmt",
    "page",
    "build",
    "clippy",
    "unit",
    "contract",
    "mysql",
    "inventory",
    "blackbox",
    "soak",
];

/// The long forms; `test` runs the first two in few rounds, and the third is among
/// the sandbox's own tests.
pub const SOAKS: &[&str] = &[
    "db-kill",
    "devenv-kill",
    "sandbox-kill",
    "cold",
    "edits",
    "reload-kill",
    "runs",
    "run-kill",
    "suites",
    "kind",
    "kind-kill",
];

/// The test binaries of the services that ask a database something.
const ON_MYSQL: &[&str] = &["contract", "left", "read_side", "schema", "write_side"];

/// What would be the same on any database: the seed's own tests, which have none, and how
/// what was read comes to a page.
const NOT_ON_MYSQL: &[&str] = &["contract::seed::", "::live::polling::"];

/// Rounds of a kill test in `test`.
const SHORT_ROUNDS: u32 = 5;

/// The tests that are in the crates.
fn unit(root: &Path, name: &str) -> Outcome {
    part::tests(
        name,
        // The black-box tests are other parts' business. Cargo's selection stays the
        // whole workspace: a smaller one would have other features and compile the
        // dependencies anew.
        database::local(&mut cargo(root)).args([
            "test",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--",
            "--skip",
            "blackbox::",
            "--skip",
            "leaks::",
            "--skip",
            "contract::",
            "--show-output",
        ]),
    )
}

/// Some test binaries of the services. What runs is chosen by their names alone, for
/// the reason that [`unit`] has.
fn services(root: &Path, binaries: &[&str], skipped: &[&str]) -> Command {
    let mut command = cargo(root);
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    for binary in binaries {
        command.args(["--test", binary]);
    }
    command.args(["--", "--show-output"]);
    for name in skipped {
        command.args(["--skip", name]);
    }
    command
}

/// Installs and starts what tests need; answers what is missing for all that.
pub fn ready(root: &Path) -> (Vec<needs::Missing>, Option<Engine>) {
    let mut missing = needs::install();
    let tools = Tools::of(&target(root));
    missing.extend(tools.install());
    let engine = match Engine::ensure(root, &target(root).join("tools/dockerd.log")) {
        Ok(engine) => {
            missing.extend(offline::images(root));
            engine
        }
        Err(none) => {
            missing.push(none);
            None
        }
    };
    (missing, engine)
}

/// `cargo xtask test`: every part (or `only` some), to the end even when one fails.
pub fn test(root: &Path, only: &[&str]) -> ExitCode {
    let (missing, _engine) = ready(root);
    let mut outcomes = Vec::new();
    let mut built = true;
    for name in PARTS {
        if !(only.is_empty() || only.contains(name)) {
            continue;
        }
        let outcome = match *name {
            "fmt" => part::check(name, cargo(root).args(["fmt", "--all", "--check"])),
            "page" => page_part(root),
            "build" => part::check(
                name,
                // With all targets, so that the tests' features are those of this
                // build and nothing is compiled twice.
                cargo(root).args(["build", "--workspace", "--all-targets", "--locked"]),
            ),
            "clippy" => part::check(
                name,
                cargo(root).args([
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ]),
            ),
            _ if !built => Outcome::without_command(name, false, None),
            "unit" => unit(root, name),
            // The services alone, in every language, and the seed's own tests.
            "contract" => part::tests(
                name,
                database::local(&mut services(root, &["contract"], &[])),
            ),
            // The same, and the services' own tests, on real MySQL.
            "mysql" => database::in_container(name, &mut services(root, ON_MYSQL, NOT_ON_MYSQL)),
            "inventory" => libtest(root, name, "inventory", "leaks::", SHORT_ROUNDS),
            "blackbox" => blackbox(root, name),
            _ => soaks(root, &SOAKS[..2], SHORT_ROUNDS)
                .into_iter()
                .reduce(Outcome::and)
                .map_or_else(
                    || Outcome::without_command(name, true, None),
                    |sum| Outcome {
                        name: (*name).to_owned(),
                        ..sum
                    },
                ),
        };
        if *name == "build" {
            built = outcome.ok;
        }
        outcomes.push(outcome);
    }
    report::close(&outcomes, &missing)
}

/// `cargo xtask soak`: the long forms.
pub fn soak(root: &Path, names: &[&str], rounds: u32) -> ExitCode {
    let (missing, _engine) = ready(root);
    let mut outcomes = vec![page_part(root)];
    outcomes.push(part::check(
        "build",
        cargo(root).args(["build", "--workspace", "--all-targets", "--locked"]),
    ));
    if outcomes.iter().all(|outcome| outcome.ok) {
        let names = if names.is_empty() { SOAKS } else { names };
        outcomes.extend(soaks(root, names, rounds));
    }
    report::close(&outcomes, &missing)
}

/// `cargo xtask bench`: builds what is measured with optimisation, then measures.
pub fn bench(root: &Path, arguments: &[&str]) -> ExitCode {
    let missing = needs::install();
    for (tool, why) in &missing {
        eprintln!("not here: {tool} ({why})");
    }
    let page = page::folder(root).map(|web| page_build(&web, part::prepare));
    if page.flatten().is_some_and(|page| !page.ok) {
        return ExitCode::FAILURE;
    }
    let build = part::prepare(
        "build",
        cargo(root).args([
            "build",
            "--release",
            "--locked",
            "-p",
            "devenv",
            "-p",
            "api1",
            "-p",
            "api2",
            "-p",
            "api3",
            "-p",
            "frontend",
            "-p",
            "devenv-bench",
        ]),
    );
    if !build.ok {
        return ExitCode::FAILURE;
    }
    let bench = target(root).join("release/devenv-bench");
    let mut command = Command::new(&bench);
    Tools::of(&target(root)).offer(&mut command);
    command
        .current_dir(root)
        .args(arguments)
        .env("DEVENV_TEST_MYSQL_IMAGE", offline::MYSQL);
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{} cannot be run: {error}", bench.display());
            ExitCode::FAILURE
        }
    }
}

fn soaks(root: &Path, names: &[&str], rounds: u32) -> Vec<Outcome> {
    names
        .iter()
        .map(|name| match *name {
            "db-kill" => libtest(root, name, "blackbox", "blackbox::crash::database", rounds),
            "devenv-kill" => libtest(root, name, "blackbox", "blackbox::crash::devenv", rounds),
            "cold" => libtest(root, name, "blackbox", "blackbox::fresh::cold", rounds),
            // These are in the black-box part in few rounds.
            "edits" => edits(root, name, rounds),
            "reload-kill" => libtest(root, name, "blackbox", "blackbox::reload::killed", rounds),
            "runs" => libtest(root, name, "blackbox", "blackbox::e2e::two_runs", rounds),
            "run-kill" => libtest(root, name, "blackbox", "blackbox::e2e::a_killed", rounds),
            "suites" => libtest(root, name, "blackbox", "blackbox::e2e::the_default", rounds),
            // With all suites, and with as many edits of each API as rounds.
            "kind" => [
                "blackbox::kind::the_main",
                "blackbox::kind::edits",
                "blackbox::kind_nodes",
                "blackbox::unprivileged::in_the_engines_group_there",
            ]
            .map(|filter| libtest(root, name, "blackbox", filter, rounds))
            .into_iter()
            .reduce(Outcome::and)
            .unwrap_or_else(|| Outcome::without_command(name, true, None)),
            "kind-kill" => libtest(root, name, "blackbox", "blackbox::kind::a_killed", rounds),
            // The sandbox's own kill test: it needs no services and no database.
            _ => part::tests(
                name,
                cargo(root)
                    .args(["test", "--workspace", "--locked", "--test", "sandbox", "--"])
                    .args(["nothing_is_left_after_sigkill", "--test-threads=1"])
                    .env("DEVENV_SANDBOX_ROUNDS", rounds.to_string()),
            ),
        })
        .collect()
}

/// Edits under the load that a release build bears beside its services. The client is
/// optimised as well: on a machine of two cores what it takes, the services lack.
fn edits(root: &Path, name: &str, rounds: u32) -> Outcome {
    let build = cargo(root)
        .args(["build", "--release", "--locked", "-p", "devenv"])
        .status();
    if !build.is_ok_and(|status| status.success()) {
        eprintln!("{name}: devenv can't be built with optimisation");
        return Outcome::without_command(name, false, None);
    }
    let devenv = target(root).join("release/devenv");
    let mut tests = libtest_command(root, "blackbox", "lose_nothing", rounds, true);
    tests.env("DEVENV_BIN", devenv);
    // Its linking would take longer than all else, for a client that is fast enough.
    tests.env("CARGO_PROFILE_RELEASE_LTO", "off");
    part::tests(name, &mut tests)
}

/// The black-box tests, one at a time: they share the machine's ports, and two
/// of them measure.
fn blackbox(root: &Path, name: &str) -> Outcome {
    part::tests(
        name,
        cargo(root).args([
            "test",
            "--workspace",
            "--locked",
            "--test",
            "blackbox",
            "--",
            "--test-threads=1",
            "--skip",
            "blackbox::crash::",
            "--show-output",
        ]),
    )
}

fn libtest(root: &Path, name: &str, binary: &str, filter: &str, rounds: u32) -> Outcome {
    let mut tests = libtest_command(root, binary, filter, rounds, false);
    part::tests(name, &mut tests)
}

fn libtest_command(
    root: &Path,
    binary: &str,
    filter: &str,
    rounds: u32,
    optimised: bool,
) -> Command {
    let mut command = cargo(root);
    command.arg("test");
    if optimised {
        // Without the services: they are built as people have them.
        command.args(["--release", "-p", "devenv-tests"]);
    } else {
        command.arg("--workspace");
    }
    command
        .args([
            "--locked",
            "--test",
            binary,
            "--",
            filter,
            "--test-threads=1",
            "--include-ignored",
            "--show-output",
        ])
        .env("DEVENV_ROUNDS", rounds.to_string());
    command
}

/// Builds the page if it is stale, and tests it.
fn page_part(root: &Path) -> Outcome {
    let Some(web) = page::folder(root) else {
        println!("page: there is no services/frontend/web/package.json");
        return Outcome::without_command("page", false, None);
    };
    let made = page_build(&web, part::check);
    let tests = || part::tests("page", &mut npm(&web, &["test"]));
    match made {
        Some(made) if !made.ok => made,
        Some(made) => made.and(tests()),
        None => tests(),
    }
}

/// Installs and builds the page; `None`: what lies there is from these inputs.
fn page_build(web: &Path, run: fn(&str, &mut Command) -> Outcome) -> Option<Outcome> {
    let stamp = match page::Stamp::take(web) {
        Ok(stamp) if stamp.is_fresh(web) => return None,
        Ok(stamp) => stamp,
        Err(error) => {
            eprintln!("page: {} cannot be read: {error}", web.display());
            return Some(Outcome::without_command("page", false, None));
        }
    };
    let mut made = run("page", &mut npm(web, &["ci", "--no-audit", "--no-fund"]));
    if made.ok {
        made = made.and(run("page", &mut npm(web, &["run", "build"])));
    }
    if made.ok
        && let Err(error) = stamp.keep()
    {
        eprintln!("page: its stamp cannot be written, so it is built again next time: {error}");
    }
    Some(made)
}

fn npm(web: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(words).current_dir(web);
    command
}

/// Cargo in the checkout, without what the cargo that runs us has set for us.
fn cargo(root: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_");
        if ours || text == "CARGO_PRIMARY_PACKAGE" {
            command.env_remove(&name);
        }
    }
    Tools::of(&target(root)).offer(&mut command);
    command
}

/// Where cargo builds to.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |folder| root.join(folder))
}
