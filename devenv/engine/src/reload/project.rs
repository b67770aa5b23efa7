//! The project's own files: manifests, devenv.toml, migrations. What they say now is
//! applied, with no more restarts than it needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use devenv_model::{ImageSource, Loaded, Object, Problem, Topology};
use devenv_platform::{IngressController, cloudsql::migrate};

use super::{
    lane::{Dirty, Saves},
    record::{Budget, Outcome, Reload, Save},
    rollouts::Rollouts,
    told,
};
use crate::{
    event::{Event, Report},
    live::{Live, is_workload, used_sources, users_of},
    prints::Hint,
    up::UpError,
};

/// What was saved of the project's own files.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    pub files: BTreeSet<PathBuf>,
    pub save: Save,
    /// Applied also if it says what runs already: somebody asked for it.
    pub forced: bool,
}

/// The troubles' names.
const PROJECT: &str = "project";
const MIGRATIONS: &str = "migrations";

/// Applies what the project's files say now. Returns the saves of the images whose
/// sources or commands are not those that run: `None` when nothing has changed or the
/// files can't be used.
pub(crate) async fn apply(
    live: &Arc<Live>,
    rollouts: &Arc<Rollouts>,
    loaded: Loaded,
    saved: &Saved,
) -> Option<Saves> {
    let topology = match loaded.into_result() {
        Ok((topology, _)) => Arc::new(topology),
        Err(invalid) => {
            invalid_files(live, &invalid.problems, saved).await;
            return None;
        }
    };
    let old = live.topology();
    let has_nginx = live.target.endpoints().ingress_controller == Some(IngressController::Nginx);
    if let Some(what) = needs_restart(&old, &topology, has_nginx) {
        let report = Report {
            message: format!("{what} has changed, which a running system can't take over"),
            causes: Vec::new(),
            help: Some("devenv down && devenv up".to_owned()),
            output: None,
            exit_code: 1,
        };
        return refuse(live, saved, report).await;
    }
    if !saved.forced && is_same(&old, &topology) {
        told::mended(live, PROJECT, &[]).await;
        // Another order of keys or a comment: positions may have moved all the same.
        live.set_topology(topology);
        return None;
    }
    match take_over(live, rollouts, &old, &topology, saved).await {
        Ok(saves) => {
            told::mended(live, PROJECT, &[]).await;
            Some(saves)
        }
        Err(e) => refuse(live, saved, e.report()).await,
    }
}

async fn take_over(
    live: &Arc<Live>,
    rollouts: &Arc<Rollouts>,
    old: &Topology,
    topology: &Arc<Topology>,
    saved: &Saved,
) -> Result<Saves, UpError> {
    let sources = used_sources(topology);
    let digests = live.builder.look(&sources, &Hint::All).await?;
    let running = live.digests();
    let dirty: BTreeSet<&str> = sources
        .iter()
        .filter(|s| digests.get(&s.name) != running.get(&s.name))
        .map(|s| s.name.as_str())
        .collect();
    live.set_topology(topology.clone());
    let (workloads, others): (Vec<&Object>, Vec<&Object>) =
        topology.objects().iter().partition(|o| is_workload(o));
    let (namespaces, others): (Vec<&Object>, Vec<&Object>) =
        others.into_iter().partition(|o| o.kind() == "Namespace");
    live.apply(&namespaces).await?;
    live.apply(&others).await?;
    let gone = live.applier.prune(topology.objects()).await?;
    // An image's name may be new for a source that runs already.
    let clean: Vec<&ImageSource> = sources
        .iter()
        .filter(|s| !dirty.contains(s.name.as_str()))
        .copied()
        .collect();
    live.deliver(&clean, &digests).await?;
    // Workloads of images that must be built first are applied after that, once.
    let waiting = users_of(topology, &dirty);
    let now: Vec<&Object> = workloads
        .into_iter()
        .filter(|o| !waiting.iter().any(|w| std::ptr::eq(*w, *o)))
        .collect();
    let rolling = live.apply(&now).await?;
    let record = Reload {
        ms: Budget {
            detected: Some(saved.save.ms(saved.save.detected)),
            ..Budget::default()
        },
        ..begin(live, PROJECT, saved)
    };
    if rolling.is_empty()
        && dirty.is_empty()
        && (changed_objects(old, topology) || !gone.is_empty())
    {
        live.journal.record(Reload {
            outcome: Outcome::Applied,
            ..record.clone()
        });
    }
    for one in rolling {
        rollouts.follow(live, one, saved.save, record.clone());
    }
    let save = |name: &str| Dirty {
        hint: Hint::All,
        files: saved.files.clone(),
        save: saved.save,
        forced: false,
        objects: dirty.contains(name),
    };
    Ok(dirty
        .iter()
        .map(|name| ((*name).to_owned(), save(name)))
        .collect::<BTreeMap<_, _>>())
}

