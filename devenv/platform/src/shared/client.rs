//! The client for a context, and the kubeconfig that has it alone.

use std::path::Path;
use std::time::Duration;

use kube::Client;
use kube::config::Kubeconfig;

use super::error::KubeError;
use crate::{kubernetes, trace};

/// How long a cluster that may be far away, or behind a VPN that is off, is waited for.
const ANSWERS: Duration = Duration::from_secs(15);

/// Writes a kubeconfig. JSON is YAML.
pub fn write(kubeconfig: &Kubeconfig, path: &Path) -> Result<(), KubeError> {
    trace::write(path, kubeconfig).map_err(|source| KubeError::Io {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

/// A client for the kubeconfig's context whose API answers.
pub async fn of(context: &str, kubeconfig: &Path, namespace: &str) -> Result<Client, KubeError> {
    let failed = |what: &str, reason: String| KubeError::Api {
        context: context.to_owned(),
        what: what.to_owned(),
        reason,
    };
    let client = kubernetes::client(kubeconfig, namespace, Some(ANSWERS)).await;
    let client = client.map_err(|reason| failed("its kubeconfig", reason))?;
    match tokio::time::timeout(ANSWERS, client.apiserver_version()).await {
        Ok(Ok(_)) => Ok(client),
        Ok(Err(e)) => Err(super::mine::api_error(context, "asking its version", &e)),
        Err(_) => Err(failed(
            "asking its version",
            format!("no answer within {} s", ANSWERS.as_secs()),
        )),
    }
}
