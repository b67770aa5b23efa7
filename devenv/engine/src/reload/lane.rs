//! Images that share a command, and what is done when one of them is saved.
//!
//! A lane builds one thing at a time: a newer save gives up the build under way and
//! begins again with both. Lanes of different commands don't wait for each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use devenv_model::{ImageSource, Object, Reload as Mode};
use tokio::sync::mpsc;

use super::{
    record::{Budget, Outcome, Reload, Save},
    rollouts::Rollouts,
    told,
};
use crate::{
    build::BuildError,
    event::Report,
    live::{Live, used_sources, users_of},
    prints::Hint,
    up::UpError,
};

/// What was saved of one image.
#[derive(Debug, Clone)]
pub(crate) struct Dirty {
    pub hint: Hint,
    pub files: BTreeSet<PathBuf>,
    pub save: Save,
    /// Rolled also if nothing has changed: somebody asked for it.
    pub forced: bool,
    /// Whether its workloads' own objects have changed as well, and wait to be applied.
    pub objects: bool,
}

impl Dirty {
    fn merge(&mut self, other: Self) {
        self.hint.merge(other.hint);
        self.files.extend(other.files);
        self.save = self.save.newer(other.save);
        self.forced |= other.forced;
        self.objects |= other.objects;
    }
}

/// What was saved, by image source.
pub(crate) type Saves = BTreeMap<String, Dirty>;

pub(crate) fn merge(into: &mut Saves, more: Saves) {
    for (name, dirty) in more {
        match into.get_mut(&name) {
            Some(known) => known.merge(dirty),
            None => {
                into.insert(name, dirty);
            }
        }
    }
}

/// The images that must be built together, since they share a command: by name.
pub(crate) fn lanes(images: &[&ImageSource]) -> Vec<BTreeSet<String>> {
    /// A command and where it runs.
    type Commands = BTreeSet<(PathBuf, String)>;
    let mut lanes: Vec<(BTreeSet<String>, Commands)> = Vec::new();
    for image in images {
        let mut names = BTreeSet::from([image.name.clone()]);
        let mut commands: Commands = [&image.install, &image.build]
            .into_iter()
            .flatten()
            .map(|c| (image.workdir.clone(), c.to_string()))
            .collect();
        lanes.retain(|(other, shared)| {
            let joins = !shared.is_disjoint(&commands);
            if joins {
                names.extend(other.iter().cloned());
                commands.extend(shared.iter().cloned());
            }
            !joins
        });
        lanes.push((names, commands));
    }
    lanes.into_iter().map(|(names, _)| names).collect()
}

/// Works until nobody can send saves any more.
pub(crate) async fn run(
    live: Arc<Live>,
    rollouts: Arc<Rollouts>,
    mut saves_rx: mpsc::UnboundedReceiver<Saves>,
) {
    let mut saves = Saves::new();
    loop {
        if saves.is_empty() {
            match saves_rx.recv().await {
                Some(first) => saves = first,
                None => return,
            }
        }
        while let Ok(more) = saves_rx.try_recv() {
            merge(&mut saves, more);
        }
        let made = tokio::select! {
            biased;
            more = saves_rx.recv() => {
                // What was under way is given up: its processes end.
                match more {
                    Some(more) => merge(&mut saves, more),
                    None => return,
                }
                continue;
            }
            made = make(&live, &saves) => made,
        };
        let saves = std::mem::take(&mut saves);
        // From here on nothing is given up half done.
        match made {
            Ok(made) => deploy(&live, &rollouts, &saves, made).await,
            Err(e) => fail(&live, &saves, e).await,
        }
    }
}

/// What a lane has made of its saves.
#[derive(Debug)]
struct Made {
    /// Built, or to be run as they are.
    ready: Vec<ImageSource>,
    digests: BTreeMap<String, String>,
    /// Their programs see the changed files and reload themselves.
    synced: Vec<String>,
    /// When the last command was done; nothing where none had to run.
    built: Option<Instant>,
}

