//! The namespace that is this checkout's: made, known again, emptied, removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::client;
use super::error::KubeError;
use crate::trace;

/// In a system's state folder: which namespace is its own.
const TRACE: &str = "kube.json";
/// What says of a namespace whose it is.
const LABEL: &str = "devenv.dev/checkout";
/// The same for people.
const OWNER: &str = "devenv.dev/owner";
/// How long pods may take to end, and a namespace to go.
const GONE: Duration = Duration::from_secs(120);

/// What is known of a system's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The context by which it is reached.
    pub context: String,
    /// Its name.
    pub namespace: String,
    /// The label's value.
    pub checkout: String,
}

impl Trace {
    /// That of the system with this state folder.
    pub fn read(state_dir: &Path) -> Option<Self> {
        trace::read(&state_dir.join(TRACE))
    }

    /// Notes it.
    pub fn write(&self, state_dir: &Path) -> Result<(), KubeError> {
        let path = state_dir.join(TRACE);
        let written = trace::write(&path, self);
        written.map_err(|source| KubeError::Io {
            what: "write",
            path,
            source,
        })
    }

    fn forget(state_dir: &Path) -> Result<(), KubeError> {
        let path = state_dir.join(TRACE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KubeError::Io {
                what: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }

    fn failed(&self, what: &str, error: &kube::Error) -> KubeError {
        api_error(&self.context, what, error)
    }
}

/// An API that refused, or did not answer.
pub fn api_error(context: &str, what: &str, error: &kube::Error) -> KubeError {
    KubeError::Api {
        context: context.to_owned(),
        what: what.to_owned(),
        reason: match error {
            kube::Error::Api(status) => status.message.clone(),
            error => chain(error),
        },
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Who works here: the name, the same with machine and folder for people, and what a label may
/// hold of that.
pub fn checkout(root: &Path) -> (String, String, String) {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid());
    let user = user.ok().flatten().map(|u| u.name);
    let user = user.unwrap_or_else(|| nix::unistd::getuid().to_string());
    let host = nix::unistd::gethostname().unwrap_or_default();
    let owner = format!("{user}@{}:{}", host.display(), root.display());
    let label = hex::encode(Sha256::digest(&owner));
    (user, owner, label[..16].to_owned())
}

/// Makes the namespace, or knows it again.
///
/// # Errors
/// [`KubeError::Taken`] when it is somebody else's, so that nothing in it is touched.
pub async fn claim(client: &Client, trace: &Trace, owner: &str) -> Result<(), KubeError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let name = &trace.namespace;
    let what = format!("Namespace {name}");
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {LABEL: trace.checkout}, "annotations": {OWNER: owner}},
    });
    let object: Namespace = serde_json::from_value(object).unwrap_or_default();
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(e) => {
            // Who may not make one may have been given one.
            let there = matches!(&e, kube::Error::Api(status) if status.code == 403)
                && matches!(api.get_opt(name).await, Ok(Some(_)));
            if !there {
                return Err(trace.failed(&what, &e));
            }
        }
    }
    let found = api.get(name).await.map_err(|e| trace.failed(&what, &e))?;
    let label = found.labels().get(LABEL);
    if label == Some(&trace.checkout) && found.metadata.deletion_timestamp.is_none() {
        return Ok(());
    }
    let owner = match (label, found.annotations().get(OWNER)) {
        (Some(own), _) if *own == trace.checkout => "being removed; wait until it is gone".into(),
        (_, Some(owner)) => format!("that of {owner}"),
        _ => "not devenv's".to_owned(),
    };
    Err(KubeError::Taken {
        namespace: name.clone(),
        owner,
        label: format!("{LABEL}={}", trace.checkout),
    })
}

/// Takes it back that there is a namespace.
pub fn forget(state_dir: &Path) {
    if let Err(error) = Trace::forget(state_dir) {
        tracing::warn!(error = &error as &dyn std::error::Error, "a file is left");
    }
}

/// The kubeconfig of the namespace: another target has `kubeconfig` meanwhile.
pub fn kubeconfig(state_dir: &Path) -> PathBuf {
    state_dir.join("kube.kubeconfig")
}

/// Whether the system with this state folder has a namespace on a cluster that others use.
pub fn has_namespace(state_dir: &Path) -> bool {
    Trace::read(state_dir).is_some()
}

/// Ends what runs in the namespace of the system with this state folder, if it has one; with
/// `volumes` the namespace goes, and all that is in it. Nobody may run that system.
///
/// # Errors
/// When the API does not answer or refuses.
pub async fn take_down(state_dir: &Path, volumes: bool) -> Result<(), KubeError> {
    end(state_dir, volumes, GONE).await
}

/// The same; how long it may take is `within`, and what the API was asked for goes on.
pub async fn end(state_dir: &Path, volumes: bool, within: Duration) -> Result<(), KubeError> {
    let Some(trace) = Trace::read(state_dir) else {
        return Ok(());
    };
    let kubeconfig = kubeconfig(state_dir);
    let client = client::of(&trace.context, &kubeconfig, &trace.namespace).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.get_opt(&trace.namespace).await;
    let found = found.map_err(|e| trace.failed("looking for its namespace", &e))?;
    let own = found.filter(|n| n.labels().get(LABEL) == Some(&trace.checkout));
    let Some(own) = own else {
        // Somebody has removed it, or it has become another's.
        return Trace::forget(state_dir);
    };
    if volumes {
        let deleted = namespaces
            .delete(&trace.namespace, &DeleteParams::default())
            .await;
        match deleted {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => {
                other.map_err(|e| trace.failed("removing its namespace", &e))?;
            }
        }
        let uid = own.uid().unwrap_or_default();
        let gone = kube::runtime::conditions::is_deleted(&uid);
        wait(
            &trace,
            within,
            await_condition(namespaces, &trace.namespace, gone),
        )
        .await?;
        return Trace::forget(state_dir);
    }
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &trace.namespace);
    let deleted = deployments
        .delete_collection(&DeleteParams::foreground(), &ListParams::default())
        .await;
    deleted.map_err(|e| trace.failed("removing its Deployments", &e))?;
    // In the foreground a Deployment goes after its pods.
    let left = deployments.list(&ListParams::default()).await;
    let left = left.map_err(|e| trace.failed("looking for its Deployments", &e))?;
    let waits = left.into_iter().map(async |deployment| {
        let uid = deployment.uid().unwrap_or_default();
        let gone = kube::runtime::conditions::is_deleted(&uid);
        let name = deployment.name_any();
        let gone = await_condition(deployments.clone(), &name, gone);
        wait(&trace, within, gone).await
    });
    futures_util::future::try_join_all(waits).await.map(drop)
}

async fn wait<K>(
    trace: &Trace,
    within: Duration,
    gone: impl Future<Output = Result<Option<K>, kube::runtime::wait::Error>>,
) -> Result<(), KubeError> {
    match tokio::time::timeout(within, gone).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(KubeError::Api {
            context: trace.context.clone(),
            what: "waiting until it is gone".to_owned(),
            reason: chain(&e),
        }),
        Err(_) => Err(KubeError::Stays {
            namespace: trace.namespace.clone(),
            seconds: within.as_secs(),
        }),
    }
}
