//! The target `kube:CONTEXT`: a namespace of one's own on a cluster that others use as well.
//!
//! What it needs is what such a cluster has: images come by its registry, the database is a pod
//! with a volume, and this machine reaches pods by the API alone.

mod allowed;
mod client;
mod database;
mod error;
mod forward;
mod mine;
mod objects;
mod registry;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use devenv_cluster::controllers::knative::plan::SERVICE_LABEL;
use devenv_model::Topology;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use kube::Client;
use kube::config::Kubeconfig;
use tokio::net::TcpStream;

pub use error::KubeError;
pub use mine::{has_namespace, take_down};

use crate::address;
use crate::containers::ContainerEngine;
use crate::host::Host;
use crate::target::{
    Adapter, BuiltImage, Database, Endpoints, Images, NodeState, Runtime, Serves, Target,
    TargetError, TargetKind, owner_of,
};
use crate::{kubernetes, pods};
use forward::{Forward, Pods};
use mine::Trace;
use objects::Place;
use registry::{Registry, Wanted};

/// What the target is made from.
#[derive(Debug, Clone)]
pub struct KubeOptions {
    /// The project's folder.
    pub root: PathBuf,
    /// Where this system keeps its state.
    pub state_dir: PathBuf,
    /// Its own loopback address.
    pub address: Ipv4Addr,
    /// The run that it is, beside the project's own system.
    pub run: Option<String>,
    /// The context of the user's kubeconfig.
    pub context: String,
}

/// The target, running.
pub struct KubeTarget {
    options: KubeOptions,
    engine: ContainerEngine,
    client: Client,
    namespace: String,
    place: Place,
    project: String,
    notes: Vec<String>,
    owner: (u32, u32),
    serves: Serves,
    registry: Registry,
    endpoints: Mutex<Endpoints>,
    forwards: Mutex<Vec<Forward>>,
}

impl std::fmt::Debug for KubeTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubeTarget")
            .field("context", &self.options.context)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// Where a port is looked for, for the first Cloud Run service.
const CLOUD_RUN: u16 = 8080;

impl KubeTarget {
    /// Looks whether the cluster may be used, and makes the namespace or knows it again.
    ///
    /// # Errors
    /// [`KubeError`]: what can be known before is said before anything is made.
    pub async fn start(options: KubeOptions, topology: &Topology) -> Result<Self, TargetError> {
        let owner = owner_of(&options.root)?;
        let (allowed, kubeconfig) = allowed::find(&options.context)?;
        let (user, who, checkout) = mine::checkout(&options.root);
        let project = &topology.project().namespace;
        let namespace = allowed.namespace_for(project, &user, options.run.as_deref())?;
        let place = Place {
            ingress: allowed.ingress_for(&namespace),
            namespace: namespace.clone(),
            database: topology.cloud_sql().map(|sql| sql.service.clone()),
        };
        let notes = objects::look(topology, &place)?;
        let engine = ContainerEngine::connect().await.map_err(KubeError::from)?;
        let client = reach(&options, &namespace, kubeconfig).await?;
        let trace = Trace {
            context: options.context.clone(),
            namespace: namespace.clone(),
            checkout,
        };
        let known = Trace::read(&options.state_dir).filter(|known| *known != trace);
        if let Some(known) = known {
            return Err(KubeError::Unfit(format!(
                "this checkout has the namespace {:?} on {:?} still; devenv down -v removes it",
                known.namespace, known.context
            ))
            .into());
        }
        trace.write(&options.state_dir)?;
        if let Err(error) = mine::claim(&client, &trace, &who).await {
            mine::forget(&options.state_dir);
            return Err(error.into());
        }
        let serves = kubernetes::serves(&client).await;
        let serves = serves.map_err(|e| {
            mine::api_error(&options.context, "asking for the kinds that it serves", &e)
        })?;
        let target = Self {
            endpoints: Mutex::new(endpoints(&options, topology, &place)),
            forwards: Mutex::default(),
            registry: Registry::new(&allowed.registry),
            project: topology.project().name.clone(),
            options,
            engine,
            client,
            namespace,
            place,
            notes,
            owner,
            serves,
        };
        target.forward_cloud_run(topology)?;
        Ok(target)
    }

    /// Gives each Cloud Run service a port of this machine.
    fn forward_cloud_run(&self, topology: &Topology) -> Result<(), TargetError> {
        let mut next = CLOUD_RUN;
        for service in topology.cloud_run() {
            let wanted = SocketAddr::new(IpAddr::V4(self.options.address), next);
            let bound = address::bind_or_next(wanted, "")?;
            next = bound.address.port().saturating_add(1);
            let pods = Pods {
                client: self.client.clone(),
                namespace: self.namespace.clone(),
                labels: format!("{SERVICE_LABEL}={}", service.name()),
                port: None,
            };
            let url = format!("http://{}", bound.address);
            self.keep(forward::listen(bound.listener, bound.address, pods)?);
            self.with_endpoints(|e| e.cloud_run.insert(service.name().to_owned(), url));
        }
        Ok(())
    }

