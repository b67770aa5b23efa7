//! `devenv debug`: a workload under its language's debugger.
//!
//! The pod template is changed as it is applied ([`template`]), so the workload rolls as
//! after any other change and stays debugged over edits and a second `up`. A listener on
//! the project's loopback address leads to the debugger in the newest pod ([`tunnel`]).

mod command;
mod error;
mod template;
mod tunnel;
mod wait;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use devenv_model::{ImageSource, Object, Topology};
use devenv_platform::{address, cloudsql::engine::which};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::task::TaskTracker;

pub use command::Debugger;
use command::{Program, Unknown};
pub use error::DebugError;
use template::{Plan, dress};
use tunnel::{Attach, Debugged, Tunnel};
use wait::until;

use crate::{event::Event, live::Live, workload::is_followed};

/// What is to be debugged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// A workload, as `api1` or `deployment/api1`.
    pub workload: String,
    /// Its namespace; the project's own when not given.
    pub namespace: Option<String>,
    /// One of its containers; the one that is built from source when not given.
    pub container: Option<String>,
    /// The port on the project's address; the debugger's usual one, or the next that is
    /// free, when not given.
    pub port: Option<u16>,
    /// Whether the program waits for the debugger's client before its first line.
    pub wait: bool,
}

/// A workload that is debugged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// The container.
    pub container: String,
    /// What listens.
    pub debugger: Debugger,
    /// Where.
    pub address: SocketAddr,
    /// Whether the program waits for a client at each start.
    pub wait: bool,
    /// How many pods run under the debugger; the address leads to the newest.
    pub replicas: u32,
    /// The folder where the program starts, on this machine.
    pub local_root: PathBuf,
    /// The same folder as the program sees it.
    pub remote_root: PathBuf,
    /// The program's file, where it is a machine program.
    pub program: Option<PathBuf>,
    /// What else people should know.
    pub notes: Vec<String>,
}

impl Session {
    fn of(
        object: &Object,
        container: &Value,
        image: &ImageSource,
        plan: &Plan,
        address: SocketAddr,
    ) -> Self {
        let (local_root, remote_root) = template::folders(container, image);
        let replicas = object.value()["spec"]["replicas"].as_u64().unwrap_or(1);
        Self {
            kind: object.kind().to_owned(),
            workload: object.name().to_owned(),
            namespace: object.namespace().unwrap_or_default().to_owned(),
            container: plan.container.clone(),
            debugger: plan.debugger,
            address,
            wait: plan.wait,
            replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
            local_root,
            remote_root,
            program: None,
            notes: Vec::new(),
        }
    }
}

/// What is debugged now.
#[derive(Debug, Default)]
pub(crate) struct Debugs {
    active: Mutex<BTreeMap<String, Active>>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Active {
    plan: Plan,
    debugged: Debugged,
    tunnel: Tunnel,
    session: Session,
}

impl Debugs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How an object's workload is debugged, if it is.
    pub fn plan(&self, object: &Object) -> Option<Plan> {
        self.lock().get(&object.to_string()).map(|a| a.plan.clone())
    }

