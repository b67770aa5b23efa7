//! Finds the project that a command is about, and connects to it when it is up.

use std::path::{Path, PathBuf};

use devenv_engine::state::StateDir;
use devenv_model::{LoadOptions, Topology};
use devenv_platform::{DatabaseFacts, Endpoints};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{error::CliError, render};

/// The file that makes a folder a project.
pub const CONFIG: &str = "devenv.toml";

/// A project's folder and its state.
#[derive(Debug, Clone)]
pub struct Project {
    /// The folder with devenv.toml, without symbolic links.
    pub root: PathBuf,
    /// Its state folder.
    pub state: StateDir,
}

impl Project {
    /// The project in `directory`, or the nearest one upwards from here.
    /// With `run`: the system of that run instead of the project's own.
    pub fn find(directory: Option<&Path>, run: Option<&str>) -> Result<Self, CliError> {
        let here = PathBuf::from(".");
        let dir = directory.unwrap_or(&here);
        let start = dir.canonicalize().map_err(|e| CliError::Directory {
            dir: dir.to_owned(),
            reason: e.to_string(),
        })?;
        let root = start
            .ancestors()
            .find(|a| a.join(CONFIG).is_file())
            .ok_or_else(|| CliError::NoProject(start.clone()))?
            .to_owned();
        let mut state = StateDir::of(&root);
        if let Some(run) = run {
            state = state.of_run(run);
        }
        Ok(Self { root, state })
    }

    /// Reads and checks everything; warnings are shown, errors end the command.
    pub fn load(&self, options: &LoadOptions) -> Result<Topology, CliError> {
        let loaded = Topology::load(&self.root, options);
        let (errors, warnings): (Vec<_>, Vec<_>) = loaded
            .problems
            .into_iter()
            .partition(devenv_model::Problem::is_error);
        render::problems(&warnings);
        match loaded.topology {
            Some(topology) if errors.is_empty() => Ok(topology),
            _ => Err(CliError::Problems(errors)),
        }
    }

    /// Where the running system is.
    pub fn endpoints(&self) -> Result<Endpoints, CliError> {
        let holder = self.state.holder().ok_or(CliError::NotUp)?;
        self.state.endpoints().ok_or(CliError::Between(holder.pid))
    }

    /// A client for the running system, from its kubeconfig as any other client.
    pub async fn client(&self) -> Result<Client, CliError> {
        client(&self.endpoints()?.kubeconfig).await
    }
}

/// A client from a kubeconfig.
pub async fn client(path: &Path) -> Result<Client, CliError> {
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| CliError::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    let file = Kubeconfig::read_from(path).map_err(|e| broken(Box::new(e)))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|e| broken(Box::new(e)))?;
    Ok(Client::try_from(config)?)
}

/// Where a database is, with the password from its Secret.
pub async fn database_url(
    client: Client,
    namespace: &str,
    facts: &DatabaseFacts,
) -> Result<String, CliError> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let secret = secrets.get(&facts.secret).await?;
    let password = secret
        .data
        .as_ref()
        .and_then(|d| d.get(devenv_platform::cloudsql::CREDENTIALS_PASSWORD))
        .map(|b| String::from_utf8_lossy(&b.0).into_owned())
        .unwrap_or_default();
    Ok(format!(
        "mysql://{}:{}@{}:{}/{}",
        percent(&facts.user),
        percent(&password),
        facts.host,
        facts.port,
        facts.database
    ))
}

/// What may stand in the user part of a URL as it is (RFC 3986 section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn percent(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, UNRESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_survive_a_url() {
        assert_eq!(percent("a:b@c/ñ").to_string(), "a%3Ab%40c%2F%C3%B1");
    }
}
