//! The running system as everything that changes it shares it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use devenv_cluster::RunSpec;
use devenv_model::{ImageSource, Object, Topology};
use devenv_platform::{BuiltImage, Database, ImageFact, Images, Target, TargetError};
use kube::{Client, Resource};

use crate::{
    apply::{Applier, ApplyError},
    build::Builder,
    debug::{self, Debugs},
    event::Bus,
    nodes::NotReady,
    observe::Observer,
    reload::Journal,
    run_spec::run_spec,
    stamp,
    state::StateDir,
    workload::{belongs, is_followed, key_of},
};

/// The parts that live as long as the system does, and what of the project runs now.
pub(crate) struct Live {
    pub root: PathBuf,
    pub state_dir: PathBuf,
    /// The same folder, where the endpoints are published.
    pub home: StateDir,
    pub target: Box<dyn Target>,
    pub client: Client,
    pub bus: Bus,
    pub applier: Applier,
    pub builder: Builder,
    pub observer: Observer,
    pub journal: Journal,
    pub debugs: Debugs,
    pub not_ready: NotReady,
    applying: tokio::sync::Mutex<()>,
    /// Held while what is published of the images is brought up to date.
    pub(crate) telling: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    topology: Arc<Topology>,
    /// By image source: what its workloads run.
    digests: BTreeMap<String, String>,
    /// By the names of manifests: those that the target has images under.
    delivered: BTreeMap<String, String>,
    /// By the names of manifests: what the engine knows the images by that were delivered.
    ids: Images,
    database: Option<Arc<Database>>,
}

/// A workload that rolls because of what was applied.
#[derive(Debug, Clone)]
pub(crate) struct Rolling {
    pub object: Object,
    /// Its `metadata.generation`, which its controller has to reach.
    pub generation: i64,
    /// Its pods of before, by uid.
    pub old: BTreeSet<String>,
}

impl Live {
    /// A system that comes up as `topology`.
    pub fn new(
        (root, home): (&Path, &StateDir),
        target: Box<dyn Target>,
        (applier, builder, observer, journal): (Applier, Builder, Observer, Journal),
        topology: Arc<Topology>,
        bus: &Bus,
    ) -> Self {
        Self {
            root: root.to_owned(),
            state_dir: home.path().to_owned(),
            home: home.clone(),
            client: target.client(),
            target,
            bus: bus.clone(),
            applier,
            builder,
            observer,
            journal,
            debugs: Debugs::default(),
            not_ready: NotReady::default(),
            applying: tokio::sync::Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            state: Mutex::new(State {
                topology,
                digests: BTreeMap::new(),
                delivered: BTreeMap::new(),
                ids: Images::new(),
                database: None,
            }),
        }
    }