    /// Ends all connections; when this returns, nothing of them holds the system.
    pub async fn stop(&self) {
        self.lock().clear();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Runs a workload under its debugger; returns when that listens, and the debugged
/// version takes the requests.
///
/// # Errors
/// Why it can't be debugged; it runs as before then.
pub(crate) async fn start(live: &Arc<Live>, wish: &Wish) -> Result<Session, DebugError> {
    let topology = live.topology();
    let object = find(&topology, wish)?.clone();
    let (container, image) = choose(&topology, &object, wish.container.as_deref())?;
    let (plan, program) = plan(live, wish, &object, container, image).await?;
    let key = object.to_string();
    let debugged = Debugged {
        object: object.clone(),
        annotation: plan.annotation(),
        port: plan.port,
        kept: plan.debugger == Debugger::Debugpy,
        attach: attach(live, &plan, program.is_some())?,
        found: Arc::default(),
    };
    let same =
        |a: &Active| a.plan == plan && wish.port.is_none_or(|port| a.tunnel.address.port() == port);
    let known = live
        .debugs
        .lock()
        .get(&key)
        .filter(|a| same(a))
        .map(|a| (a.session.clone(), a.debugged.clone()));
    let (session, debugged) = match known {
        Some(known) => known,
        None => {
            // Its port may be the one that is wanted now.
            let before = live.debugs.lock().remove(&key);
            drop(before);
            let (tunnel, note) = open(live, wish, &plan, &debugged)?;
            let session = Session {
                program,
                notes: note.into_iter().collect(),
                ..Session::of(&object, container, image, &plan, tunnel.address)
            };
            let active = Active {
                plan: plan.clone(),
                debugged: debugged.clone(),
                tunnel,
                session: session.clone(),
            };
            live.debugs.lock().insert(key.clone(), active);
            (session, debugged)
        }
    };
    match roll(live, &object, image, &plan, &debugged).await {
        Ok(()) => Ok(session),
        Err(e) => {
            live.debugs.lock().remove(&key);
            // What failed first is what counts.
            if let Err(second) = live.apply(&[&object]).await {
                tracing::warn!(error = %second, "going back from a debugger that failed");
            }
            Err(e)
        }
    }
}

/// Runs a workload without a debugger again; returns when that version is ready.
///
/// # Errors
/// When it is not debugged, or does not get ready.
pub(crate) async fn stop(live: &Arc<Live>, wish: &Wish) -> Result<(), DebugError> {
    let topology = live.topology();
    let object = find(&topology, wish)?.clone();
    let ended = live.debugs.lock().remove(&object.to_string());
    if ended.is_none() {
        return Err(DebugError::NotDebugged(named(&object)));
    }
    drop(ended);
    let rolling = live.apply(&[&object]).await?;
    until(live, &object, rolling.first(), None).await
}

fn named(object: &Object) -> String {
    format!("{} {}", object.kind(), object.name())
}

fn find<'t>(topology: &'t Topology, wish: &Wish) -> Result<&'t Object, DebugError> {
    let (kind, name) = match wish.workload.split_once('/') {
        Some((kind, name)) => (Some(kind.to_ascii_lowercase()), name),
        None => (None, wish.workload.as_str()),
    };
    let is_kind = |o: &Object| match kind.as_deref() {
        None => true,
        Some("deployment" | "deployments" | "deploy" | "deployments.apps" | "deployment.apps") => {
            o.kind() == "Deployment"
        }
        Some("service" | "services" | "ksvc" | "service.serving.knative.dev") => o.is_cloud_run(),
        Some(_) => false,
    };
    let own = Some(topology.project().namespace.as_str());
    let in_namespace = |o: &&Object| match &wish.namespace {
        Some(namespace) => o.namespace() == Some(namespace),
        None => true,
    };
    let mut workloads: Vec<&Object> = topology
        .objects()
        .iter()
        .filter(|o| is_followed(o))
        .filter(in_namespace)
        .collect();
    // Where no namespace is named, the project's own comes first.
    workloads.sort_by_key(|o| o.namespace() != own);
    let found = workloads.iter().find(|o| o.name() == name && is_kind(o));
    found.copied().ok_or_else(|| DebugError::NoWorkload {
        name: wish.workload.clone(),
        known: workloads.iter().map(|o| o.name().to_owned()).collect(),
    })
}

/// The container and the source of its image.
fn choose<'t>(
    topology: &'t Topology,
    object: &'t Object,
    name: Option<&str>,
) -> Result<(&'t Value, &'t ImageSource), DebugError> {
    let containers = object.pod_template().and_then(|(_, spec)| {
        let spec = spec.iter().try_fold(object.value(), |v, k| v.get(*k))?;
        spec["containers"].as_array()
    });
    let mut sourced: Vec<(&str, &Value, &ImageSource)> = containers
        .into_iter()
        .flatten()
        .filter_map(|c| {
            let source = topology.image_source(c["image"].as_str()?)?;
            // Knative's only container needs no name.
            Some((c["name"].as_str().unwrap_or_default(), c, source))
        })
        .collect();
    let known: Vec<String> = sourced.iter().map(|(n, ..)| (*n).to_owned()).collect();
    let workload = named(object);
    if let Some(name) = name {
        sourced.retain(|(n, ..)| *n == name);
    }
    match (sourced.as_slice(), name) {
        ([(_, container, image)], _) => Ok((container, image)),
        ([], Some(name)) => Err(DebugError::NoContainer {
            workload,
            name: name.to_owned(),
            known,
        }),
        ([], None) => Err(DebugError::NoSource {
            workload,
            images: object.images().into_iter().map(str::to_owned).collect(),
        }),
        _ => Err(DebugError::Which { workload, known }),
    }
}