async fn make(live: &Live, saves: &Saves) -> Result<Made, BuildError> {
    let topology = live.topology();
    let all = used_sources(&topology);
    let images: Vec<&ImageSource> = all
        .iter()
        .filter(|i| saves.contains_key(&i.name))
        .copied()
        .collect();
    let mut hint = Hint::Paths(BTreeSet::new());
    for dirty in saves.values() {
        hint.merge(dirty.hint.clone());
    }
    let digests = live.builder.look(&images, &hint).await?;
    let running = live.digests();
    let forced = |i: &ImageSource| saves.get(&i.name).is_some_and(|d| d.forced);
    let changed: Vec<&ImageSource> = images
        .into_iter()
        .filter(|i| forced(i) || digests.get(&i.name) != running.get(&i.name))
        .filter(|i| forced(i) || i.reload != Mode::Manual)
        .collect();
    let (synced, rolled): (Vec<&ImageSource>, Vec<&ImageSource>) =
        changed.into_iter().partition(|i| {
            i.reload == Mode::Sync
                && live.builder.in_place()
                && !forced(i)
                && !live.builder.wants_install(&all, i)
        });
    for image in rolled.iter().filter(|i| forced(i)) {
        live.builder.anew(image);
    }
    let names = rolled.iter().map(|i| i.name.as_str()).collect();
    let built = rolled
        .iter()
        .filter(|i| i.reload != Mode::Restart)
        .map(|i| i.name.as_str())
        .collect();
    let ran = live.builder.build(&all, &names, &built).await?;
    Ok(Made {
        ready: rolled.into_iter().cloned().collect(),
        digests,
        synced: synced.into_iter().map(|i| i.name.clone()).collect(),
        built: (!ran.is_empty()).then(Instant::now),
    })
}

async fn deploy(live: &Arc<Live>, rollouts: &Arc<Rollouts>, saves: &Saves, made: Made) {
    // What was broken and is now as it was needs no reload to be well.
    told::mended(live, &what(saves.keys()), &users(live, saves)).await;
    for name in &made.synced {
        let Some(dirty) = saves.get(name) else {
            continue;
        };
        let budget = Budget {
            detected: Some(dirty.save.ms(dirty.save.detected)),
            ..Budget::default()
        };
        let reload = begin(live, name, dirty);
        live.journal.record(Reload {
            outcome: Outcome::Synced,
            ms: budget,
            ..reload
        });
    }
    let sources: Vec<&ImageSource> = made.ready.iter().collect();
    if let Err(e) = live.deliver(&sources, &made.digests).await {
        return refuse(live, saves, &e.into());
    }
    let names: BTreeSet<&str> = saves
        .iter()
        .filter(|(name, d)| d.objects || made.ready.iter().any(|i| i.name == **name))
        .map(|(name, _)| name.as_str())
        .collect();
    if names.is_empty() {
        return;
    }
    let topology = live.topology();
    let workloads = users_of(&topology, &names);
    // Those whose images somebody asked for, changed or not.
    let asked: BTreeSet<&str> = saves
        .iter()
        .filter(|(_, d)| d.forced)
        .map(|(name, _)| name.as_str())
        .collect();
    let asked = users_of(&topology, &asked);
    let restarted = |o: &Object| asked.iter().any(|a| a.to_string() == o.to_string());
    let rolling = match live.apply_and_restart(&workloads, restarted).await {
        Ok(rolling) => rolling,
        Err(e) => return refuse(live, saves, &e.into()),
    };
    for one in rolling {
        let of = |(name, _): &(&String, &Dirty)| {
            let mut sources = one.object.images().into_iter();
            sources.any(|i| topology.image_source(i).is_some_and(|s| s.name == **name))
        };
        let Some((name, dirty)) = saves.iter().find(of) else {
            continue;
        };
        let budget = Budget {
            detected: Some(dirty.save.ms(dirty.save.detected)),
            built: made.built.map(|at| dirty.save.ms(at)),
            ..Budget::default()
        };
        let reload = Reload {
            ms: budget,
            ..begin(live, name, dirty)
        };
        rollouts.follow(live, one, dirty.save, reload);
    }
}

