//! Why a kind cluster is not there, and what mends it.

use std::path::PathBuf;

use devenv_compose::EngineError;

use crate::address::AddressError;

/// Why the cluster can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KindError {
    /// A program is not there.
    #[error("{program} is not installed: {why}")]
    NoProgram {
        /// `kind`, `docker`.
        program: &'static str,
        /// What it is wanted for.
        why: &'static str,
        /// The command that mends it.
        help: String,
    },
    /// The Docker Engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A port is taken.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Memory or a limit of the kernel.
    #[error("{what}")]
    TooLittle {
        /// What there is, and what is needed.
        what: String,
        /// What to do.
        help: String,
    },
    /// The project's file.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A cluster of this name is not this checkout's.
    #[error("a kind cluster {name:?} is there already, and this checkout did not make it")]
    Taken {
        /// Its name.
        name: String,
    },
    /// It is there, and made from something else.
    #[error(
        "the kind cluster {name:?} was made from another configuration: kind/cluster.yaml, the \
         node's image, the ports or --ingress have changed since"
    )]
    Changed {
        /// Its name.
        name: String,
    },
    /// `kind` failed.
    #[error("{command} failed: {}", said.trim_end())]
    Command {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// A node does not get ready.
    #[error("the node {node} is not ready after {seconds} s: {reason}")]
    NotReady {
        /// The node.
        node: String,
        /// What its conditions say.
        reason: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A node ended.
    #[error("the node {node} stopped{why}")]
    Stopped {
        /// Its container.
        node: String,
        /// Its exit code, where it is known.
        why: String,
    },
    /// An image did not get into the node.
    #[error("the image {image} could not be brought into {node}: {reason}")]
    Load {
        /// The image.
        image: String,
        /// The node.
        node: String,
        /// What was said.
        reason: String,
    },
    /// The ingress controller can't be had.
    #[error("ingress-nginx can't be had: {reason}")]
    NoNginx {
        /// Why.
        reason: String,
    },
    /// The ingress controller can't be installed.
    #[error("the ingress controller could not be installed: {reason}")]
    Refused {
        /// What was refused or failed, and why.
        reason: String,
    },
    /// The ingress controller does not get ready.
    #[error("the ingress controller is not ready after {seconds} s: {reason}")]
    Ingress {
        /// What its pods say.
        reason: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The Kubernetes API.
    #[error("the Kubernetes API of the kind cluster {name:?}: {reason}")]
    Api {
        /// The cluster.
        name: String,
        /// What it said, or that it did not answer.
        reason: String,
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

impl KindError {
    /// What to do, where that can be told.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoProgram { help, .. } | Self::TooLittle { help, .. } => Some(help.clone()),
            Self::Engine(error) => error.help(),
            Self::Taken { name } => Some(format!(
                "if nobody needs it: kind delete cluster --name {name}; or give this project \
                 another name: [project] name"
            )),
            Self::Changed { name } => Some(format!(
                "make it anew (the database stays): kind delete cluster --name {name}, then \
                 devenv up --target kind"
            )),
            Self::Stopped { node, .. } => Some(format!(
                "docker logs {node} says why; devenv up --target kind starts it again"
            )),
            Self::NotReady { node, .. } => Some(format!(
                "docker exec {node} journalctl -u kubelet -n 50 says why; devenv down -v && \
                 devenv up --target kind makes it anew"
            )),
            Self::Api { name, .. } => Some(format!(
                "docker exec {name}-control-plane journalctl -u kubelet -n 50 says why, where it \
                 is its kubelet; devenv down -v && devenv up --target kind makes the cluster anew"
            )),
            Self::Load { reason, .. } if devenv_compose::is_disk_full(reason) => Some(
                "see what takes the room with `df -h` and `docker system df`, and free what \
                 nothing uses with `docker system prune`"
                    .to_owned(),
            ),
            Self::NoNginx { .. } => Some(
                "[kind.nginx] manifest in devenv.toml says where else it can be had; devenv's own \
                 controller serves the same Ingresses: devenv up --target kind --ingress devenv"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Whether something has to be installed or started first.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::NoProgram { .. } | Self::TooLittle { .. } => true,
            Self::Engine(error) => error.is_missing(),
            _ => false,
        }
    }
}
