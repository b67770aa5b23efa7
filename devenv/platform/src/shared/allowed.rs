//! Which clusters of others devenv may use: only those that the user's own configuration
//! lists, never because a project says so.

use std::io;
use std::path::{Path, PathBuf};

use devenv_model::is_label;
use kube::config::{Kubeconfig, NamedContext};
use serde::Deserialize;

use super::error::KubeError;
use crate::home;

/// `~/.config/devenv-gke/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct UserConfig {
    allow_contexts: Vec<Allowed>,
}

/// A context of the kubeconfig that may be used (`[[allow_contexts]]`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// The context's name.
    pub name: String,
    /// The URL of its cluster's API, letter for letter as the kubeconfig has it: a context of
    /// the same name that leads elsewhere is refused.
    pub server: String,
    /// Where images are pushed, and pulled by the nodes: `HOST/REPOSITORY`.
    pub registry: String,
    /// The developer's own namespace. `{namespace}` stands for the project's, `{user}` for the
    /// user's name.
    #[serde(default = "own_namespace")]
    pub namespace: String,
    /// Where requests come in, such as `http://{namespace}.dev.example.com`: its host is that of
    /// all Ingresses. Without it no Ingress is applied.
    pub ingress: Option<String>,
}

fn own_namespace() -> String {
    "{namespace}-{user}".to_owned()
}

/// The user's configuration.
fn file() -> PathBuf {
    home::config().unwrap_or_default().join("config.toml")
}

/// The context as it is allowed, and a kubeconfig that has nothing else.
///
/// # Errors
/// When it is not allowed, or is none.
pub fn find(context: &str) -> Result<(Allowed, Kubeconfig), KubeError> {
    let file = file();
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => {
            return Err(KubeError::Io {
                what: "read",
                path: file,
                source,
            });
        }
    };
    let kubeconfig = Kubeconfig::read().map_err(|e| KubeError::Kubeconfig {
        reason: e.to_string(),
    })?;
    choose(context, kubeconfig, &text, &file)
}

fn choose(
    context: &str,
    kubeconfig: Kubeconfig,
    text: &str,
    file: &Path,
) -> Result<(Allowed, Kubeconfig), KubeError> {
    let config: UserConfig = toml::from_str(text).map_err(|e| KubeError::Config {
        file: file.to_owned(),
        reason: e.to_string().trim_end().to_owned(),
    })?;
    let (alone, server) = only(context, kubeconfig)?;
    let known: Vec<String> = config
        .allow_contexts
        .iter()
        .map(|a| a.name.clone())
        .collect();
    let found = config
        .allow_contexts
        .into_iter()
        .find(|a| a.name == context);
    let Some(allowed) = found else {
        return Err(KubeError::NotAllowed {
            context: context.to_owned(),
            server,
            file: file.to_owned(),
            known,
        });
    };
    if allowed.server != server {
        return Err(KubeError::OtherServer {
            context: context.to_owned(),
            found: server,
            allowed: allowed.server,
            file: file.to_owned(),
        });
    }
    Ok((allowed, alone))
}

/// The kubeconfig with this context and what it refers to, alone; and its server.
fn only(context: &str, all: Kubeconfig) -> Result<(Kubeconfig, String), KubeError> {
    let unknown = |reason: String| KubeError::Kubeconfig { reason };
    let known: Vec<String> = all.contexts.iter().map(|c| c.name.clone()).collect();
    let named = all.contexts.iter().find(|c| c.name == context);
    let named = named.ok_or_else(|| {
        unknown(format!(
            "it has no context {context:?}; it has {}",
            match known.as_slice() {
                [] => "none".to_owned(),
                known => known.join(", "),
            }
        ))
    })?;
    let inner = named
        .context
        .clone()
        .ok_or_else(|| unknown(format!("its context {context:?} is empty")))?;
    let cluster = all.clusters.iter().find(|c| c.name == inner.cluster);
    let server = cluster.and_then(|c| c.cluster.as_ref()?.server.clone());
    let (Some(cluster), Some(server)) = (cluster, server) else {
        return Err(unknown(format!(
            "the cluster {:?} of its context {context:?} has no server",
            inner.cluster
        )));
    };
    let user = inner.user.clone();
    let users = all.auth_infos.iter();
    let users = users.filter(|a| Some(&a.name) == user.as_ref()).cloned();
    let alone = Kubeconfig {
        current_context: Some(context.to_owned()),
        contexts: vec![NamedContext {
            name: context.to_owned(),
            context: Some(inner),
            ..NamedContext::default()
        }],
        clusters: vec![cluster.clone()],
        auth_infos: users.collect(),
        ..Kubeconfig::default()
    };
    Ok((alone, server))
}

