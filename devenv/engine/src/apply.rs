//! Brings objects to a Kubernetes API by server-side apply, and takes away those that
//! devenv applied earlier and the manifests no longer have.

use std::{collections::BTreeSet, time::Duration};

use devenv_model::Object;
use devenv_platform::Scope;
use devenv_platform::kubernetes::{Kinds, apply};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::stamp::ORIGIN;

/// How long an admission webhook may be out of the API's reach. A pod that is ready is not
/// in every proxy's table yet.
const WEBHOOK: Duration = Duration::from_secs(30);
/// How often it is tried meanwhile: nothing tells when the API can reach it.
const AGAIN: Duration = Duration::from_millis(250);

/// Why an object could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API does not serve the kind.
    #[error("{origin}: the target does not serve {api_version} {kind}")]
    UnknownKind {
        /// Where the object stands.
        origin: String,
        /// Its apiVersion.
        api_version: String,
        /// Its kind.
        kind: String,
    },
    /// The API refused.
    #[error("{origin}: {kind} {name} was refused")]
    Refused {
        /// Where the object stands.
        origin: String,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// The API's answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API did not answer.
    #[error("the Kubernetes API did not answer")]
    Api(#[source] Box<kube::Error>),
}

impl ApplyError {
    /// What to do, where that can be told.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Refused { source, .. } if is_webhook_away(source) => Some(
                "an admission webhook of the cluster does not answer; `kubectl --kubeconfig \
                 .devenv/kubeconfig get validatingwebhookconfigurations,pods -A` shows which \
                 there are and who serves them"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Whether the API refused because it could not ask a webhook, as it does until the webhook's
/// own pod is there. What a webhook itself refuses is another error.
fn is_webhook_away(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.code >= 500 && status.message.contains("failed calling webhook"))
}

/// A client that knows which kinds the target serves.
pub struct Applier {
    client: Client,
    namespace: String,
    scope: Scope,
    kinds: Kinds,
}

impl Applier {
    /// Asks the target for its kinds.
    pub async fn new(client: Client, namespace: &str, scope: Scope) -> Result<Self, ApplyError> {
        let kinds = Kinds::ask(&client).await;
        let kinds = kinds.map_err(|e| ApplyError::Api(Box::new(e)))?;
        Ok(Self {
            client,
            namespace: namespace.to_owned(),
            scope,
            kinds,
        })
    }

    fn api(&self, object: &Object) -> Result<Api<DynamicObject>, ApplyError> {
        let kind = (object.api_version(), object.kind());
        let namespace = object.namespace().unwrap_or(&self.namespace);
        let api = self.kinds.api(&self.client, kind, namespace);
        api.ok_or_else(|| ApplyError::UnknownKind {
            origin: object.origin().to_string(),
            api_version: object.api_version().to_owned(),
            kind: object.kind().to_owned(),
        })
    }

    /// Applies objects of one stage, all at once, each as the body beside it; returns what
    /// each has become, in their order.
    ///
    /// # Errors
    /// The first that was refused.
    pub async fn apply(
        &self,
        objects: Vec<(&Object, Value)>,
    ) -> Result<Vec<DynamicObject>, ApplyError> {
        let all = objects
            .into_iter()
            .map(|(object, body)| self.apply_one(object, body));
        futures_util::future::try_join_all(all).await
    }

    async fn apply_one(&self, object: &Object, body: Value) -> Result<DynamicObject, ApplyError> {
        let api = self.api(object)?;
        let deadline = Instant::now() + WEBHOOK;
        loop {
            match apply(&api, object.name(), &body).await {
                Ok(applied) => return Ok(applied),
                Err(e) if is_webhook_away(&e) && Instant::now() < deadline => sleep(AGAIN).await,
                Err(source) => {
                    return Err(ApplyError::Refused {
                        origin: object.origin().to_string(),
                        kind: object.kind().to_owned(),
                        name: object.name().to_owned(),
                        source: Box::new(source),
                    });
                }
            }
        }
    }

    /// Makes a workload's pods be replaced although nothing of it has changed, as `kubectl
    /// rollout restart` does; returns what it has become.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn restart(&self, object: &Object) -> Result<DynamicObject, ApplyError> {
        let now = jiff::Timestamp::now().to_string();
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        let params = PatchParams::default();
        self.api(object)?
            .patch(object.name(), &params, &Patch::Merge(&patch))
            .await
            .map_err(|e| ApplyError::Api(Box::new(e)))
    }

    /// Deletes what an earlier `up` applied and `objects` no longer has; returns the
    /// names of what went.
    pub async fn prune(&self, objects: &[Object]) -> Result<Vec<String>, ApplyError> {
        let wanted: BTreeSet<(&str, &str, &str)> = objects
            .iter()
            .map(|o| (o.kind(), o.namespace().unwrap_or(&self.namespace), o.name()))
            .collect();
        // Namespaces hold what people made themselves: they stay.
        let kinds = self.kinds.namespaced().filter(|resource| {
            !resource.plural.contains('/') && resource.kind != "Event" && resource.kind != "Pod"
        });
        let each = kinds.map(|resource| self.prune_kind(resource, &wanted));
        let gone = futures_util::future::try_join_all(each).await?;
        Ok(gone.into_iter().flatten().collect())
    }

    async fn prune_kind(
        &self,
        resource: &ApiResource,
        wanted: &BTreeSet<(&str, &str, &str)>,
    ) -> Result<Vec<String>, ApplyError> {
        let mut gone = Vec::new();
        let api: Api<DynamicObject> = self.scope.api_of(&self.client, resource);
        let Ok(list) = api.list(&ListParams::default()).await else {
            return Ok(gone);
        };
        for found in list.items {
            let (Some(name), Some(namespace)) = (found.metadata.name, found.metadata.namespace)
            else {
                continue;
            };
            let ours = found
                .metadata
                .annotations
                .is_some_and(|a| a.contains_key(ORIGIN));
            // A ReplicaSet carries its Deployment's annotations and goes with it.
            let owned = found
                .metadata
                .owner_references
                .is_some_and(|o| !o.is_empty());
            if !ours
                || owned
                || wanted.contains(&(resource.kind.as_str(), namespace.as_str(), name.as_str()))
            {
                continue;
            }
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), &namespace, resource);
            api.delete(&name, &DeleteParams::background())
                .await
                .map_err(|e| ApplyError::Api(Box::new(e)))?;
            gone.push(format!("{} {namespace}/{name}", resource.kind));
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_that_is_away_is_not_one_that_refuses() {
        let refused = |code: u16, message: &str| ApplyError::Refused {
            origin: "k8s/ingress.yaml:1:1".into(),
            kind: "Ingress".into(),
            name: "web".into(),
            source: Box::new(kube::Error::Api(Box::new(kube::core::Status {
                code,
                message: message.into(),
                ..kube::core::Status::default()
            }))),
        };
        let away = "Internal error occurred: failed calling webhook \"validate.example\": dial tcp \
                    10.96.0.9:443: connect: connection refused";
        assert!(refused(500, away).help().is_some());
        let denied = "admission webhook \"validate.example\" denied the request: no snippets";
        assert!(refused(400, denied).help().is_none());
    }
}
