//! The kind target: Kubernetes in Docker, with the manifests' own Ingress controller or with
//! devenv's, and the database's container beside it on kind's network.

mod api;
mod cluster;
mod config;
mod controller;
mod database;
mod error;
mod install;
mod laptop;
mod layered;
mod load;
mod nginx;
mod nodes;
mod objects;
mod oci;
mod preflight;
mod settled;

pub(crate) use oci::digest_of;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use devenv_model::{NginxSource, Topology};
use futures_util::stream::BoxStream;
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

pub use cluster::{has_cluster, take_down};
pub use error::KindError;

use crate::cloudsql;
use crate::containers::ContainerEngine;
use crate::host::Host;
use crate::target::{
    Adapter, BuiltImage, Database, Endpoints, Images, NodeState, Runtime, Serves, Target,
    TargetError, TargetKind, owner_of,
};
use crate::{kubernetes, pods};
use cluster::{Kind, Node, Trace};
use config::{HTTP, Mapping, Wanted};
use layered::Laid;
use nginx::Nginx;

/// The controller that serves the Ingresses of a kind cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IngressController {
    /// ingress-nginx, as the manifests are written for it.
    #[default]
    Nginx,
    /// devenv's own data plane.
    Devenv,
}

impl std::fmt::Display for IngressController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nginx => "nginx",
            Self::Devenv => "devenv",
        })
    }
}

/// What the kind target is made from.
#[derive(Debug, Clone)]
pub struct KindOptions {
    /// The project's folder.
    pub root: PathBuf,
    /// Where this system keeps its state.
    pub state_dir: PathBuf,
    /// Its own loopback address.
    pub address: Ipv4Addr,
    /// The run that it is, beside the project's own system.
    pub run: Option<String>,
    /// Its name.
    pub project: String,
    /// The default namespace.
    pub namespace: String,
    /// The port on 127.0.0.1 (devenv.toml: `ingress.http_port`); a run has none.
    pub http_port: u16,
    /// Names of the Cloud Run services.
    pub cloud_run: Vec<String>,
    /// Who serves the Ingresses.
    pub ingress: IngressController,
    /// Where ingress-nginx comes from, unless it is the release that devenv knows.
    pub nginx: Option<NginxSource>,
    /// The nodes' image, where kind's own is not wanted.
    pub node_image: Option<String>,
    /// How long its API may take to answer, and its nodes to get ready.
    pub ready: Duration,
}

/// The kind target, running.
pub struct KindTarget {
    options: KindOptions,
    engine: ContainerEngine,
    cluster: String,
    nodes: Vec<Node>,
    client: Client,
    owner: (u32, u32),
    serves: Serves,
    endpoints: Mutex<Endpoints>,
    controller: tokio::sync::Mutex<Option<JoinHandle<Result<(), KindError>>>>,
    layers: layered::Layers,
}

impl std::fmt::Debug for KindTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KindTarget")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Where a free port is looked for, for the first Cloud Run service.
const CLOUD_RUN: u16 = 8081;
/// How long an engine that went away is left alone before it is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a node's container may be away when the engine comes back.
const BACK: Duration = Duration::from_secs(60);

impl KindTarget {
    /// Makes the cluster, or takes the one that is there: when this returns its API answers,
    /// and its controller is on its way.
    ///
    /// # Errors
    /// [`KindError`]: what can be known before is said before anything is made.
    pub async fn start(options: KindOptions) -> Result<Self, TargetError> {
        let owner = owner_of(&options.root)?;
        let kind = Kind::find()?;
        let engine = ContainerEngine::connect().await.map_err(KindError::from)?;
        let engine = engine.for_nodes();
        let nginx = match options.ingress {
            IngressController::Nginx => {
                let nginx = Nginx::of(&options.root, options.nginx.as_ref());
                Some(nginx.look(engine.engine().docker()).await?)
            }
            IngressController::Devenv => None,
        };
        let cluster = config::cluster_name(&options.project, options.run.as_deref());
        let mappings = wanted(&options, &cluster).mappings();
        let (nodes, before) = ensure(&options, &kind, &engine, &cluster, &mappings).await?;
        let kubeconfig = options.state_dir.join("kubeconfig");
        let failed = |reason: String| KindError::Api {
            name: cluster.clone(),
            reason,
        };
        let client = kubernetes::client(&kubeconfig, &options.namespace, None).await;
        let client = client.map_err(failed)?;
        let deadline = tokio::time::Instant::now() + options.ready;
        api::answers(&client, &cluster, deadline).await?;
        if before {
            // What it says of pods may be of the time before.
            api::ready(&client, (&nodes, before), options.ready, deadline).await?;
        }
        let serves = kubernetes::serves(&client).await;
        let serves = serves.map_err(|e| failed(e.to_string()))?;
        let install = install(
            nginx,
            engine.engine().docker().clone(),
            nodes.clone(),
            client.clone(),
            options.address,
        );
        // Images and objects come in while a new node sets up its network.
        let ready = {
            let (client, nodes, limit) = (client.clone(), nodes.clone(), options.ready);
            async move {
                match before {
                    true => Ok(()),
                    false => api::ready(&client, (&nodes, before), limit, deadline).await,
                }
            }
        };
        let controller = tokio::spawn(async { tokio::try_join!(ready, install).map(|_| ()) });
        Ok(Self {
            endpoints: Mutex::new(endpoints(&options, &mappings, &kubeconfig)),
            controller: tokio::sync::Mutex::new(Some(controller)),
            layers: layered::Layers::default(),
            options,
            engine,
            cluster,
            nodes,
            client,
            owner,
            serves,
        })
    }

