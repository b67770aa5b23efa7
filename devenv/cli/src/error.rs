//! Errors at the edge: what is printed, and the exit code that goes with it.

use devenv_engine::{UpError, event::Report, logs::LogsError, state::StateError};
use devenv_model::Problem;
use devenv_platform::doctor::{Check, Fix};
use traffic::TrafficError;

use crate::commands::Asked;

/// The exit codes of every command.
pub mod exit {
    /// All well.
    pub const OK: u8 = 0;
    /// The thing that was asked for failed.
    pub const FAILED: u8 = 1;
    /// The command was used wrongly.
    pub const USAGE: u8 = 2;
    /// Something must be installed or started first.
    pub const MISSING: u8 = 3;
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No project here.
    #[error("there is no devenv.toml in {} or above it", .0.display())]
    NoProject(std::path::PathBuf),
    /// The folder named with -C can't be used.
    #[error("can't use the folder {}: {reason}", dir.display())]
    Directory {
        /// As given.
        dir: std::path::PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// devenv.toml or manifests have errors.
    #[error("{} in this project's files", count(.0))]
    Problems(Vec<Problem>),
    /// The suites have errors.
    #[error("{} in this project's suites", count(.0))]
    BadSuites(Vec<Problem>),
    /// Something has to be installed.
    #[error("this machine lacks something that the project needs")]
    Missing(Vec<Check>),
    /// The controller could not start.
    #[error(transparent)]
    IngressController(#[from] devenv_ingress_controller::ControllerError),
    /// `up` failed in this process.
    #[error(transparent)]
    Up(#[from] UpError),
    /// `up` failed in the supervisor.
    #[error("{}", .0.message)]
    Reported(Report),
    /// The supervisor ended without a word.
    #[error("the supervisor ended unexpectedly; its log: {}", .0.display())]
    SupervisorGone(std::path::PathBuf),
    /// The project is not up.
    #[error("this project is not up")]
    NotUp,
    /// The running system tells nobody of reloads.
    #[error("the running system does not reload what is saved")]
    NoReloads {
        /// Whether it is that of an end-to-end run: those never do.
        of_run: bool,
    },
    /// The project is not up yet.
    #[error("this project is coming up or going down at this moment (supervisor pid {0})")]
    Between(u32),
    /// The supervisor does not stop.
    #[error("the supervisor (pid {pid}) did not stop within {seconds} s")]
    NotStopped {
        /// Its process.
        pid: u32,
        /// How long was waited.
        seconds: u64,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The Kubernetes API.
    #[error("the Kubernetes API did not do what was asked")]
    Api(#[source] Box<kube::Error>),
    /// The kubeconfig.
    #[error("can't use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Installing packages.
    #[error(transparent)]
    Install(#[from] devenv_platform::doctor::InstallError),
    /// Something that was asked for is not so.
    #[error("{0}")]
    Check(String),
    /// No load could be sent.
    #[error(transparent)]
    Traffic(#[from] traffic::TrafficError),
    /// No logs.
    #[error(transparent)]
    Logs(#[from] LogsError),
    /// `up` was interrupted.
    #[error("stopped, since it was interrupted")]
    Interrupted(Asked),
    /// Runs whose folders lie in the one that is to go.
    #[error("end-to-end runs of this project are up: {}", .0.join(", "))]
    Runs(Vec<String>),
    /// There is no such run.
    #[error("there is no run {0} of this project")]
    NoRun(String),
    /// Nothing to test.
    #[error("there are no suites, neither in {} nor in devenv.toml", .0.display())]
    NoSuites(std::path::PathBuf),
    /// There is no such suite.
    #[error("there is no suite {name}; there are {}", known.join(", "))]
    NoSuite {
        /// As given.
        name: String,
        /// The project's.
        known: Vec<String>,
    },
    /// Suites can't be looked for.
    #[error(transparent)]
    Suites(#[from] devenv_e2e::suite::FindError),
    /// Suites can't be watched.
    #[error(transparent)]
    Watch(#[from] devenv_watch::WatchError),
    /// Suites can't be run.
    #[error(transparent)]
    RunSuites(#[from] devenv_e2e::run::RunError),
    /// Reports can't be written.
    #[error(transparent)]
    TestReport(#[from] devenv_e2e::report::ReportError),
    /// The tree can't be looked at.
    #[error(transparent)]
    Coverage(#[from] devenv_verdict::CoverageError),
    /// There is no verdict.
    #[error(transparent)]
    Verdict(#[from] devenv_verdict::VerdictError),
    /// The signing key.
    #[error(transparent)]
    Key(#[from] devenv_verdict::KeyError),
    /// The verdicts.
    #[error(transparent)]
    Verdicts(#[from] devenv_verdict::StoreError),
    /// An argument.
    #[error("{0}")]
    Usage(String),
    /// git.
    #[error("git {words} failed: {said}")]
    Git {
        /// What it was asked.
        words: String,
        /// What it said.
        said: String,
    },
    /// There is no such version of the tree.
    #[error("there is no branch, tag or commit {wanted} here")]
    NoCommit {
        /// As given.
        wanted: String,
        /// What was probably meant.
        help: Option<String>,
    },
    /// A version of the tree from before there was a project in it.
    #[error("there is no devenv.toml in {0}")]
    NoProjectIn(String),
    /// No Ingress leads there.
    #[error("no Ingress leads to {name}; they lead to {}", known.join(", "))]
    NoBackend {
        /// As given.
        name: String,
        /// The Services that they lead to.
        known: Vec<String>,
    },
    /// One of two systems that are compared.
    #[error("{side}: {}", report.message)]
    Side {
        /// Which.
        side: String,
        /// What went wrong with it.
        report: Box<Report>,
    },
    /// Another `up` is at work.
    #[error("another `devenv up` (pid {0}) is bringing this project up or down at this moment")]
    Busy(u32),
    /// A file or process.
    #[error("can't {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The async runtime.
    #[error("can't start the runtime")]
    Runtime(#[source] std::io::Error),
}

impl CliError {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoProject(_)
            | Self::Directory { .. }
            | Self::NoRun(_)
            | Self::BadSuites(_)
            | Self::NoSuites(_)
            | Self::NoSuite { .. }
            | Self::NoCommit { .. }
            | Self::NoProjectIn(_)
            | Self::NoBackend { .. }
            | Self::Usage(_) => exit::USAGE,
            Self::Missing(_) | Self::NotUp | Self::NoReloads { .. } | Self::Between(_) => {
                exit::MISSING
            }
            Self::Traffic(e) => match e {
                TrafficError::Unreachable { .. } | TrafficError::Resolve { .. } => exit::MISSING,
                TrafficError::Proc { .. } | TrafficError::ProcField { .. } => exit::FAILED,
                // A URL, a number or a file that can't be used.
                _ => exit::USAGE,
            },
            Self::Interrupted(asked) => asked.exit_code(),
            Self::Up(e) => e.report().exit_code,
            Self::Reported(r) => r.exit_code,
            Self::Side { report, .. } => report.exit_code,
            _ => exit::FAILED,
        }
    }

    /// The error as data.
    pub fn report(&self) -> Report {
        match self {
            Self::Reported(r) => r.clone(),
            Self::Up(e) => e.report(),
            Self::Side { report, .. } => Report {
                message: self.to_string(),
                ..*report.clone()
            },
            other => Report::of(other, other.help(), other.exit_code()),
        }
    }

    /// The same error, as one of one of two systems that are compared.
    pub fn of_side(self, side: &str) -> Self {
        if matches!(self, Self::Missing(_)) {
            // Of the machine.
            return self;
        }
        let mut report = self.report();
        if let Self::Problems(problems) = &self {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            report.output = Some(lines.join("\n"));
        }
        Self::Side {
            side: side.to_owned(),
            report: Box::new(report),
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::NoCommit { help, .. } => return help.clone(),
            Self::NoProject(_) => {
                "go to a project's folder, or name it: devenv -C DIR …".to_owned()
            }
            Self::Runs(runs) => match runs.first() {
                Some(run) => {
                    format!("devenv down --run {run} ends one; the running ones end by themselves")
                }
                None => return None,
            },
            Self::NoRun(_) => "devenv test e2e --keep makes one and prints its id".to_owned(),
            Self::Missing(checks) => {
                let packages = |c: &Check| matches!(c.fix, Some(Fix::Packages(_)));
                if checks.iter().any(packages) {
                    "devenv up --yes installs the packages named above".to_owned()
                } else {
                    "install it or put it into PATH; devenv doctor looks again".to_owned()
                }
            }
            Self::Api(error) if matches!(**error, kube::Error::Service(_)) => {
                "nobody answers there; a kind cluster is away while its Docker Engine is: docker ps, \
                 sudo systemctl start docker"
                    .to_owned()
            }
            Self::Between(_) => "devenv status tells when it is up".to_owned(),
            Self::Busy(_) => "devenv status tells when it is up; devenv down stops it".to_owned(),
            Self::SupervisorGone(_) => "devenv up -d starts it again".to_owned(),
            Self::NotUp => "devenv up".to_owned(),
            Self::NoReloads { of_run: true } => {
                "devenv up -d, and the same without --run".to_owned()
            }
            Self::NoReloads { of_run: false } => "devenv down && devenv up -d".to_owned(),
            Self::NotStopped { pid, .. } => format!("kill -9 {pid} ends it and all that it runs"),
            _ => return None,
        })
    }
}

impl From<kube::Error> for CliError {
    fn from(e: kube::Error) -> Self {
        Self::Api(Box::new(e))
    }
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "one error".to_owned(),
        n => format!("{n} errors"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_true() {
        let check = |fix| Check {
            name: "x".to_owned(),
            state: devenv_platform::doctor::State::Missing,
            detail: String::new(),
            fix,
        };
        let help = |fix| CliError::Missing(vec![check(fix)]).help().unwrap();
        assert!(help(Some(Fix::Packages(vec!["p".to_owned()]))).contains("--yes"));
        assert!(!help(None).contains("--yes"));
        assert!(!help(Some(Fix::Command("sysctl".to_owned()))).contains("--yes"));
    }
}