    fn keep(&self, forward: Forward) {
        let mut all = self.forwards.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(forward);
    }

    fn with_endpoints<T>(&self, change: impl FnOnce(&mut Endpoints) -> T) -> T {
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut endpoints)
    }

    fn api_error(&self, what: &str, error: &kube::Error) -> KubeError {
        mine::api_error(&self.options.context, what, error)
    }
}

/// A client for the context, whose kubeconfig is the system's from now on.
async fn reach(
    options: &KubeOptions,
    namespace: &str,
    mut kubeconfig: Kubeconfig,
) -> Result<Client, KubeError> {
    for context in &mut kubeconfig.contexts {
        if let Some(context) = &mut context.context {
            context.namespace = Some(namespace.to_owned());
        }
    }
    // The one is for people, who use another target the next time; the other is for who
    // takes this system down then.
    client::write(&kubeconfig, &options.state_dir.join("kubeconfig"))?;
    let own = mine::kubeconfig(&options.state_dir);
    client::write(&kubeconfig, &own)?;
    client::of(&options.context, &own, namespace).await
}

fn endpoints(options: &KubeOptions, topology: &Topology, place: &Place) -> Endpoints {
    let kubeconfig = options.state_dir.join("kubeconfig");
    Endpoints {
        project: topology.project().name.clone(),
        namespace: place.namespace.clone(),
        profile: None,
        watching: false,
        target: TargetKind::Kube,
        context: Some(options.context.clone()),
        runtime: Runtime::Docker,
        ingress_controller: None,
        sandboxed: false,
        ingress: place.ingress.clone(),
        ingress_also: Vec::new(),
        address: Some(options.address.to_string()),
        cloud_run: BTreeMap::new(),
        kubernetes: kubernetes::server(&kubeconfig),
        kubeconfig,
        database: None,
        images: Images::new(),
    }
}

#[async_trait]
impl Target for KubeTarget {
    fn client(&self) -> Client {
        self.client.clone()
    }

    fn serves(&self) -> Serves {
        Serves {
            // Cloud Run services are Deployments here, whatever the cluster has.
            knative: false,
            ..self.serves
        }
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn containers(&self) -> Option<&ContainerEngine> {
        Some(&self.engine)
    }

    fn adapter(&self) -> Adapter {
        objects::adapter(self.place.clone())
    }

    async fn settled(&self) -> Result<(), TargetError> {
        // The cluster's own controllers are there already.
        Ok(())
    }

    async fn database(&self, topology: &Topology) -> Result<Option<Database>, TargetError> {
        let Some(config) = topology.cloud_sql() else {
            return Ok(None);
        };
        self.cloud_sql(topology, config).await.map(Some)
    }

    fn host(&self) -> Host {
        Host::Plain { owner: self.owner }
    }

    async fn connect(&self, address: SocketAddrV4) -> io::Result<TcpStream> {
        pods::connect(&self.client, &self.scope(), address).await
    }

    fn nodes(&self) -> BoxStream<'static, NodeState> {
        // Those who run the cluster look after them.
        futures_util::stream::pending().boxed()
    }

    async fn unrouted(&self, _: Ipv4Addr) {
        // The cluster does not tell whom it sends requests to.
    }

    fn container_pid(&self, _: &str, _: &str) -> Option<u32> {
        None
    }

    async fn prepare(&self, images: &[BuiltImage]) -> Result<(), TargetError> {
        for image in images {
            let Some(container) = &image.run.container else {
                continue;
            };
            let short = self.short(&image.name);
            let wanted = Wanted {
                name: &image.name,
                short: &short,
                id: &container.id,
            };
            let docker = self.engine.engine().docker();
            self.registry.push(docker, wanted).await?;
        }
        Ok(())
    }

    async fn deliver(&self, image: &BuiltImage) -> Result<Option<String>, TargetError> {
        let container = image.run.container.as_ref();
        Ok(container.and_then(|c| self.registry.reference(&image.name, &c.id)))
    }

    fn endpoints(&self) -> Endpoints {
        self.with_endpoints(|endpoints| endpoints.clone())
    }

    async fn failed(&self) -> TargetError {
        // The cluster goes on without this machine, and is found again when the network is
        // back: every watch begins anew by itself.
        std::future::pending().await
    }

    async fn shutdown(self: Box<Self>, grace: Duration) {
        // Of a run nothing stays.
        let all = self.options.run.is_some();
        if let Err(error) = mine::end(&self.options.state_dir, all, grace).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "something is left on the cluster"
            );
        }
        self.engine.prune(&self.project).await;
    }
}

impl KubeTarget {
    /// The last part of an image's name in the registry.
    fn short(&self, name: &str) -> String {
        let base = name.rsplit('/').next().unwrap_or_default();
        let base = base.split(['@', ':']).next().unwrap_or_default();
        format!("{}-{base}", self.project)
    }
}