/// Brings the schema to what the folder of migrations says now.
pub(crate) async fn migrate(live: &Arc<Live>, saved: &Saved) {
    let topology = live.topology();
    let folder = topology.cloud_sql().and_then(|c| c.migrations.clone());
    let (Some(database), Some(folder)) = (live.database(), folder) else {
        return;
    };
    let short = folder.strip_prefix(&live.root).unwrap_or(&folder);
    let record = begin(live, MIGRATIONS, saved);
    match migrate::run(&database.connect, &live.root, short).await {
        Ok(done) => {
            told::mended(live, MIGRATIONS, &[]).await;
            if !done.applied.is_empty() {
                live.journal.record(Reload {
                    outcome: Outcome::Applied,
                    ms: Budget {
                        detected: Some(saved.save.ms(saved.save.detected)),
                        ready: Some(saved.save.ms(std::time::Instant::now())),
                        ..Budget::default()
                    },
                    ..record
                });
            }
        }
        Err(e) => {
            let report = UpError::from(e).report();
            if told::trouble(live, MIGRATIONS, "MigrationFailed", &report, &[]).await {
                live.journal.record(Reload {
                    outcome: Outcome::Invalid,
                    error: Some(report),
                    ..record
                });
            }
        }
    }
}

async fn invalid_files(live: &Arc<Live>, problems: &[Problem], saved: &Saved) {
    let errors: Vec<&Problem> = problems.iter().filter(|p| p.is_error()).collect();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let report = Report {
        message: match errors.as_slice() {
            [one] => format!("{}: {}", one.place.origin(), one.message),
            many => format!("{} errors in the project's files", many.len()),
        },
        causes: Vec::new(),
        help: Some("what ran before runs on; the next good save is taken over".to_owned()),
        output: Some(texts.join("\n")),
        exit_code: 1,
    };
    refuse(live, saved, report).await;
}

async fn refuse(live: &Arc<Live>, saved: &Saved, report: Report) -> Option<Saves> {
    if told::trouble(live, PROJECT, "Invalid", &report, &[]).await {
        live.journal.record(Reload {
            outcome: Outcome::Invalid,
            error: Some(report),
            ..begin(live, PROJECT, saved)
        });
    }
    None
}

fn begin(live: &Live, what: &str, saved: &Saved) -> Reload {
    let files = saved.files.iter().take(Reload::FILES);
    Reload {
        number: 0,
        what: what.to_owned(),
        workload: None,
        files: files.map(|f| live.short(f)).collect(),
        outcome: Outcome::Reloaded,
        saved: saved.save.timestamp(),
        ms: Budget::default(),
        error: None,
    }
}

/// What of a change can't be taken over by what runs: it decides addresses, the
/// database's account, or what everything is called. `has_nginx`: the system has
/// ingress-nginx.
fn needs_restart(old: &Topology, new: &Topology, has_nginx: bool) -> Option<&'static str> {
    let database = |t: &Topology| {
        t.cloud_sql().map(|c| {
            let mut c = c.clone();
            // The folder may move, and the section with it.
            c.migrations = None;
            c.origin = old
                .cloud_sql()
                .map_or(c.origin.clone(), |c| c.origin.clone());
            // That of the Service; told apart below.
            c.port = 0;
            c
        })
    };
    let port = |t: &Topology| t.cloud_sql().map(|c| c.port);
    // Where the section stands is no part of what it says.
    let nginx = |t: &Topology| t.nginx().map(|n| (n.manifest.clone(), n.sha256.clone()));
    let names =
        |t: &Topology| -> Vec<String> { t.cloud_run().map(|o| o.name().to_owned()).collect() };
    if old.project() != new.project() {
        Some("[project] name or namespace")
    } else if database(old) != database(new) {
        Some("[cloudsql]")
    } else if port(old) != port(new) {
        Some("the port of the Service of [cloudsql]")
    } else if old.ingress() != new.ingress() {
        Some("[ingress]")
    } else if has_nginx && nginx(old) != nginx(new) {
        Some("[kind.nginx]")
    } else if names(old) != names(new) {
        Some("the list of Cloud Run services")
    } else {
        None
    }
}

