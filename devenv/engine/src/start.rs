//! The target of an `up`, by what it is asked for.

use std::time::Duration;

use devenv_model::Topology;
use devenv_platform::{
    ContainerEngine, DatabaseOptions, KindOptions, KindTarget, KubeOptions, KubeTarget,
    LocalOptions, LocalTarget, Runtime, Target, TargetError, TargetKind, Volumes, address,
    containers::sweep_leftovers,
};

use crate::{
    state::StateDir,
    up::{UpError, UpOptions},
};

/// The variable with the image of a kind cluster's nodes, where neither kind's own nor one of
/// kind/cluster.yaml is wanted.
const NODE_IMAGE: &str = "DEVENV_KIND_NODE_IMAGE";

/// The variable with the seconds that a kind cluster's API may take to answer and its nodes to
/// get ready.
const NODE_READY: &str = "DEVENV_KIND_READY_TIMEOUT";
/// The same where nobody says it: the first start of a node on a slow machine.
const NODE_READY_SECONDS: u64 = 180;

/// The target, with its API.
pub(crate) async fn target(
    options: &UpOptions,
    topology: &Topology,
    state: &StateDir,
) -> Result<Box<dyn Target>, UpError> {
    match options.target {
        TargetKind::Kind => {
            sweep_leftovers(state.path()).await?;
            let target = KindTarget::start(kind_options(options, topology, state)).await?;
            return Ok(Box::new(target));
        }
        TargetKind::Kube => {
            sweep_leftovers(state.path()).await?;
            let target = KubeTarget::start(kube_options(options, state), topology).await?;
            return Ok(Box::new(target));
        }
        TargetKind::Local => {}
    }
    let containers = match options.runtime {
        Runtime::Process => {
            sweep_leftovers(state.path()).await?;
            None
        }
        Runtime::Docker => Some(
            ContainerEngine::connect()
                .await
                .map_err(TargetError::from)?,
        ),
    };
    let local = local_options(options, topology, state, containers);
    Ok(Box::new(LocalTarget::start(local).await?))
}

fn kind_options(options: &UpOptions, topology: &Topology, state: &StateDir) -> KindOptions {
    KindOptions {
        root: options.root.clone(),
        state_dir: state.path().to_owned(),
        address: own_address(options, state),
        run: state.run_id().map(str::to_owned),
        project: topology.project().name.clone(),
        namespace: topology.project().namespace.clone(),
        http_port: topology.ingress().http_port,
        cloud_run: topology.cloud_run().map(|o| o.name().to_owned()).collect(),
        ingress: options.ingress,
        nginx: topology.nginx().cloned(),
        node_image: std::env::var(NODE_IMAGE)
            .ok()
            .filter(|image| !image.is_empty()),
        ready: node_ready(),
    }
}

fn node_ready() -> Duration {
    let said = std::env::var(NODE_READY).unwrap_or_default();
    let seconds = said.parse().unwrap_or_else(|_| {
        if !said.is_empty() {
            tracing::warn!(said, "{NODE_READY} is no number of seconds; it is left out");
        }
        NODE_READY_SECONDS
    });
    Duration::from_secs(seconds)
}

fn kube_options(options: &UpOptions, state: &StateDir) -> KubeOptions {
    KubeOptions {
        root: options.root.clone(),
        state_dir: state.path().to_owned(),
        address: own_address(options, state),
        run: state.run_id().map(str::to_owned),
        context: options.context.clone().unwrap_or_default(),
    }
}

/// The loopback address that is this system's alone.
fn own_address(options: &UpOptions, state: &StateDir) -> std::net::Ipv4Addr {
    match state.run_id() {
        Some(_) => address::project_address(state.path()),
        None => address::project_address(&options.root),
    }
}

fn local_options(
    options: &UpOptions,
    topology: &Topology,
    state: &StateDir,
    containers: Option<ContainerEngine>,
) -> LocalOptions {
    LocalOptions {
        root: options.root.clone(),
        state_dir: state.path().to_owned(),
        hidden: state.base().to_owned(),
        address: own_address(options, state),
        by_hand: state.run_id().is_none(),
        project: topology.project().name.clone(),
        namespace: topology.project().namespace.clone(),
        http_port: topology.ingress().http_port,
        cloud_run: topology.cloud_run().map(|o| o.name().to_owned()).collect(),
        database: topology.cloud_sql().map(|sql| DatabaseOptions {
            service: sql.service.clone(),
            port: sql.port,
            also_at: sql.also_at.clone(),
        }),
        isolation: options.isolation,
        volumes: match state.run_id() {
            Some(_) => Volumes::Delete,
            None => Volumes::Keep,
        },
        containers,
    }
}