/// A command failed: the old version serves on.
async fn fail(live: &Arc<Live>, saves: &Saves, error: BuildError) {
    let report = UpError::from(error).report();
    let what = what(saves.keys());
    told::trouble(live, &what, "BuildFailed", &report, &users(live, saves)).await;
    record_failure(live, saves, Outcome::BuildFailed, &report);
}

/// The target did not take it.
fn refuse(live: &Live, saves: &Saves, error: &UpError) {
    record_failure(live, saves, Outcome::Invalid, &error.report());
}

fn record_failure(live: &Live, saves: &Saves, outcome: Outcome, report: &Report) {
    let newest = saves.iter().max_by_key(|(_, d)| d.save.detected);
    let Some((_, dirty)) = newest else { return };
    let budget = Budget {
        detected: Some(dirty.save.ms(dirty.save.detected)),
        ..Budget::default()
    };
    live.journal.record(Reload {
        outcome,
        ms: budget,
        error: Some(report.clone()),
        ..begin(live, &what(saves.keys()), dirty)
    });
}

fn begin(live: &Live, what: &str, dirty: &Dirty) -> Reload {
    let files = dirty.files.iter().take(Reload::FILES);
    Reload {
        number: 0,
        what: what.to_owned(),
        workload: None,
        files: files.map(|f| live.short(f)).collect(),
        outcome: Outcome::Reloaded,
        saved: dirty.save.timestamp(),
        ms: Budget::default(),
        error: None,
    }
}

fn users(live: &Live, saves: &Saves) -> Vec<Object> {
    let names: BTreeSet<&str> = saves.keys().map(String::as_str).collect();
    let topology = live.topology();
    users_of(&topology, &names).into_iter().cloned().collect()
}

fn what<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.cloned().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use devenv_model::Command;

    use super::*;
    use crate::testing::image;

    #[test]
    fn images_that_share_a_command_share_a_lane() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, install: Option<&str>, build: Option<&str>| {
            let command = |c: &str| Command::Shell(c.to_owned());
            let mut image = image(name, dir.path());
            image.install = install.map(command);
            image.build = build.map(command);
            image
        };
        let images = [
            make("a", None, Some("cargo build")),
            make("b", None, None),
            make("c", Some("npm ci"), Some("vite build")),
            make("d", None, Some("cargo build")),
            make("e", Some("npm ci"), Some("cargo build")),
            make("f", None, Some("go build")),
        ];
        let found = lanes(&images.iter().collect::<Vec<_>>());
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let expected: BTreeSet<BTreeSet<String>> =
            BTreeSet::from([set(&["b"]), set(&["a", "c", "d", "e"]), set(&["f"])]);
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn a_newer_save_is_the_one_that_is_timed() {
        let now = Instant::now();
        let dirty = |ms: u64, file: &str, forced: bool| Dirty {
            hint: Hint::Paths([file.into()].into()),
            files: [file.into()].into(),
            save: Save::new(None, now + std::time::Duration::from_millis(ms)),
            forced,
            objects: false,
        };
        let mut saves = Saves::from([("a".to_owned(), dirty(0, "x", true))]);
        merge(
            &mut saves,
            Saves::from([
                ("a".to_owned(), dirty(5, "y", false)),
                ("b".to_owned(), dirty(1, "z", false)),
            ]),
        );
        assert_eq!(saves.len(), 2);
        let a = &saves["a"];
        assert_eq!(a.files.len(), 2);
        assert!(a.forced);
        assert_eq!(a.hint, Hint::Paths(["x".into(), "y".into()].into()));
        assert_eq!(a.save.detected, now + std::time::Duration::from_millis(5));
    }
}