    fn docker(&self) -> &bollard::Docker {
        self.engine.engine().docker()
    }
}

/// Brings the controller in, ingress-nginx or devenv's own, and waits until it is ready.
async fn install(
    nginx: Option<nginx::Manifest>,
    docker: bollard::Docker,
    nodes: Vec<Node>,
    client: Client,
    address: Ipv4Addr,
) -> Result<(), KindError> {
    let objects = match nginx {
        Some(manifest) => manifest.deliver(&docker, &nodes).await?,
        None => controller::deliver(&docker, &nodes, vec![IpAddr::V4(address)]).await?,
    };
    install::install(&client, objects).await
}

/// The addresses of this machine that lead into the cluster: those that it has, or free ones.
fn wanted(options: &KindOptions, cluster: &str) -> Wanted {
    let mut wanted = Wanted {
        own: options.address,
        by_hand: options.run.is_none().then_some(options.http_port),
        cloud_run: Vec::new(),
    };
    let known = Trace::read(&options.state_dir).filter(|t| t.cluster == cluster && t.complete);
    let known = known.map(|t| t.cloud_run).unwrap_or_default();
    let front = wanted.front();
    let is_free = |port: &u16| TcpListener::bind((front, *port)).is_ok();
    let mut next = CLOUD_RUN;
    for n in 0..options.cloud_run.len() {
        let port = known.get(n).copied().unwrap_or_else(|| {
            // None is free: that this one is taken is told by the look at all ports.
            (next..=next.saturating_add(199))
                .find(is_free)
                .unwrap_or(next)
        });
        wanted.cloud_run.push(port);
        next = next.max(port.saturating_add(1));
    }
    wanted
}

/// What kind makes the cluster from: the project's file, and what devenv knows better.
fn configuration(
    options: &KindOptions,
    name: &str,
    mappings: &[Mapping],
) -> Result<Value, KindError> {
    let path = options.root.join("kind").join("cluster.yaml");
    let written = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(source) => {
            return Err(KindError::Io {
                what: "read",
                path,
                source,
            });
        }
    };
    let image = options.node_image.as_deref();
    let made = config::config(written.as_deref(), name, mappings, image);
    made.map_err(|reason| KindError::Config { path, reason })
}