/// What has to be done, after what it needs is there.
async fn plan(
    live: &Live,
    wish: &Wish,
    object: &Object,
    container: &Value,
    image: &ImageSource,
) -> Result<(Plan, Option<PathBuf>), DebugError> {
    let unrecognised = |why: Unknown| DebugError::Unrecognised {
        workload: named(object),
        image: image.name.clone(),
        why: why.0,
    };
    if image.debug.is_none() && !live.builder.in_place() {
        return Err(unrecognised(Unknown(
            "its pods are containers (--runtime docker), and their image has no debugger that \
             devenv knows of"
                .to_owned(),
        )));
    }
    let (debugger, program) = match &image.debug {
        Some(debug) => (Debugger::of_custom(&debug.argv()), None),
        None => match template::program(container, image, &live.run_spec(image))
            .map_err(unrecognised)?
        {
            Program::Python { .. } => (Debugger::Debugpy, None),
            Program::Node { .. } => (Debugger::NodeInspector, None),
            Program::Native { file } => (Debugger::Gdbserver, Some(file)),
        },
    };
    let debugpy = match debugger {
        Debugger::Debugpy if image.debug.is_none() => {
            let made = live.builder.debugpy(image).await;
            Some(made.map_err(|e| DebugError::Install(Box::new(e)))?)
        }
        _ => None,
    };
    let taken = |port: u16| {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports
            .filter_map(|p| p["containerPort"].as_u64())
            .any(|p| p == u64::from(port))
    };
    let usual = debugger.port();
    let plan = Plan {
        container: container["name"].as_str().unwrap_or_default().to_owned(),
        debugger,
        port: (usual..).find(|p| !taken(*p)).unwrap_or(usual),
        wait: wish.wait,
        debugpy,
    };
    Ok((plan, program))
}

/// What a machine program is attached to with.
fn attach(live: &Live, plan: &Plan, is_native: bool) -> Result<Option<Attach>, DebugError> {
    if !is_native {
        return Ok(None);
    }
    if plan.wait {
        return Err(DebugError::NoWait);
    }
    let program = which("gdbserver").ok_or(DebugError::NoGdbserver)?;
    Ok(Some(Attach {
        container: plan.container.clone(),
        program,
        owner: live.builder.owner(),
    }))
}

/// The way in from the project's own address.
fn open(
    live: &Arc<Live>,
    wish: &Wish,
    plan: &Plan,
    debugged: &Debugged,
) -> Result<(Tunnel, Option<String>), DebugError> {
    let own = live.target.endpoints().address;
    let own = own.and_then(|a| a.parse::<IpAddr>().ok());
    let own = own.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let bound = match wish.port {
        Some(port) => address::bind(SocketAddr::new(own, port), ", or name another: --port N")?,
        None => address::bind_or_next(
            SocketAddr::new(own, plan.debugger.port()),
            ", or name another: --port N",
        )?,
    };
    let tunnel = Tunnel::start(live, bound.listener, debugged.clone(), &live.debugs.tasks)
        .map_err(DebugError::Listen)?;
    Ok((tunnel, bound.note))
}

async fn roll(
    live: &Arc<Live>,
    object: &Object,
    image: &ImageSource,
    plan: &Plan,
    debugged: &Debugged,
) -> Result<(), DebugError> {
    // The pods see the debugger's folder only when that was there as the image was told.
    live.deliver(&[image], &live.digests()).await?;
    let rolling = live.apply(&[object]).await?;
    until(live, object, rolling.first(), Some((plan, debugged))).await
}

/// Changes the body of a debugged workload's object as it is applied. One that can't be
/// debugged any more runs without a debugger, which is told.
pub(crate) fn dressed(live: &Live, object: &Object, body: &mut Value) {
    let Some(plan) = live.debugs.plan(object) else {
        return;
    };
    let topology = live.topology();
    let image = template::container(object, &plan.container)
        .and_then(|c| topology.image_source(c["image"].as_str()?));
    let done = match image {
        Some(image) => dress(body, object, &plan, image, &live.run_spec(image)),
        None => Err(Unknown(format!(
            "its container `{}` is not built from source any more",
            plan.container
        ))),
    };
    if let Err(Unknown(why)) = done {
        live.bus.emit(Event::Warning {
            message: format!("{} runs without a debugger: {why}", named(object)),
        });
    }
}