impl Allowed {
    /// The namespace that this user has for a project, or for a run of it.
    ///
    /// # Errors
    /// When that is no name that Kubernetes takes.
    pub fn namespace_for(
        &self,
        project: &str,
        user: &str,
        run: Option<&str>,
    ) -> Result<String, KubeError> {
        let user: String = user
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let mut name = self
            .namespace
            .replace("{namespace}", project)
            .replace("{user}", user.trim_matches('-'));
        if let Some(run) = run {
            name = format!("{name}-{}", run.to_lowercase());
        }
        if is_label(&name) {
            return Ok(name);
        }
        Err(KubeError::Unfit(format!(
            "{name:?}, the namespace for the context {:?}, is none that Kubernetes takes: at most 63 \
             of a-z, 0-9 and - (RFC 1123)",
            self.name
        )))
    }

    /// Where requests come in for this namespace.
    pub fn ingress_for(&self, namespace: &str) -> Option<String> {
        let url = self.ingress.as_ref()?;
        let url = url.replace("{namespace}", namespace);
        Some(url.trim_end_matches('/').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: prod
contexts:
- {name: prod, context: {cluster: p, user: me}}
- {name: dev, context: {cluster: d, user: me, namespace: x}}
clusters:
- {name: p, cluster: {server: 'https://prod:6443'}}
- {name: d, cluster: {server: 'https://dev:6443'}}
users:
- {name: me, user: {token: t}}
- {name: other, user: {token: u}}
";

    fn ask(context: &str, text: &str) -> Result<(Allowed, Kubeconfig), KubeError> {
        let kubeconfig = Kubeconfig::from_yaml(KUBECONFIG).unwrap();
        choose(context, kubeconfig, text, Path::new("c.toml"))
    }

    const DEV: &str = "[[allow_contexts]]\nname = \"dev\"\nserver = \"https://dev:6443\"\nregistry \
                       = \"r.example/dev\"\n";

    #[test]
    fn a_listed_context_is_taken_alone() {
        let (allowed, alone) = ask("dev", DEV).unwrap();
        assert_eq!(allowed.registry, "r.example/dev");
        assert_eq!(alone.current_context.as_deref(), Some("dev"));
        let names: Vec<&str> = alone.auth_infos.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["me"]);
        assert_eq!(alone.clusters.len(), 1);
        assert_eq!(alone.contexts.len(), 1);
    }

    #[test]
    fn any_other_is_refused_with_what_to_do() {
        let refused = |context: &str, text: &str| {
            let error = ask(context, text).unwrap_err();
            format!("{error}\n{}", error.help().unwrap_or_default())
        };
        let other = refused("prod", DEV);
        assert!(other.contains("https://prod:6443"), "{other}");
        assert!(other.contains("lists dev"), "{other}");
        assert!(
            other.contains("[[allow_contexts]]\nname = \"prod\""),
            "{other}"
        );
        let none = refused("dev", "");
        assert!(none.contains("lists none"), "{none}");
        let moved = refused("dev", &DEV.replace("dev:6443", "dev:6444"));
        assert!(moved.contains("allows it for https://dev:6444"), "{moved}");
        let unknown = refused("nobody", DEV);
        assert!(unknown.contains("it has prod, dev"), "{unknown}");
        let typo = refused("dev", &DEV.replace("registry", "regsitry"));
        assert!(typo.contains("regsitry"), "{typo}");
    }

    #[test]
    fn everybody_has_a_namespace_of_their_own() {
        let (allowed, _) = ask("dev", DEV).unwrap();
        let name = |user: &str, run| allowed.namespace_for("shop", user, run);
        assert_eq!(name("Ana.B", None).unwrap(), "shop-ana-b");
        assert_eq!(name("bob", Some("R1")).unwrap(), "shop-bob-r1");
        assert!(name(&"x".repeat(70), None).is_err());
        let with = Allowed {
            ingress: Some("http://{namespace}.dev.example.com/".to_owned()),
            ..allowed
        };
        assert_eq!(
            with.ingress_for("shop-bob").as_deref(),
            Some("http://shop-bob.dev.example.com")
        );
    }
}
