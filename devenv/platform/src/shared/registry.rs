//! How images come to a cluster that others use: by its registry.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{PushImageOptions, RemoveImageOptions, TagImageOptions};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use futures_util::TryStreamExt;

use super::error::KubeError;

/// A repository that images are pushed to.
#[derive(Debug)]
pub struct Registry {
    /// `HOST/REPOSITORY`.
    to: String,
    /// By the names that manifests use: what was pushed last.
    pushed: Mutex<BTreeMap<String, Pushed>>,
}

#[derive(Debug, Clone)]
struct Pushed {
    /// The engine's id.
    id: String,
    tag: String,
    /// By which the nodes pull it.
    reference: String,
}

/// An image of the engine.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'i> {
    /// As manifests call it.
    pub name: &'i str,
    /// The last part of its name in the registry.
    pub short: &'i str,
    /// The engine's id, `sha256:…`.
    pub id: &'i str,
}

impl Registry {
    /// One at this place.
    pub fn new(to: &str) -> Self {
        Self {
            to: to.trim_end_matches('/').to_owned(),
            pushed: Mutex::default(),
        }
    }

    fn known(&self, name: &str) -> Option<Pushed> {
        let pushed = self.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        pushed.get(name).cloned()
    }

    /// What pods call the image of this name and id; `None`: it was not pushed.
    pub fn reference(&self, name: &str, id: &str) -> Option<String> {
        let known = self.known(name).filter(|pushed| pushed.id == id);
        Some(known?.reference)
    }

    /// Pushes an image; only the layers that the registry lacks travel.
    ///
    /// # Errors
    /// [`KubeError::Push`].
    pub async fn push(&self, docker: &Docker, wanted: Wanted<'_>) -> Result<(), KubeError> {
        let before = self.known(wanted.name);
        if before.as_ref().is_some_and(|b| b.id == wanted.id) {
            return Ok(());
        }
        let repository = format!("{}/{}", self.to, wanted.short);
        let failed = |reason: String| KubeError::Push {
            image: wanted.name.to_owned(),
            registry: repository.clone(),
            reason,
        };
        let digest = wanted.id.trim_start_matches("sha256:");
        // A tag for each, so that a registry which removes what has none keeps what runs.
        let tag = digest.get(..12).unwrap_or(digest).to_owned();
        let options = TagImageOptions {
            repo: Some(repository.clone()),
            tag: Some(tag.clone()),
        };
        let tagged = docker.tag_image(wanted.id, Some(options)).await;
        tagged.map_err(|e| failed(e.to_string()))?;
        let options = PushImageOptions {
            tag: Some(tag.clone()),
            ..PushImageOptions::default()
        };
        let account = credentials(&self.to).await.map_err(&failed)?;
        let said = docker.push_image(&repository, Some(options), account);
        let said = said.try_for_each(|_| std::future::ready(Ok(()))).await;
        said.map_err(|e| failed(e.to_string()))?;
        let found = docker.inspect_image(&format!("{repository}:{tag}")).await;
        let found = found.map_err(|e| failed(e.to_string()))?;
        let own = format!("{repository}@");
        let digests = found.repo_digests.into_iter().flatten();
        let reference = digests.into_iter().find(|d| d.starts_with(&own));
        let reference = reference
            .ok_or_else(|| failed("the engine does not tell by which digest it is there".into()))?;
        let pushed = Pushed {
            id: wanted.id.to_owned(),
            tag,
            reference,
        };
        self.pushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(wanted.name.to_owned(), pushed.clone());
        if let Some(before) = before.filter(|before| before.tag != pushed.tag) {
            // Here nobody needs it any more.
            let name = format!("{repository}:{}", before.tag);
            let none = None::<RemoveImageOptions>;
            if let Err(error) = docker.remove_image(&name, none, None).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    name,
                    "a tag is left"
                );
            }
        }
        Ok(())
    }
}

/// The account for a registry, as `docker login` and credential helpers keep it; `None`: it
/// asks for none.
async fn credentials(registry: &str) -> Result<Option<DockerCredentials>, String> {
    // The library takes one that is not there for one that can't be read.
    if !docker_config().is_some_and(|file| file.exists()) {
        return Ok(None);
    }
    let host = registry.split('/').next().unwrap_or_default().to_owned();
    let asked = host.clone();
    // A helper is a program, which may ask for a token.
    let found = tokio::task::spawn_blocking(move || docker_credential::get_credential(&asked));
    match found.await.map_err(|e| e.to_string())? {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Some(DockerCredentials {
            username: Some(user),
            password: Some(password),
            serveraddress: Some(host),
            ..DockerCredentials::default()
        })),
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(DockerCredentials {
            identitytoken: Some(token),
            serveraddress: Some(host),
            ..DockerCredentials::default()
        })),
        Err(
            CredentialRetrievalError::NoCredentialConfigured
            | CredentialRetrievalError::ConfigNotFound,
        ) => Ok(None),
        // What a helper prints may hold a token.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => Err(format!(
            "the credential helper {helper:?} of the Docker configuration failed for {host}"
        )),
        Err(e) => Err(format!("the account for {host}: {e}")),
    }
}

/// Where the engine's clients keep accounts.
fn docker_config() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder =
        folder.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    Some(folder?.join("config.json"))
}
