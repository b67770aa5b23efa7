//! Finds the project that a command is about, and connects to it when it is up.

use std::path::{Path, PathBuf};

use devenv_engine::state::StateDir;
use devenv_model::{LoadOptions, Topology};
use devenv_platform::Endpoints;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{error::CliError, render};

/// The file that makes a folder a project.
const CONFIG: &str = "devenv.toml";

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
    pub fn find(directory: Option<&Path>) -> Result<Self, CliError> {
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
        let state = StateDir::of(&root);
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
        let path = self.endpoints()?.kubeconfig;
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| CliError::Kubeconfig {
            path: path.clone(),
            source,
        };
        let file = Kubeconfig::read_from(&path).map_err(|e| broken(Box::new(e)))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|e| broken(Box::new(e)))?;
        Ok(Client::try_from(config)?)
    }
}
