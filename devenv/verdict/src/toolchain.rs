//! The versions of the programs that builds use.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use devenv_model::{ImageSource, Topology};

use crate::files;

/// Asks programs for their versions; a test's double answers itself.
pub trait Programs: Sync {
    /// The first line of what `program` says of its version when it is run with
    /// `arguments` in `folder` (version managers choose by the folder), or nothing where
    /// there is no such program.
    fn version(&self, program: &str, arguments: &[&str], folder: &Path) -> Option<String>;
}

/// The programs of this machine, as `PATH` finds them. That a version manager's stand-in
/// fails, since the version is not chosen, is an answer as well.
#[derive(Debug, Clone, Copy, Default)]
pub struct Installed;

/// A program that doesn't tell its version within this time hangs.
const PATIENCE: Duration = Duration::from_secs(20);

impl Programs for Installed {
    fn version(&self, program: &str, arguments: &[&str], folder: &Path) -> Option<String> {
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match child {
            Ok(child) => Some(first_line(child)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => Some(format!("can't be asked: {e}")),
        }
    }
}

/// What it says first. Java says it on standard error.
fn first_line(mut child: Child) -> String {
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (said_tx, said_rx) = mpsc::channel();
    // Not joined: a grandchild may hold the pipe after the program has been killed.
    thread::spawn(move || {
        let mut text = Vec::new();
        for pipe in [
            out.as_mut().map(|p| p as &mut dyn std::io::Read),
            err.as_mut().map(|p| p as &mut dyn std::io::Read),
        ]
        .into_iter()
        .flatten()
        {
            // A version is short; the rest is not worth its memory.
            let _ = pipe.take(4096).read_to_end(&mut text);
        }
        let _ = said_tx.send(text);
    });
    let said = said_rx.recv_timeout(PATIENCE);
    if said.is_err() {
        let _ = child.kill();
    }
    drop(said_rx);
    let status = child.wait();
    let Ok(text) = said else {
        return format!("says nothing for {} s", PATIENCE.as_secs());
    };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|l| !l.is_empty());
    match (line, status) {
        (Some(line), Ok(status)) if status.success() => line.to_owned(),
        (Some(line), _) => format!("can't be asked: {line}"),
        (None, _) => "says nothing".to_owned(),
    }
}

/// A program, and the arguments with which it tells its version.
type Asked = (&'static str, &'static [&'static str]);

/// Words in commands, and the programs that are behind them.
const ASKED: &[(&[&str], &[Asked])] = &[
    (
        &["cargo", "rustc", "trunk", "wasm-pack"],
        &[("cargo", &["-V"]), ("rustc", &["-V"])],
    ),
    (&["node"], &[("node", &["-v"])]),
    (&["npm", "npx"], &[("node", &["-v"]), ("npm", &["-v"])]),
    (&["pnpm"], &[("node", &["-v"]), ("pnpm", &["-v"])]),
    (&["yarn"], &[("node", &["-v"]), ("yarn", &["-v"])]),
    (&["bun", "bunx"], &[("bun", &["-v"])]),
    (&["deno"], &[("deno", &["-V"])]),
    (&["uv"], &[("uv", &["-V"])]),
    (&["poetry"], &[("poetry", &["-V"])]),
    (&["pipenv"], &[("pipenv", &["--version"])]),
    (&["go"], &[("go", &["version"])]),
    (&["java"], &[("java", &["-version"])]),
    (
        &["javac", "mvn", "mvnw", "gradle", "gradlew"],
        &[("java", &["-version"]), ("javac", &["-version"])],
    ),
    (&["mvn"], &[("mvn", &["-v"])]),
    (&["gradle"], &[("gradle", &["-v"])]),
    (&["ruby", "gem"], &[("ruby", &["-v"])]),
    (
        &["bundle", "rake", "rackup", "puma", "rails"],
        &[("ruby", &["-v"]), ("bundle", &["-v"])],
    ),
    (&["php", "composer"], &[("php", &["-v"])]),
    (&["dotnet"], &[("dotnet", &["--version"])]),
    (&["make"], &[("make", &["--version"])]),
    (&["cmake"], &[("cmake", &["--version"])]),
    (&["gcc", "cc"], &[("cc", &["--version"])]),
    (&["g++", "c++"], &[("c++", &["--version"])]),
    (&["clang"], &[("clang", &["--version"])]),
    (&["protoc"], &[("protoc", &["--version"])]),
];

/// A question: which program, how, and where.
type Question = (String, &'static [&'static str], PathBuf);

/// The questions that the commands of all images raise. Every word of a command counts,
/// so that `sh -c "cd web && npm ci"` is understood: a program too many is harmless.
fn questions(topology: &Topology) -> BTreeSet<Question> {
    let mut asked = BTreeSet::new();
    for image in topology.images().values() {
        let words = words(image);
        for (names, programs) in ASKED {
            if names.iter().any(|n| words.contains(*n)) {
                for (program, arguments) in *programs {
                    asked.insert(((*program).to_owned(), *arguments, image.workdir.clone()));
                }
            }
        }
        // `python3.12` is another program than `python3`.
        let pythons = words
            .iter()
            .filter(|w| w.strip_prefix("python").is_some_and(is_version));
        for python in pythons {
            asked.insert((python.clone(), &["-V"], image.workdir.clone()));
        }
        if let Some(python) = &image.python {
            asked.insert(("python3".into(), &["-V"], python.dir.clone()));
            if let Some(version) = &python.version {
                asked.insert((format!("python{version}"), &["-V"], python.dir.clone()));
            }
        }
    }
    asked
}

fn is_version(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// The words of an image's commands, without the folders before a program's name.
fn words(image: &ImageSource) -> BTreeSet<String> {
    [
        image.install.as_ref(),
        image.build.as_ref(),
        Some(&image.run),
    ]
    .into_iter()
    .flatten()
    .flat_map(devenv_model::Command::argv)
    .flat_map(|argument| {
        argument
            .split(|c: char| c.is_whitespace() || ";&|()`'\"$".contains(c))
            .filter_map(|w| w.rsplit('/').next().map(str::to_owned))
            .collect::<Vec<_>>()
    })
    .collect()
}

/// The versions, by `PROGRAM in FOLDER`; each is asked once, all at the same time.
pub(crate) fn versions(topology: &Topology, programs: &dyn Programs) -> BTreeMap<String, String> {
    let root = &topology.project().root;
    thread::scope(|scope| {
        let asked: Vec<_> = questions(topology)
            .into_iter()
            .map(|(program, arguments, folder)| {
                let key = format!("{program} in {}", files::key(root, &folder));
                let answer = scope.spawn(move || programs.version(&program, arguments, &folder));
                (key, answer)
            })
            .collect();
        asked
            .into_iter()
            .map(|(key, answer)| {
                let answer = answer
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                (key, answer.unwrap_or_else(|| NOT_INSTALLED.to_owned()))
            })
            .collect()
    })
}

const NOT_INSTALLED: &str = "not installed";