/// The nodes of the cluster as it has to be, and whether it was there before.
async fn ensure(
    options: &KindOptions,
    kind: &Kind,
    engine: &ContainerEngine,
    name: &str,
    mappings: &[Mapping],
) -> Result<(Vec<Node>, bool), KindError> {
    let docker = engine.engine().docker();
    let made = configuration(options, name, mappings)?;
    let digest = config::digest(&made, options.ingress);
    let there = cluster::nodes(docker, name).await?;
    let known = Trace::read(&options.state_dir).filter(|t| t.cluster == name);
    // Who was killed while it made one may have made the network.
    let made_before = known.as_ref().is_some_and(|t| t.made_network);
    let kubeconfig = options.state_dir.join("kubeconfig");
    match known {
        None if !there.is_empty() => {
            return Err(KindError::Taken {
                name: name.to_owned(),
            });
        }
        Some(known) if known.complete && !there.is_empty() => {
            if known.config != digest {
                return Err(KindError::Changed {
                    name: name.to_owned(),
                });
            }
            cluster::start(docker, &there).await?;
            kind.export(name, &kubeconfig).await?;
            return Ok((cluster::nodes(docker, name).await?, true));
        }
        // Somebody was killed while it was made.
        Some(_) => {
            cluster::end_maker(name).await;
            cluster::delete(docker, &cluster::nodes(docker, name).await?).await?;
        }
        None => {}
    }
    preflight::look(docker, mappings).await?;
    let mut trace = Trace {
        cluster: name.to_owned(),
        host: engine.engine().host().to_owned(),
        config: digest,
        cloud_run: mappings
            .iter()
            .filter(|m| m.node >= config::CLOUD_RUN_NODE_PORT)
            .map(|m| m.here.port())
            .collect(),
        complete: false,
        made_network: made_before || !cluster::has_network(docker).await?,
    };
    trace.write(&options.state_dir)?;
    let config_file = options.state_dir.join("kind-config.json");
    if let Err(error) = kind.create(name, &made, &config_file, &kubeconfig).await {
        // Nothing of it is of use; what failed first is what counts.
        let _ = take_down(&options.state_dir, true).await;
        return Err(error);
    }
    trace.complete = true;
    trace.write(&options.state_dir)?;
    Ok((cluster::nodes(docker, name).await?, false))
}

fn endpoints(
    options: &KindOptions,
    mappings: &[Mapping],
    kubeconfig: &std::path::Path,
) -> Endpoints {
    let url = |at: SocketAddrV4| match at.port() {
        80 => format!("http://{}", at.ip()),
        port => format!("http://{}:{port}", at.ip()),
    };
    let to = |node: u16| mappings.iter().filter(move |m| m.node == node);
    let mut ingress = to(HTTP).map(|m| url(m.here));
    let fronts = options.cloud_run.iter().enumerate();
    let cloud_run: BTreeMap<String, String> = fronts
        .filter_map(|(n, name)| {
            let node = config::CLOUD_RUN_NODE_PORT + u16::try_from(n).ok()?;
            Some((name.clone(), url(to(node).next()?.here)))
        })
        .collect();
    Endpoints {
        project: options.project.clone(),
        namespace: options.namespace.clone(),
        profile: None,
        watching: false,
        target: TargetKind::Kind,
        context: None,
        runtime: Runtime::Docker,
        ingress_controller: Some(options.ingress),
        sandboxed: false,
        ingress: ingress.next(),
        ingress_also: ingress.collect(),
        address: Some(options.address.to_string()),
        cloud_run,
        kubernetes: kubernetes::server(kubeconfig),
        kubeconfig: kubeconfig.to_owned(),
        database: None,
        images: Images::new(),
    }
}

#[async_trait]
impl Target for KindTarget {
    fn client(&self) -> Client {
        self.client.clone()
    }

