//! The client for a context, and the kubeconfig that has it alone.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::error::KubeError;

/// How long a cluster that may be far away, or behind a VPN that is off, is waited for.
const ANSWERS: Duration = Duration::from_secs(15);

/// Writes a kubeconfig, which may hold a token.
pub fn write(kubeconfig: &Kubeconfig, path: &Path) -> Result<(), KubeError> {
    // JSON is YAML.
    let text = serde_json::to_string_pretty(kubeconfig);
    let written = text.map_err(io::Error::other).and_then(|text| {
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, path)
    });
    written.map_err(|source| KubeError::Io {
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
    let file = Kubeconfig::read_from(kubeconfig).map_err(|e| KubeError::Kubeconfig {
        reason: e.to_string(),
    })?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|e| failed("its kubeconfig", e.to_string()))?;
    namespace.clone_into(&mut config.default_namespace);
    config.connect_timeout = Some(ANSWERS);
    let client = Client::try_from(config);
    let client = client.map_err(|e| failed("its kubeconfig", e.to_string()))?;
    match tokio::time::timeout(ANSWERS, client.apiserver_version()).await {
        Ok(Ok(_)) => Ok(client),
        Ok(Err(e)) => Err(super::mine::api_error(context, "asking its version", &e)),
        Err(_) => Err(failed(
            "asking its version",
            format!("no answer within {} s", ANSWERS.as_secs()),
        )),
    }
}
