//! One backend of the Ingress's split alone.

use std::collections::BTreeSet;

use devenv_e2e::environment::Environment;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::Service,
    networking::v1::{Ingress, IngressBackend, IngressServiceBackend},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::wait::await_condition,
};

use crate::error::CliError;

const CANARY: &str = "nginx.ingress.kubernetes.io/canary";
/// At the end of the names of the Ingresses that take the places of others.
const PINNED: &str = "-pinned";

/// Sends all that the Ingress splits among the backends in `both` to the one of them that
/// is called `to`: a Service, or the Deployment behind one.
///
/// # Errors
/// If no Ingress leads to one of them, and what the API says.
pub async fn pin(environment: &Environment, to: &str, both: &[String; 2]) -> Result<(), CliError> {
    let (client, namespace) = (&environment.client, &environment.namespace);
    let ingresses: Api<Ingress> = Api::namespaced(client.clone(), namespace);
    let all = ingresses.list(&ListParams::default()).await?.items;
    let mut services = [String::new(), String::new()];
    for (service, name) in services.iter_mut().zip(both) {
        *service = resolve(environment, &all, name).await?;
    }
    let chosen = match to == both[0] {
        true => &services[0],
        false => &services[1],
    };
    let backend = all.iter().flat_map(backends).find(|b| b.name == *chosen);
    let backend = backend.cloned().unwrap_or_default();
    let mut made = Vec::new();
    for ingress in all.iter().filter(|i| leads_to(i, &services)) {
        ingresses
            .delete(&ingress.name_any(), &DeleteParams::default())
            .await?;
        if let Some(pinned) = pinned(ingress, &services, &backend) {
            ingresses.create(&PostParams::default(), &pinned).await?;
            made.push(pinned.name_any());
        }
    }
    for name in made {
        // Its address is told when the routes are in force, those before it as well.
        let routed = await_condition(ingresses.clone(), &name, |ingress: Option<&Ingress>| {
            let status = ingress.and_then(|i| i.status.as_ref()?.load_balancer.as_ref());
            status.is_some_and(|balancer| balancer.ingress.iter().flatten().next().is_some())
        });
        routed
            .await
            .map_err(|e| CliError::Check(format!("can't watch the Ingress {name}: {e}")))?;
    }
    Ok(())
}

/// The Service that a name means.
async fn resolve(
    environment: &Environment,
    all: &[Ingress],
    name: &str,
) -> Result<String, CliError> {
    let known: BTreeSet<&str> = all
        .iter()
        .flat_map(backends)
        .map(|b| b.name.as_str())
        .collect();
    if known.contains(name) {
        return Ok(name.to_owned());
    }
    let (client, namespace) = (&environment.client, &environment.namespace);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let template = deployments.get_opt(name).await?.and_then(|d| d.spec);
    let labels = template
        .and_then(|spec| spec.template.metadata)
        .and_then(|metadata| metadata.labels)
        .unwrap_or_default();
    for service in services.list(&ListParams::default()).await? {
        let selector = service.spec.as_ref().and_then(|s| s.selector.clone());
        let selects = selector.is_some_and(|selector| {
            !selector.is_empty() && selector.iter().all(|(k, v)| labels.get(k) == Some(v))
        });
        if selects && known.contains(service.name_any().as_str()) {
            return Ok(service.name_any());
        }
    }
    Err(CliError::NoBackend {
        name: name.to_owned(),
        known: known.into_iter().map(str::to_owned).collect(),
    })
}

fn backends(ingress: &Ingress) -> impl Iterator<Item = &IngressServiceBackend> {
    let spec = ingress.spec.iter();
    let rules = spec.clone().flat_map(|spec| spec.rules.iter().flatten());
    let paths = rules.flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths));
    let default = spec.filter_map(|spec| spec.default_backend.as_ref());
    default
        .chain(paths.map(|path| &path.backend))
        .filter_map(|backend| backend.service.as_ref())
}

fn leads_to(ingress: &Ingress, services: &[String; 2]) -> bool {
    backends(ingress).any(|backend| services.contains(&backend.name))
}

/// The Ingress with `backend` in the place of each of the services; nothing of a canary,
/// which only takes a share of what another one has.
fn pinned(
    ingress: &Ingress,
    services: &[String; 2],
    backend: &IngressServiceBackend,
) -> Option<Ingress> {
    let old = &ingress.metadata;
    let annotation = old.annotations.as_ref().and_then(|a| a.get(CANARY));
    if annotation.is_some_and(|value| value == "true") {
        return None;
    }
    let mut new = Ingress {
        metadata: Default::default(),
        spec: ingress.spec.clone(),
        status: None,
    };
    new.metadata.name = Some(format!("{}{PINNED}", ingress.name_any()));
    new.metadata.namespace.clone_from(&old.namespace);
    new.metadata.labels.clone_from(&old.labels);
    new.metadata.annotations.clone_from(&old.annotations);
    let replace = |at: &mut IngressBackend| {
        if at
            .service
            .as_ref()
            .is_some_and(|s| services.contains(&s.name))
        {
            at.service = Some(backend.clone());
        }
    };
    let spec = new.spec.as_mut()?;
    spec.default_backend.iter_mut().for_each(replace);
    let rules = spec.rules.iter_mut().flatten();
    let paths = rules.flat_map(|rule| rule.http.iter_mut().flat_map(|http| &mut http.paths));
    paths.for_each(|path| replace(&mut path.backend));
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ingress(name: &str, canary: Option<&str>, services: &[(&str, u16)]) -> Ingress {
        let paths: Vec<_> = services
            .iter()
            .map(|(name, port)| {
                json!({"path": format!("/{name}"), "pathType": "Prefix",
                    "backend": {"service": {"name": name, "port": {"number": port}}}})
            })
            .collect();
        let mut metadata = json!({"name": name, "namespace": "n", "resourceVersion": "7"});
        if let Some(value) = canary {
            metadata["annotations"] = json!({ CANARY: value, "other": "kept" });
        }
        serde_json::from_value(json!({
            "metadata": metadata, "spec": {"rules": [{"http": {"paths": paths}}]}
        }))
        .unwrap()
    }

    #[test]
    fn both_sides_of_a_split_lead_to_one() {
        let both = ["a".to_owned(), "b".to_owned()];
        let main = ingress("main", Some("false"), &[("a", 1), ("c", 3)]);
        let canary = ingress("canary", Some("true"), &[("b", 2)]);
        assert!(leads_to(&main, &both) && leads_to(&canary, &both));
        assert!(!leads_to(&ingress("other", None, &[("c", 3)]), &both));
        let b = backends(&canary).next().unwrap();
        assert_eq!(pinned(&canary, &both, b), None, "it is gone");
        let pinned = pinned(&main, &both, b).unwrap();
        assert_eq!(pinned.name_any(), "main-pinned");
        assert_eq!(pinned.metadata.resource_version, None);
        assert_eq!(pinned.annotations()["other"], "kept");
        let to: Vec<_> = backends(&pinned)
            .map(|s| (s.name.as_str(), s.port.as_ref().unwrap().number.unwrap()))
            .collect();
        assert_eq!(to, [("b", 2), ("c", 3)]);
    }
}