fn changed_objects(old: &Topology, new: &Topology) -> bool {
    let values = |t: &Topology| -> Vec<serde_json::Value> {
        t.objects().iter().map(|o| o.value().clone()).collect()
    };
    values(old) != values(new)
}

fn is_same(old: &Topology, new: &Topology) -> bool {
    let images = |t: &Topology| -> Vec<ImageSource> {
        let mut all: Vec<ImageSource> = t.images().values().cloned().collect();
        for image in &mut all {
            // Where it stands is no part of what it says.
            image.inferred.clear();
            if let Some(known) = old.images().get(&image.name) {
                image.origin = known.origin.clone();
            }
        }
        all
    };
    !changed_objects(old, new) && images(old) == images(new)
}

/// Says once what a load warns of.
pub(crate) fn warn(live: &Live, problems: &[Problem]) {
    for problem in problems.iter().filter(|p| !p.is_error()) {
        live.bus.emit(Event::Warning {
            message: problem.to_string(),
        });
    }
}

#[cfg(test)]
mod tests {
    use devenv_model::LoadOptions;
    use rstest::rstest;

    use super::*;

    fn load(root: &std::path::Path, ports: &str) -> Topology {
        let config = "[project]\nname = \"p\"\nmanifests = [\"db.yaml\"]\n[cloudsql]\n";
        std::fs::write(root.join("devenv.toml"), config).unwrap();
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: cloudsql}}\nspec: {{ports: [{ports}]}}\n"
        );
        std::fs::write(root.join("db.yaml"), service).unwrap();
        let loaded = Topology::load(root, &LoadOptions::default());
        loaded.into_result().unwrap().0
    }

    /// devenv's own way to the database goes through one port of its Service, for as long
    /// as it runs; what that is called, and which others there are, may change.
    #[rstest]
    #[case("{name: sql, port: 3306}", None)]
    #[case("{name: a, port: 5000}, {name: b, port: 3306}", None)]
    #[case("{port: 13306}", Some("the port of the Service of [cloudsql]"))]
    fn another_port_to_the_database_needs_a_restart(#[case] now: &str, #[case] want: Option<&str>) {
        let root = tempfile::tempdir().unwrap();
        let old = load(root.path(), "{port: 3306}");
        let new = load(root.path(), now);
        assert_eq!(needs_restart(&old, &new, true), want);
    }

    #[rstest]
    #[case("a.yaml", true, None)]
    #[case("b.yaml", true, Some("[kind.nginx]"))]
    #[case("b.yaml", false, None)]
    fn another_ingress_nginx_needs_a_restart_where_it_is_used(
        #[case] now: &str,
        #[case] has_nginx: bool,
        #[case] want: Option<&str>,
    ) {
        let root = tempfile::tempdir().unwrap();
        let load = |above: &str, manifest: &str| {
            let config = format!(
                "{above}[project]\nname = \"p\"\nmanifests = [\"a.yaml\"]\n\
                 [kind.nginx]\nmanifest = \"{manifest}\"\n"
            );
            std::fs::write(root.path().join("devenv.toml"), config).unwrap();
            for file in ["a.yaml", "b.yaml"] {
                let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n";
                std::fs::write(root.path().join(file), object).unwrap();
            }
            let loaded = Topology::load(root.path(), &LoadOptions::default());
            loaded.into_result().unwrap().0
        };
        let (old, new) = (load("", "a.yaml"), load("# moved\n", now));
        assert_eq!(needs_restart(&old, &new, has_nginx), want);
    }
}
