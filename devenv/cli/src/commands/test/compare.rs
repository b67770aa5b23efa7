//! `devenv test e2e --compare`.

use std::{fs, path::Path, process::ExitCode, str::FromStr};

use clap::Args;
use devenv_e2e::{
    compare::{self, Comparison, ROUNDS},
    plan::PlannedSuite,
};
use devenv_model::{LoadOptions, Topology};

use super::reports;
use crate::{
    commands::{Context, up::Interrupts, up::ensure_installed},
    e2e::{
        checkout::{Checkout, Other},
        compare::{Half, compared},
        environments::Fresh,
        tree,
    },
    error::{CliError, exit},
    project::Project,
    render,
    supervisor::Launch,
};

/// What comparing has nothing to do with.
const NOT_WITH: [&str; 9] = [
    "shard",
    "repeat",
    "until_fail",
    "retries",
    "jobs",
    "keep",
    "attach",
    "report",
    "list",
];

/// Send what the suites send to two systems side by side, and say what differs.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Send the requests of the suites to another tree and to this one, side by side, and
    /// say what differs: a branch, tag or commit; or another checkout's folder, with a dot
    /// or a slash first, whose builds are there the next time
    #[arg(long, value_name = "REF|./FOLDER", group = "comparing", conflicts_with_all = NOT_WITH)]
    compare: Option<Other>,
    /// The same with two backends of the Ingress's split, each in a system of its own
    #[arg(long, value_name = "A,B", group = "comparing", conflicts_with_all = NOT_WITH)]
    compare_backends: Option<Backends>,
    /// With --compare: send them so often [default: 20]
    #[arg(long, value_name = "N", requires = "comparing", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
}

/// Two names.
#[derive(Debug, Clone)]
struct Backends([String; 2]);

impl FromStr for Backends {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split_once(',').map(|(a, b)| [a.trim(), b.trim()]);
        match names {
            Some([a, b]) if !a.is_empty() && !b.is_empty() && !b.contains(',') && a != b => {
                Ok(Self([a.to_owned(), b.to_owned()]))
            }
            _ => Err("expected two different names with a comma between them".to_owned()),
        }
    }
}

/// What both sides have in common.
pub struct Common<'c> {
    pub context: &'c Context,
    pub project: &'c Project,
    pub topology: &'c Topology,
    pub load: &'c LoadOptions,
    pub launch: Launch,
    /// The run's id.
    pub id: &'c str,
    /// `--yes`.
    pub yes: bool,
}

impl CompareArgs {
    /// Whether anything is to be compared.
    pub fn wanted(&self) -> bool {
        self.compare.is_some() || self.compare_backends.is_some()
    }

    /// Compares, and says what differs.
    pub async fn run(
        &self,
        planned: &[PlannedSuite],
        common: Common<'_>,
    ) -> Result<ExitCode, CliError> {
        let Common {
            context,
            project,
            id,
            ..
        } = common;
        ensure_installed(common.topology, common.launch.pods.runtime(), common.yes).await?;
        project.state.create()?;
        let options = compare::Options {
            rounds: self.rounds.unwrap_or(ROUNDS),
            run: id.to_owned(),
            run_dir: reports::run_dir(project, id),
        };
        reports::make_room(&options.run_dir)?;
        let mut stop = Interrupts::new()?;
        let halves = tokio::select! {
            halves = self.halves(&common) => halves?,
            asked = stop.wanted() => return Err(CliError::Interrupted(asked)),
        };
        let [left, right] = &halves;
        render::say(&format!("bringing up {} and {}", left.label, right.label));
        let ready = || {
            let rounds = options.rounds;
            render::say(&format!(
                "both are up; {rounds} rounds of the suites' requests"
            ));
        };
        let outcome = tokio::select! {
            biased;
            asked = stop.wanted() => Err(CliError::Interrupted(asked)),
            done = compared(planned, left, right, &options, ready) => done,
        };
        tokio::select! {
            _ = async { tokio::join!(left.fresh.end(), right.fresh.end()) } => {}
            asked = stop.wanted() => return Err(CliError::Interrupted(asked)),
        }
        let comparison = outcome?;
        write(&comparison, &options.run_dir)?;
        render::comparison(&comparison, context.format);
        render::reports(&options.run_dir, context.format);
        Ok(ExitCode::from(match comparison.same() {
            true => exit::OK,
            false => exit::FAILED,
        }))
    }

    /// The left one is what was, the right one what is.
    async fn halves(&self, common: &Common<'_>) -> Result<[Half; 2], CliError> {
        if let Some(Backends(both)) = &self.compare_backends {
            return Ok([(0, "left"), (1, "right")].map(|(i, end)| Half {
                label: both[i].clone(),
                fresh: common.fresh(common.project, end),
                pin: Some((both[i].clone(), both.clone())),
                _checkout: None,
            }));
        }
        let other = match &self.compare {
            Some(Other::Folder(folder)) => common.folder(folder)?,
            Some(Other::Commit(wanted)) => common.commit(wanted).await?,
            None => return Err(CliError::Usage("nothing to compare with".to_owned())),
        };
        let there =
            tree::loaded(other.fresh.root(), common.load).map_err(|e| e.of_side(&other.label))?;
        ensure_installed(&there, common.launch.pods.runtime(), common.yes)
            .await
            .map_err(|e| e.of_side(&other.label))?;
        let this = Half {
            label: "this tree".to_owned(),
            fresh: common.fresh(common.project, "right"),
            pin: None,
            _checkout: None,
        };
        Ok([other, this])
    }
}

impl Common<'_> {
    fn fresh(&self, project: &Project, end: &str) -> Fresh {
        let launch = Launch {
            root: project.root.clone(),
            ..self.launch.clone()
        };
        Fresh::new(launch, false, &format!("{}-{end}", self.id), project)
    }

    fn folder(&self, folder: &Path) -> Result<Half, CliError> {
        let there = Project::find(Some(folder), None)?;
        if there.root == self.project.root {
            return Err(CliError::Usage(format!(
                "--compare: {} is this tree itself",
                folder.display()
            )));
        }
        Ok(Half {
            label: folder.display().to_string(),
            fresh: self.fresh(&there, "left"),
            pin: None,
            _checkout: None,
        })
    }

    async fn commit(&self, wanted: &str) -> Result<Half, CliError> {
        let made = Checkout::make(self.project, wanted, &format!("{}-tree", self.id)).await?;
        let label = match wanted.starts_with(&made.commit) {
            true => made.commit.clone(),
            false => format!("{wanted} ({})", made.commit),
        };
        Ok(Half {
            label,
            fresh: self.fresh(&made.project, "left"),
            pin: None,
            _checkout: Some(made),
        })
    }
}

/// `compare.json`, beside the reports of runs.
fn write(comparison: &Comparison, folder: &Path) -> Result<(), CliError> {
    let path = folder.join("compare.json");
    let text = serde_json::to_string_pretty(comparison).unwrap_or_default();
    fs::write(&path, text).map_err(|source| CliError::Io {
        what: format!("write {}", path.display()),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a,b", Some(["a", "b"]))]
    #[case(" a , b ", Some(["a", "b"]))]
    #[case("a", None)]
    #[case("a,", None)]
    #[case("a,a", None)]
    #[case("a,b,c", None)]
    fn two_names(#[case] text: &str, #[case] want: Option<[&str; 2]>) {
        let got: Option<[String; 2]> = text.parse::<Backends>().ok().map(|b| b.0);
        assert_eq!(got, want.map(|names| names.map(str::to_owned)));
    }
}
