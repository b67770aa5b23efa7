//! The reports of a run: its folder, the ones that were asked for, and the exit code.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use devenv_e2e::{
    outcome::{Outcome, RunReport},
    report,
    run::Options,
};

use crate::{
    commands::Context,
    error::{CliError, exit},
    project::Project,
    render,
};

/// A report that was asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    kind: Kind,
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Junit,
    Json,
    Html,
    Github,
}

/// `FORMAT` or `FORMAT=FILE`.
pub fn wanted(text: &str) -> Result<Wanted, String> {
    let (kind, file) = match text.split_once('=') {
        Some((kind, file)) => (kind, Some(PathBuf::from(file))),
        None => (text, None),
    };
    let kind = Kind::from_str(kind, false).map_err(|_| {
        "expected junit, json, html or github, or one of them with =FILE".to_owned()
    })?;
    Ok(Wanted { kind, file })
}

/// Of how many runs the reports are kept.
const KEPT_REPORTS: usize = 20;

/// The folder of the run `id`.
pub fn run_dir(project: &Project, id: &str) -> PathBuf {
    project.state.base().join("e2e").join(id)
}

/// Makes the folder of a run, and removes the oldest ones.
pub fn make_room(run_dir: &Path) -> Result<(), CliError> {
    prune(run_dir.parent().unwrap_or(run_dir));
    fs::create_dir_all(run_dir).map_err(io_error("make", run_dir))
}

/// Removes the oldest reports. What can't be removed now is tried again next time.
fn prune(folder: &Path) {
    let runs = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut runs: Vec<_> = runs
        .filter_map(|run| Some((run.metadata().ok()?.modified().ok()?, run.path())))
        .collect();
    runs.sort();
    let old = runs.len().saturating_sub(KEPT_REPORTS - 1);
    for (_, run) in runs.drain(..old) {
        if let Err(e) = fs::remove_dir_all(&run) {
            tracing::warn!(error = %e, run = %run.display(), "can't remove old reports");
        }
    }
}

/// Writes the reports.
pub fn publish(
    wanted: &[Wanted],
    project: &Project,
    options: &Options,
    report: &RunReport,
    context: &Context,
) -> Result<(), CliError> {
    let written = report::write_all(report, &options.run_dir, &report::Format::ALL)?;
    for wanted in wanted {
        let format = match wanted.kind {
            Kind::Junit => report::Format::Junit,
            Kind::Json => report::Format::Json,
            Kind::Html => report::Format::Html,
            Kind::Github => report::Format::Github,
        };
        if wanted.kind == Kind::Github && wanted.file.is_none() {
            render::github(report, &project.root);
        }
        let Some(to) = &wanted.file else { continue };
        let from = written.iter().find(|p| p.ends_with(format.file_name()));
        if let Some(from) = from {
            fs::copy(from, to).map_err(io_error("write", to))?;
        }
    }
    render::reports(&options.run_dir, context.format);
    Ok(())
}

/// What a command says of a whole run.
pub fn exit_code(report: &RunReport) -> u8 {
    if report.passed() {
        return exit::OK;
    }
    let mut tests = report.suites.iter().flat_map(|s| &s.tests);
    let failed = report.suites.iter().any(|s| s.error.is_some())
        || tests.any(|t| t.outcome == Outcome::Failed);
    let mut tests = report.suites.iter().flat_map(|s| &s.tests);
    if !failed && tests.any(|t| t.outcome == Outcome::Missing) {
        return exit::MISSING;
    }
    exit::FAILED
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> CliError + use<> {
    let what = format!("{what} {}", path.display());
    move |source| CliError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devenv_e2e::outcome::{Place, SuiteReport, TestReport};
    use rstest::rstest;
    use std::time::Duration;

    fn report(outcomes: &[Outcome]) -> RunReport {
        let test = |outcome: &Outcome| TestReport {
            name: String::new(),
            place: Place {
                file: PathBuf::new(),
                line: 1,
            },
            outcome: *outcome,
            attempts: Vec::new(),
            reason: None,
            again: String::new(),
        };
        RunReport {
            id: String::new(),
            started: jiff::Timestamp::UNIX_EPOCH,
            ms: 0,
            ready_ms: 0,
            target: "local".to_owned(),
            profile: None,
            suites: vec![SuiteReport {
                name: String::new(),
                file: PathBuf::new(),
                environment: String::new(),
                started_ms: 0,
                ms: 0,
                tests: outcomes.iter().map(test).collect(),
                error: None,
            }],
        }
    }

    #[rstest]
    #[case(&[Outcome::Passed, Outcome::Skipped], exit::OK)]
    #[case(&[Outcome::Flaky, Outcome::Unsupported], exit::OK)]
    #[case(&[Outcome::Passed, Outcome::Missing], exit::MISSING)]
    #[case(&[Outcome::Failed, Outcome::Missing], exit::FAILED)]
    #[case(&[Outcome::Skipped, Outcome::Unsupported], exit::FAILED)]
    #[case(&[], exit::FAILED)]
    fn exit_codes(#[case] outcomes: &[Outcome], #[case] code: u8) {
        assert_eq!(exit_code(&report(outcomes)), code);
    }

    #[test]
    fn old_reports_go_and_the_newest_stay() {
        let folder = tempfile::tempdir().unwrap();
        let time = |n: u64| std::time::UNIX_EPOCH + Duration::from_secs(n);
        for n in 0..30 {
            let run = folder.path().join(n.to_string());
            fs::create_dir(&run).unwrap();
            fs::File::open(&run).unwrap().set_modified(time(n)).unwrap();
        }
        prune(folder.path());
        assert!(!folder.path().join("10").exists() && folder.path().join("11").exists());
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            KEPT_REPORTS - 1
        );
    }
}