    /// The target alone: nothing else of the system is used any more.
    pub fn into_target(self) -> Box<dyn Target> {
        self.target
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the engine knows the images by that were delivered, by the names of manifests.
    pub fn ids(&self) -> Images {
        self.state().ids.clone()
    }

    /// What runs, as the files said when it was last applied.
    pub fn topology(&self) -> Arc<Topology> {
        self.state().topology.clone()
    }

    /// Runs another one from now on.
    pub fn set_topology(&self, topology: Arc<Topology>) {
        self.state().topology = topology;
    }

    /// The digest of what runs, by image source.
    pub fn digests(&self) -> BTreeMap<String, String> {
        self.state().digests.clone()
    }

    /// The database, once it is there.
    pub fn database(&self) -> Option<Arc<Database>> {
        self.state().database.clone()
    }

    /// It is there.
    pub fn set_database(&self, database: Option<Database>) {
        self.state().database = database.map(Arc::new);
    }

    /// How an image is started as it is built now.
    pub fn run_spec(&self, source: &ImageSource) -> RunSpec {
        if let Some(built) = self.builder.container(source) {
            return built.run;
        }
        let venv = self.builder.venv(source);
        run_spec(
            &self.root,
            self.builder.state_dir(),
            source,
            venv.as_deref(),
        )
    }

    /// Images as they are built now, by the names that manifests use, which may carry a
    /// registry and a tag.
    fn built(&self, sources: &[&ImageSource]) -> Vec<BuiltImage> {
        let topology = self.topology();
        let images = topology.workload_images().into_keys();
        let built = images.filter_map(|name| {
            let source = topology.image_source(name)?;
            sources.iter().find(|s| s.name == source.name)?;
            let container = self.builder.container(source);
            Some(BuiltImage {
                name: name.to_owned(),
                layer: container.as_ref().and_then(|built| built.layer.clone()),
                entrypoint: container.map_or(source.entrypoint, |built| built.entrypoint),
                run: self.run_spec(source),
            })
        });
        built.collect()
    }

    /// Brings images near as they are built now; nothing runs them yet.
    ///
    /// # Errors
    /// What the target says.
    pub async fn prepare(&self, sources: &[&ImageSource]) -> Result<(), TargetError> {
        self.target.prepare(&self.built(sources)).await
    }

    /// Makes images known to the target as they are built now. Their workloads run
    /// them when they are applied.
    ///
    /// # Errors
    /// What the target says.
    pub async fn deliver(
        &self,
        sources: &[&ImageSource],
        digests: &BTreeMap<String, String>,
    ) -> Result<(), TargetError> {
        let images = self.built(sources);
        if let Err(error) = self.target.prepare(&images).await {
            for source in sources {
                // What could not be laid over there is built the next time.
                let built = self.builder.container(source);
                if built.is_some_and(|built| built.layer.is_some()) {
                    self.builder.anew(source);
                }
            }
            return Err(error);
        }
        let (mut delivered, mut ids) = (Vec::new(), Vec::new());
        for image in images {
            if let Some(name) = self.target.deliver(&image).await? {
                delivered.push((image.name.clone(), name));
            }
            let Some(container) = &image.run.container else {
                continue;
            };
            let fact = match &image.layer {
                None => ImageFact::Digest(container.id.clone()),
                Some(_) => ImageFact::Unknown(
                    "what was saved since it was built is laid over it; `devenv reload` builds it"
                        .to_owned(),
                ),
            };
            ids.push((image.name, fact));
        }
        {
            let mut state = self.state();
            state.delivered.extend(delivered);
            state.ids.extend(ids);
            for source in sources {
                if let Some(digest) = digests.get(&source.name) {
                    state.digests.insert(source.name.clone(), digest.clone());
                }
            }
        }
        self.tell_images().await;
        Ok(())
    }

    /// Applies `objects`; returns the workloads that change by it.
    ///
    /// # Errors
    /// The first object that was refused.
    pub async fn apply(&self, objects: &[&Object]) -> Result<Vec<Rolling>, ApplyError> {
        self.apply_and_restart(objects, |_| false).await
    }

    /// The same; those that `restarted` picks change in any case.
    ///
    /// # Errors
    /// The first object that was refused.
    pub async fn apply_and_restart(
        &self,
        objects: &[&Object],
        restarted: impl Fn(&Object) -> bool,
    ) -> Result<Vec<Rolling>, ApplyError> {
        // Whoever is applied last knows what those before it knew.
        let _turn = self.applying.lock().await;
        let (topology, digests) = (self.topology(), self.digests());
        let delivered = self.state().delivered.clone();
        let namespace = &topology.project().namespace;
        let before: Vec<(i64, BTreeSet<String>)> = {
            let observed = self.observer.look();
            let of = |object: &&Object| {
                let generation = observed.workloads.get(&key_of(object, namespace));
                let pods = observed.pods.iter();
                let mine = pods.filter(|(_, p)| belongs(object, &p.pod));
                (
                    generation.map_or(0, |f| f.generation),
                    mine.map(|(uid, _)| uid.clone()).collect(),
                )
            };
            objects.iter().map(of).collect()
        };
        let dressed = objects.iter().map(|object| {
            let mut body = stamp::dressed(object, &topology, &digests);
            stamp::name_images(object, &mut body, &delivered);
            debug::dressed(self, object, &mut body);
            (*object, body)
        });
        let applied = self.applier.apply(dressed.collect()).await?;
        let mut rolling = Vec::new();
        for ((object, (generation, old)), applied) in objects.iter().zip(before).zip(applied) {
            if !is_followed(object) {
                continue;
            }
            let mut now = applied.meta().generation.unwrap_or(0);
            if now <= generation && restarted(object) {
                let again = self.applier.restart(object).await?;
                now = again.meta().generation.unwrap_or(0);
            }
            if now > generation {
                rolling.push(Rolling {
                    object: (*object).clone(),
                    generation: now,
                    old,
                });
            }
        }
        Ok(rolling)
    }

    /// The project's path of a file, as people write it.
    pub fn short(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}

/// What runs pods waits for the database and the builds; everything else does not.
pub(crate) fn is_workload(o: &Object) -> bool {
    !o.images().is_empty()
}

/// The image sources that some workload of `topology` uses, by name.
pub(crate) fn used_sources(topology: &Topology) -> Vec<&ImageSource> {
    let mut sources: Vec<&ImageSource> = topology
        .workload_images()
        .into_keys()
        .filter_map(|image| topology.image_source(image))
        .collect();
    sources.sort_by_key(|s| &s.name);
    sources.dedup_by_key(|s| &s.name);
    sources
}

/// The workloads of `topology` that use one of these image sources.
pub(crate) fn users_of<'t>(topology: &'t Topology, sources: &BTreeSet<&str>) -> Vec<&'t Object> {
    let uses = |o: &&Object| {
        o.images()
            .into_iter()
            .filter_map(|i| topology.image_source(i))
            .any(|s| sources.contains(s.name.as_str()))
    };
    topology.objects().iter().filter(uses).collect()
}
