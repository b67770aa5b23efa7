//! Looks at the tree that a run tests, for its verdict.

use std::path::Path;

use devenv_e2e::outcome::RunReport;
use devenv_engine::{TargetKind, UpError};
use devenv_model::{CloudSql, CloudSqlEngine, LoadOptions, Topology};
use devenv_platform::{
    TargetError,
    cloudsql::{ComposeDatabase, Engine},
};
use devenv_verdict::{Beside, Look, SigningKey, Store, Tree, Verdict};

use crate::{error::CliError, project::Project};

/// Looks at everything that a verdict covers, as it is now, but for the digests of images.
/// With `containers` the database is the one beside containers.
pub async fn look(
    project: &Project,
    load: &LoadOptions,
    target: TargetKind,
    containers: bool,
) -> Result<Tree, CliError> {
    let (root, load) = (project.root.clone(), load.clone());
    blocking(move || {
        let topology = loaded(&root, &load)?;
        let (mut here, mut beside) = (None, None);
        if let Some(sql) = topology.cloud_sql() {
            match sql.engine_beside(containers) {
                CloudSqlEngine::Container => beside = Some(compose(sql, &root)?),
                CloudSqlEngine::Local => here = Some(engine()?),
            }
        }
        let target = target.to_string();
        let mut look = Look::new(&topology, &target);
        look.database = here.as_deref();
        look.beside = beside.as_ref().map(|compose| Beside {
            service: &compose.service,
            file: &compose.file,
            image: &compose.image,
        });
        Ok(look.take()?)
    })
    .await
}

/// The engine of this machine that is the database beside processes.
fn engine() -> Result<String, CliError> {
    let found = Engine::find().map_err(|e| CliError::Check(e.to_string()))?;
    Ok(format!("{} {}", found.flavour, found.version))
}

fn compose(sql: &CloudSql, root: &Path) -> Result<ComposeDatabase, CliError> {
    let read = ComposeDatabase::read(sql, root);
    Ok(read.map_err(|e| UpError::from(TargetError::from(e)))?)
}

/// Signs and keeps the verdict on a run; returns what became of it, in words.
pub async fn judge(
    project: &Project,
    before: Tree,
    after: Tree,
    report: RunReport,
    partial: Option<String>,
) -> Result<String, CliError> {
    let (root, state) = (project.root.clone(), project.state.base().to_owned());
    blocking(move || {
        let devenv = env!("CARGO_PKG_VERSION");
        let verdict = Verdict::of_run(&before, &after, &report, partial.as_deref(), devenv)?;
        let key = SigningKey::of_user(&root)?;
        Ok(match Store::in_state(&state).save(&verdict, &key)? {
            devenv_verdict::Saved::Written(path) => {
                let what = match (&verdict.partial, verdict.passes) {
                    (Some(part), _) => format!("is on a part of the suites ({part})"),
                    (None, true) => "passes".to_owned(),
                    (None, false) => "does not pass".to_owned(),
                };
                format!(
                    "{} {what} at level {}: {}",
                    verdict.coverage.tree,
                    verdict.level,
                    path.display()
                )
            }
            devenv_verdict::Saved::Kept(path) => {
                format!("the one on the whole stays: {}", path.display())
            }
        })
    })
    .await
}

/// The topology without a word about its warnings, which were shown before.
pub fn loaded(root: &Path, load: &LoadOptions) -> Result<Topology, CliError> {
    let loaded = Topology::load(root, load);
    match loaded.topology {
        Some(topology) => Ok(topology),
        None => {
            let mut problems = loaded.problems;
            problems.retain(devenv_model::Problem::is_error);
            Err(CliError::Problems(problems))
        }
    }
}

pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // Only when devenv ends.
        Err(e) => Err(CliError::Check(e.to_string())),
    }
}
