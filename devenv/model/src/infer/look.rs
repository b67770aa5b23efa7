//! One image that is looked at: its files, and what was found out so far.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::command::Program;
use super::{Guess, Known};
use crate::config::Command;
use crate::problem::Draft;
use crate::reading::{Reading, normal, relative};
use crate::source::{SourceFile, Span};
use crate::topology::Inferred;

/// One image that is looked at.
pub(super) struct Look<'l> {
    pub(super) reading: &'l mut Reading,
    pub(super) known: Known<'l>,
    /// Where commands run; absolute.
    pub(super) workdir: PathBuf,
    pub(super) guess: Guess,
}

impl Look<'_> {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        normal(&self.known.source.join(name))
    }

    /// Whether the source has a file of this name. Programs are watched as sources: to
    /// save one is no reason to load the project again.
    pub(super) fn has(&mut self, name: &str) -> bool {
        let path = self.path(name);
        let program = path.extension().is_some_and(|e| e == "py" || e == "rb");
        if !program || name == "setup.py" {
            self.reading.asked(&path);
        }
        path.is_file()
    }

    /// The first of several names that the source has.
    pub(super) fn first(&mut self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| self.has(name))
    }

    /// The text of a file that need not be there.
    pub(super) fn text(&mut self, path: &Path) -> Option<Arc<SourceFile>> {
        let id = self.reading.optional(path, self.known.span)?;
        Some(self.reading.sources.file(id).clone())
    }

    /// A path as messages show it.
    pub(super) fn shown(&self, path: &Path) -> String {
        self.reading.name(path)
    }

    /// A file of the source, as messages show it.
    pub(super) fn shown_file(&self, name: &str) -> String {
        self.shown(&self.path(name))
    }

    /// A path as a command sees it that runs in the working directory.
    pub(super) fn in_workdir(&self, path: &Path) -> String {
        relative(&self.workdir, path)
    }

    /// A path that is run as a program: with a slash, so that it isn't looked up in PATH.
    pub(super) fn as_program(&self, path: &Path) -> String {
        let path = self.in_workdir(path);
        if path.contains('/') {
            path
        } else {
            format!("./{path}")
        }
    }

    /// A command that has to run in `dir`.
    pub(super) fn command_in(&self, dir: &Path, argv: &[&str]) -> Command {
        let command = Command::Argv(argv.iter().map(|a| (*a).to_owned()).collect());
        if normal(dir) == normal(&self.workdir) {
            return command;
        }
        let cd = Command::Argv(vec!["cd".into(), self.in_workdir(dir)]);
        Command::Shell(format!("{cd} && {command}"))
    }

    /// A warning about a file that something would have been inferred from.
    pub(super) fn warn(&mut self, path: &Path, line: usize, message: String) {
        if let Some(id) = self.reading.optional(path, self.known.span) {
            let start = self
                .reading
                .sources
                .file(id)
                .line_start(line.saturating_sub(1));
            let start = start.unwrap_or(0);
            self.reading.problems.push(
                Draft::warning(
                    "image::malformed-file",
                    Span::new(id, start..start),
                    message,
                )
                .help("nothing is inferred from it"),
            );
        }
    }

    pub(super) fn note(
        &mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        why: impl Into<String>,
    ) {
        self.guess.inferred.push(Inferred {
            key: key.into(),
            value: value.into(),
            why: why.into(),
        });
    }

    pub(super) fn wants_install(&self) -> bool {
        self.known.raw.install.is_none()
    }

    pub(super) fn wants_run(&self) -> bool {
        self.known.raw.run.is_none()
    }

    pub(super) fn install(&mut self, command: Command, why: String) {
        if self.wants_install() {
            self.note("install", command.to_string(), why);
            self.guess.install = Some(command);
        }
    }

    pub(super) fn build(&mut self, command: Command, why: String) {
        if self.known.raw.build.is_none() {
            self.note("build", command.to_string(), why);
            self.guess.build = Some(command);
        }
    }

    pub(super) fn run(&mut self, command: Command, why: String) {
        if self.wants_run() {
            self.note("run", command.to_string(), why);
            self.guess.run = Some(command);
        }
    }

    /// The build of a program that is then run as it was made. With a `run` in
    /// devenv.toml, that one's program may come from elsewhere.
    pub(super) fn build_program(&mut self, build: Command, program: &str, why: &str) {
        let ours = match &self.known.raw.run {
            None => true,
            Some(run) => run.argv().first().is_some_and(|first| {
                normal(&self.workdir.join(first)) == normal(&self.workdir.join(program))
            }),
        };
        if ours {
            self.build(build, why.to_owned());
        }
    }

    /// `run` as the Dockerfile says, where that is possible.
    pub(super) fn run_as_said(&mut self, program: &Program) {
        if let Program::Run(run) = program
            && self.wants_run()
        {
            self.guess.entrypoint = Some(run.entrypoint);
            self.run(run.command.clone(), run.why.clone());
        }
    }

    /// `run` for a program that the build makes: as the Dockerfile says where that names
    /// something else, with its arguments where it names the program.
    pub(super) fn run_made(&mut self, program: &Program, made: &[&str], why: &str) {
        match program {
            Program::Run(_) => self.run_as_said(program),
            Program::Made(other) if self.wants_run() => {
                self.guess.entrypoint = other.entrypoint_with(made.len());
                self.run(other.with(made), format!("{why}; {}", other.why));
            }
            _ => {
                let argv = made.iter().map(|a| (*a).to_owned()).collect();
                self.run(Command::Argv(argv), why.to_owned());
            }
        }
    }

    /// Adds to what is watched, where `devenv.toml` doesn't say what that is. Only what
    /// lies in the project is part of it.
    pub(super) fn watch_also(&mut self, more: Vec<PathBuf>, why: &str) {
        if !self.known.raw.watch.is_empty() {
            return;
        }
        for path in more {
            let new = path.starts_with(&self.reading.root)
                && path.exists()
                && !path.starts_with(self.known.source)
                && !self.guess.watch.contains(&path);
            if new {
                self.note("watch", self.shown(&path), why);
                self.guess.watch.push(path);
            }
        }
    }
}
