//! Why a cluster that others use can't be used, and what mends it.

use std::path::PathBuf;

use devenv_compose::EngineError;

/// Why the cluster can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The user's configuration can't be read.
    #[error("{}: {reason}", file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not list the context.
    #[error(
        "the context {context:?} (server {server}) is not allowed: {} lists {}",
        file.display(),
        listed(.known)
    )]
    NotAllowed {
        /// The context that was asked for.
        context: String,
        /// Its server, as the kubeconfig has it.
        server: String,
        /// The user's configuration.
        file: PathBuf,
        /// The contexts that it lists.
        known: Vec<String>,
    },
    /// The kubeconfig has another server under the name.
    #[error(
        "the context {context:?} leads to {found}, and {} allows it for {allowed} only",
        file.display()
    )]
    OtherServer {
        /// The context that was asked for.
        context: String,
        /// Its server, as the kubeconfig has it.
        found: String,
        /// The server that is allowed.
        allowed: String,
        /// The user's configuration.
        file: PathBuf,
    },
    /// The kubeconfig has no such context, or can't be read.
    #[error("the kubeconfig: {reason}")]
    Kubeconfig {
        /// What is wrong with it.
        reason: String,
    },
    /// What the manifests hold can't be in a namespace of one's own.
    #[error("{0}")]
    Unfit(String),
    /// The namespace is somebody else's.
    #[error("the namespace {namespace:?} is there already, and is {owner}")]
    Taken {
        /// Its name.
        namespace: String,
        /// Whose it is.
        owner: String,
        /// The label by which this checkout would know it.
        label: String,
    },
    /// The Docker Engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An image did not get into the registry.
    #[error("the image {image} could not be pushed to {registry}: {reason}")]
    Push {
        /// The image, as manifests call it.
        image: String,
        /// Its name in the registry.
        registry: String,
        /// What was said.
        reason: String,
    },
    /// The Kubernetes API.
    #[error("the Kubernetes API of {context:?}: {what}: {reason}")]
    Api {
        /// The context.
        context: String,
        /// What was asked.
        what: String,
        /// What it said, or that it did not answer.
        reason: String,
    },
    /// A workload of the target's own did not get ready.
    #[error("the database is not ready after {seconds} s: {reason}")]
    Database {
        /// What its pods say.
        reason: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The namespace, or what is in it, does not go.
    #[error("what is in the namespace {namespace:?} has not ended after {seconds} s")]
    Stays {
        /// Its name.
        namespace: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A file of the state folder.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

fn listed(known: &[String]) -> String {
    match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    }
}

impl KubeError {
    /// What to do, where that can be told.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NotAllowed {
                context,
                server,
                file,
                ..
            } => Some(format!(
                "if it is a cluster for development, add to {}:\n\n[[allow_contexts]]\nname = \
                 {context:?}\nserver = {server:?}\nregistry = \"REGISTRY/REPOSITORY\"",
                file.display()
            )),
            Self::OtherServer { file, .. } => Some(format!(
                "if the cluster has moved, change server = … in {}",
                file.display()
            )),
            Self::Kubeconfig { .. } => Some(
                "kubectl config get-contexts lists what it has; gcloud container clusters \
                 get-credentials CLUSTER adds one of GKE"
                    .to_owned(),
            ),
            Self::Taken {
                namespace, label, ..
            } => Some(format!(
                "say another one for this context: namespace = \"…\"; or, if it is this \
                 checkout's after all: kubectl label namespace {namespace} {label}"
            )),
            Self::Engine(error) => error.help(),
            Self::Push { registry, .. } => {
                let host = registry.split('/').next().unwrap_or_default();
                Some(format!(
                    "docker login {host} (of Artifact Registry: gcloud auth configure-docker \
                     {host}), and see that the repository is there"
                ))
            }
            Self::Database { .. } | Self::Stays { .. } => {
                Some("kubectl --kubeconfig .devenv/kubeconfig get pods,events says more".to_owned())
            }
            _ => None,
        }
    }

    /// Whether something has to be installed, started or allowed first.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::NotAllowed { .. } | Self::Kubeconfig { .. } => true,
            Self::Engine(error) => error.is_missing(),
            _ => false,
        }
    }
}
