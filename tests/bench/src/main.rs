//! What devenv costs over what it runs: `cargo xtask bench [NAME] [-o json]`.
//!
//! Every figure is a ratio against something bare, measured in turn in the same
//! run, several times: the minimum says what the machine can do, the median what a
//! person sees.

mod bare;
mod figures;
mod memory;
mod project;
mod reload;
mod targets;
mod up;
mod version;

use figures::Report;
use std::path::PathBuf;
use std::process::ExitCode;

/// The benches, in the order in which they run.
const NAMES: &[&str] = &["version", "up", "memory", "reload", "targets"];

const USAGE: &str =
    "usage: cargo xtask bench [version|up|memory|reload|targets] [--runs N] [-o json|text]";

/// Why a bench could not be run.
type Failure = Box<dyn std::error::Error>;

struct Arguments {
    names: Vec<&'static str>,
    runs: usize,
    json: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let arguments = match parse(&words) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("bench: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut reports: Vec<Report> = Vec::new();
    for name in &arguments.names {
        let mut tell = |report: Report| {
            if !arguments.json {
                println!("{report}");
            }
            reports.push(report);
        };
        let done = match *name {
            "version" => version::run(arguments.runs * 20).map(tell),
            "up" => up::run(arguments.runs).map(tell),
            "memory" => memory::run().map(tell),
            "targets" => targets::run(arguments.runs, &mut tell),
            _ => reload::run(arguments.runs, &mut tell),
        };
        if let Err(error) = done {
            eprintln!("bench {name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    if arguments.json {
        match serde_json::to_string_pretty(&reports) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("bench: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn parse(words: &[String]) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        names: vec![],
        runs: 5,
        json: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-o" => match words.next().map(String::as_str) {
                Some("json") => arguments.json = true,
                Some("text") => arguments.json = false,
                _ => return Err("-o takes json or text".to_owned()),
            },
            "--runs" => {
                arguments.runs = words
                    .next()
                    .and_then(|runs| runs.parse().ok())
                    .filter(|runs| *runs > 0)
                    .ok_or("--runs takes a whole number above 0")?;
            }
            name => match NAMES.iter().find(|known| **known == name) {
                Some(known) => arguments.names.push(known),
                None => return Err(format!("there is no bench `{name}`")),
            },
        }
    }
    if arguments.names.is_empty() {
        arguments.names = NAMES.to_vec();
    }
    Ok(arguments)
}

/// This checkout.
fn checkout() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), PathBuf::from)
}

/// Where the optimised programs lie: beside this one.
fn built(program: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let file = own.with_file_name(program);
    if file.is_file() {
        Ok(file)
    } else {
        Err(format!(
            "{} is missing; `cargo xtask bench` builds it",
            file.display()
        )
        .into())
    }
}

/// A folder beside the optimised programs for what is costly to make.
fn kept(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).ok_or("this program lies nowhere")?;
    let folder = target.join("bench-kept").join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_read_and_mistakes_are_named() {
        let all = parse(&[]).unwrap();
        assert_eq!(
            (all.names.as_slice(), all.runs, all.json),
            (NAMES, 5, false)
        );
        let some = parse(&words("up --runs 3 -o json")).unwrap();
        assert_eq!(
            (some.names.as_slice(), some.runs, some.json),
            (&["up"][..], 3, true)
        );
        for wrong in ["fast", "--runs", "--runs 0", "-o xml"] {
            assert!(parse(&words(wrong)).is_err(), "{wrong}");
        }
    }
}
