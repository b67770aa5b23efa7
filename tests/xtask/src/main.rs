//! The project's chores: `cargo xtask test | soak NAME | bench [NAME]`.
//!
//! No dependencies, so that the first `cargo xtask` of a fresh clone compiles in
//! seconds. What a command does is in its own room: [`needs`], [`tools`], [`apt`] and
//! [`offline`] install, [`engine`] starts Docker,
//! [`page`] builds the page, [`part`] runs one command and reads its counts,
//! [`hang`] ends one that waits for ever, [`database`] has tests use real MySQL, [`plan`] says which parts there are, [`report`] sums up.

mod apt;
mod database;
mod engine;
mod hang;
mod needs;
mod offline;
mod page;
mod part;
mod plan;
mod report;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
The chores of this project.

  cargo xtask test                    install what is missing, build, check and test everything
  cargo xtask test --only PART[,…]    some parts only: fmt page build clippy unit contract
                                      mysql inventory blackbox soak
  cargo xtask soak [NAME] [--rounds N]  a long form: db-kill devenv-kill sandbox-kill cold edits
                                      reload-kill runs run-kill suites, or all
  cargo xtask bench [NAME] [-o json]  a benchmark: version up memory reload targets, or all
  cargo xtask needs                   install what the tests need, and nothing else

With CI=true a test that is skipped for want of a tool is a failure.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test"] => plan::test(&root(), &[]),
        ["test", "--only", parts] => {
            let parts: Vec<&str> = parts.split(',').collect();
            match parts.iter().find(|part| !plan::PARTS.contains(part)) {
                Some(unknown) => usage(&format!(
                    "there is no part `{unknown}`; there are: {}",
                    plan::PARTS.join(" ")
                )),
                None => plan::test(&root(), &parts),
            }
        }
        ["soak", rest @ ..] => soak(rest),
        ["bench", rest @ ..] => plan::bench(&root(), rest),
        ["needs"] => {
            let (missing, _engine) = plan::ready(&root());
            for (tool, why) in &missing {
                println!("missing: {tool} ({why})");
            }
            if missing.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        [] => usage("a command is missing"),
        _ => usage(&format!("`{}` is not understood", words.join(" "))),
    }
}

fn soak(words: &[&str]) -> ExitCode {
    let (names, rounds) = match words {
        [] => (vec![], None),
        ["--rounds", n] => (vec![], Some(*n)),
        [name] => (vec![*name], None),
        [name, "--rounds", n] | ["--rounds", n, name] => (vec![*name], Some(*n)),
        _ => return usage(&format!("`soak {}` is not understood", words.join(" "))),
    };
    let rounds = match rounds.map(str::parse::<u32>) {
        None => 20,
        Some(Ok(n)) if n > 0 => n,
        Some(_) => return usage("--rounds takes a whole number above 0"),
    };
    match names.iter().find(|name| !plan::SOAKS.contains(name)) {
        Some(unknown) => usage(&format!(
            "there is no soak `{unknown}`; there are: {}",
            plan::SOAKS.join(" ")
        )),
        None => plan::soak(&root(), &names, rounds),
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("xtask: {what}\n\n{USAGE}");
    ExitCode::from(2)
}

/// The checkout: two folders above this package, wherever it was called from.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent()
        .and_then(Path::parent)
        .map_or(here.clone(), Path::to_path_buf)
}