    fn serves(&self) -> Serves {
        self.serves
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn containers(&self) -> Option<&ContainerEngine> {
        Some(&self.engine)
    }

    fn adapter(&self) -> Adapter {
        let ingress = self.endpoints().ingress.unwrap_or_default();
        objects::adapter(vec![("INGRESS_URL".to_owned(), ingress)])
    }

    async fn database(&self, topology: &Topology) -> Result<Option<Database>, TargetError> {
        let Some(config) = topology.cloud_sql() else {
            return Ok(None);
        };
        self.cloud_sql(topology, config).await.map(Some)
    }

    fn asks_about_ingresses(&self) -> bool {
        self.options.ingress == IngressController::Nginx
    }

    async fn settled(&self) -> Result<(), TargetError> {
        let Some(installing) = self.controller.lock().await.take() else {
            return Ok(());
        };
        match installing.await {
            Ok(done) => Ok(done?),
            Err(e) => Err(KindError::Ingress {
                reason: e.to_string(),
                seconds: 0,
            }
            .into()),
        }
    }

    fn host(&self) -> Host {
        Host::Plain { owner: self.owner }
    }

    async fn connect(&self, address: SocketAddrV4) -> io::Result<TcpStream> {
        pods::connect(&self.client, &self.scope(), address).await
    }

    async fn unrouted(&self, _: Ipv4Addr) {
        // A controller in the cluster does not tell whom it sends requests to.
    }

    fn container_pid(&self, _: &str, _: &str) -> Option<u32> {
        None
    }

    async fn prepare(&self, images: &[BuiltImage]) -> Result<(), TargetError> {
        let (docker, nodes) = (self.docker(), &self.nodes);
        let (mut whole, mut laid) = (Vec::new(), Vec::new());
        for image in images {
            let Some(wanted) = self.on_nodes(image) else {
                continue;
            };
            let Some(layer) = &image.layer else {
                whole.push(wanted);
                continue;
            };
            let one = Laid {
                base: self.called(image, layer.base.clone()),
                layer: layer.clone(),
                wanted,
            };
            // Mostly the nodes have what it is laid over.
            if !self.layers.try_known(docker, nodes, &one).await {
                whole.push(one.base.clone());
                laid.push(one);
            }
        }
        load::from_engine(docker, nodes, &whole).await?;
        for one in &laid {
            self.layers.bring(docker, nodes, one).await?;
        }
        Ok(())
    }

    async fn deliver(&self, image: &BuiltImage) -> Result<Option<String>, TargetError> {
        Ok(self.on_nodes(image).map(|wanted| wanted.name))
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn failed(&self) -> TargetError {
        loop {
            let Some(ended) = self.ended().await else {
                continue;
            };
            return ended.into();
        }
    }

    fn nodes(&self) -> BoxStream<'static, NodeState> {
        nodes::changes(&self.client)
    }

    async fn shutdown(self: Box<Self>, _: Duration) {
        // Of a run nothing stays.
        let all = self.options.run.is_some();
        if let Some(installing) = self.controller.lock().await.take() {
            installing.abort();
        }
        // Those that use the database before it.
        let cluster = take_down(&self.options.state_dir, all).await;
        let cluster = cluster.map_err(|e| e.to_string());
        let database = cloudsql::remove_container(&self.options.state_dir, all).await;
        let database = database.map_err(|e| e.to_string());
        for error in [cluster, database].into_iter().filter_map(Result::err) {
            tracing::warn!(error, "something is left on the container engine");
        }
        self.engine.prune(&self.options.project).await;
    }
}

impl KindTarget {
    /// What an image is called on the nodes: another name whenever it is another image, so
    /// that nobody has to pull to find out.
    fn on_nodes(&self, image: &BuiltImage) -> Option<load::Wanted> {
        let id = image.run.container.as_ref()?.id.clone();
        Some(self.called(image, id))
    }

    /// What an image of this id is called there, if it is one of `image`'s name.
    fn called(&self, image: &BuiltImage, id: String) -> load::Wanted {
        let digest = id.trim_start_matches("sha256:");
        let short = digest.get(..12).unwrap_or(digest);
        let base = image.name.rsplit('/').next().unwrap_or_default();
        let base = base.split(['@', ':']).next().unwrap_or_default();
        let name = format!("devenv.local/{}-{base}:{short}", self.options.project);
        load::Wanted { id, name }
    }

    /// Waits until a node ends; `None`: the engine went away and came back, and all nodes
    /// with it.
    async fn ended(&self) -> Option<KindError> {
        let docker = self.docker();
        let waits = self.nodes.iter().map(|node| {
            Box::pin(async move {
                let none = None::<bollard::query_parameters::WaitContainerOptions>;
                let mut ended = Box::pin(docker.wait_container(&node.id, none));
                let first = futures_util::StreamExt::next(&mut ended).await;
                (node, first)
            })
        });
        let ((node, first), ..) = futures_util::future::select_all(waits).await;
        let code = match first {
            Some(Ok(ended)) => Some(ended.status_code),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Some(code),
            // The engine, not the node.
            Some(Err(_)) | None => None,
        };
        let deadline = tokio::time::Instant::now() + BACK;
        let stopped = || {
            Some(KindError::Stopped {
                node: node.name.clone(),
                why: code.map_or_else(String::new, |c| format!(" with exit code {c}")),
            })
        };
        let mut told = false;
        loop {
            match cluster::nodes(docker, &self.cluster).await {
                Ok(now) if !now.is_empty() && now.iter().all(|n| n.running) => return None,
                // A node that ended while its engine ran stays away; one that the engine starts
                // again, as it does when it is started itself, comes back.
                Ok(now) if code.is_some() || now.is_empty() => return stopped(),
                Ok(_) if tokio::time::Instant::now() > deadline => return stopped(),
                Err(e) if !told => {
                    tracing::warn!(error = %e, "waiting for the Docker Engine");
                    told = true;
                }
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
