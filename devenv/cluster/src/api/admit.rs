//! From what a client sent to what is stored: types, defaults, checks, addresses.
//!
//! [`create`] is what controllers call, so that the objects that they make are as complete as those
//! that come through HTTP.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    clusterip, defaults, nodeport,
    status::{Cause, Failure},
    typed, validate,
};
use crate::{
    kinds::{self, KindRef},
    store::{Object, Store},
};

/// Creates an object as the API does: checked against its type, with its defaults, a Service with
/// its ClusterIP. Does not wait for the disk.
///
/// # Errors
/// What a client would be answered.
pub fn create(store: &Store, kind: KindRef, mut value: Value) -> Result<Arc<Object>, Failure> {
    typed(kind, &mut value)?;
    prepare_new(kind, &mut value)?;
    check_namespace(store, kind, &value)?;
    store_new(store, kind, value)
}

/// Checks against the type; returns the fields that were dropped because the type has no such.
pub(super) fn typed(kind: KindRef, value: &mut Value) -> Result<Vec<String>, Failure> {
    if !value.is_object() {
        return Err(wrong_form(kind, "an object is expected"));
    }
    for map in ["metadata", "spec", "status"] {
        if value
            .get(map)
            .is_some_and(|m| !m.is_object() && !m.is_null())
        {
            return Err(wrong_form(kind, &format!("{map}: an object is expected")));
        }
    }
    if value["metadata"].is_null() {
        value["metadata"] = json!({});
    }
    typed::normalize(kind, value).map_err(|e| wrong_form(kind, &e.to_string()))
}

fn wrong_form(kind: KindRef, why: &str) -> Failure {
    let (kind, version) = (kind.kind, kind.version);
    Failure::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
    ))
}

/// A namespaced object needs a namespace that is there and stays.
pub(super) fn check_namespace(store: &Store, kind: KindRef, value: &Value) -> Result<(), Failure> {
    if !kind.namespaced {
        return Ok(());
    }
    let metadata = &value["metadata"];
    let ns = metadata["namespace"].as_str().unwrap_or_default();
    let Some(namespace) = store.get(&kinds::NAMESPACE, "", ns) else {
        return Err(Failure::not_found(&kinds::NAMESPACE, ns));
    };
    if namespace.is_deleting() {
        let name = metadata["name"].as_str().unwrap_or_default();
        let why = format!(
            "unable to create new content in namespace {ns} because it is being terminated"
        );
        let cause = Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {ns} is being terminated"),
            field: "metadata.namespace".to_owned(),
        };
        return Err(Failure::forbidden(kind, name, &why, Some(cause)));
    }
    Ok(())
}

/// Completes and checks an object that is to be created.
pub(super) fn prepare_new(kind: KindRef, value: &mut Value) -> Result<(), Failure> {
    if kind.has_status && kind != &kinds::NODE {
        // What a client says about the status of something that is not there yet is not so.
        remove(value, "status");
    }
    defaults::apply(kind, value);
    if kind == &kinds::POD {
        value["status"] = json!({"phase": "Pending", "qosClass": qos_class(&value["spec"])});
    }
    refuse(kind, value, None)
}

fn refuse(kind: KindRef, new: &Value, old: Option<&Value>) -> Result<(), Failure> {
    let causes = validate::validate(kind, new, old);
    if causes.is_empty() {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    Err(Failure::invalid(kind, name, &causes))
}

fn remove(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(field);
    }
}

/// Stores a prepared object, a Service with an address of its own.
pub(super) fn store_new(
    store: &Store,
    kind: KindRef,
    mut value: Value,
) -> Result<Arc<Object>, Failure> {
    if kind != &kinds::SERVICE {
        return Ok(store.create(kind, value)?);
    }
    let _one_at_a_time = store.allocation();
    let (services, _) = store.list(kind, None);
    clusterip::assign(&services, &mut value)
        .and_then(|()| nodeport::assign(&services, &mut value))
        .map_err(|cause| {
            let name = value["metadata"]["name"].as_str().unwrap_or_default();
            Failure::invalid(kind, name, &[cause])
        })?;
    Ok(store.create(kind, value)?)
}

/// What part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All but the status.
    Main,
    /// The status alone.
    Status,
}

/// Completes and checks the new state of an object. `services` are all Services, for a Service that
/// needs an address only now.
pub(super) fn prepare_update(
    kind: KindRef,
    old: &Value,
    new: &mut Value,
    scope: Scope,
    services: &[Arc<Object>],
) -> Result<(), Failure> {
    if scope == Scope::Status {
        let status = new.get("status").cloned();
        let managed = new["metadata"]["managedFields"].clone();
        *new = old.clone();
        match status {
            Some(status) => new["status"] = status,
            None => remove(new, "status"),
        }
        if managed.is_array() {
            new["metadata"]["managedFields"] = managed;
        }
        return Ok(());
    }
    if kind.has_status {
        match old.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => remove(new, "status"),
        }
    }
    for field in ["name", "namespace"] {
        if new["metadata"][field] != old["metadata"][field]
            && let Some(was) = old["metadata"].get(field)
        {
            new["metadata"][field] = was.clone();
        }
    }
    defaults::apply(kind, new);
    if kind == &kinds::SERVICE {
        clusterip::keep(old, new);
        nodeport::keep(old, new);
        let refused = |cause| {
            let name = old["metadata"]["name"].as_str().unwrap_or_default();
            Failure::invalid(kind, name, &[cause])
        };
        if new["spec"]["clusterIP"].is_null() || new["spec"]["type"] == "ExternalName" {
            clusterip::assign(services, new).map_err(refused)?;
        }
        nodeport::assign(services, new).map_err(refused)?;
    }
    refuse(kind, new, Some(old))
}

/// Kubernetes' quality-of-service class of a pod.
fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for list in ["initContainers", "containers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            let (limits, requests) = (
                &container["resources"]["limits"],
                &container["resources"]["requests"],
            );
            for resource in ["cpu", "memory"] {
                any |= limits[resource].is_string() || requests[resource].is_string();
                guaranteed &=
                    limits[resource].is_string() && limits[resource] == requests[resource];
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{DEPLOYMENT, POD, SERVICE};

    #[test]
    fn controllers_create_complete_objects() {
        let store = Store::in_memory();
        let pod = json!({"metadata": {"generateName": "web-", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}});
        let pod = create(&store, &POD, pod).unwrap();
        assert!(pod.name().starts_with("web-") && pod.name().len() == 9);
        assert_eq!(pod.value()["spec"]["restartPolicy"], "Always");
        assert_eq!(
            pod.value()["status"],
            json!({"phase": "Pending", "qosClass": "BestEffort"})
        );
        let service = json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}});
        let service = create(&store, &SERVICE, service).unwrap();
        assert!(
            service.value()["spec"]["clusterIP"]
                .as_str()
                .unwrap()
                .starts_with("10.96.")
        );
    }

    #[test]
    fn namespaces_must_be_there_and_stay() {
        let store = Store::in_memory();
        let config = |ns: &str| json!({"metadata": {"name": "a", "namespace": ns}});
        let refused = create(&store, &kinds::CONFIG_MAP, config("nope")).unwrap_err();
        assert_eq!(refused.message, "namespaces \"nope\" not found");
        create(
            &store,
            &kinds::NAMESPACE,
            json!({"metadata": {"name": "x"}}),
        )
        .unwrap();
        create(&store, &kinds::CONFIG_MAP, config("x")).unwrap();
        store.mark_deleted(&kinds::NAMESPACE, "", "x", 0).unwrap();
        let refused = create(
            &store,
            &kinds::CONFIG_MAP,
            json!({"metadata": {"name": "b", "namespace": "x"}}),
        );
        let refused = refused.unwrap_err();
        assert_eq!((refused.code, refused.reason), (403, "Forbidden"));
    }

    #[test]
    fn updates_leave_the_other_half_alone() {
        let old =
            json!({"metadata": {"name": "d"}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let mut new =
            json!({"metadata": {"name": "d"}, "spec": {"replicas": 9}, "status": {"replicas": 7}});
        prepare_update(&DEPLOYMENT, &old, &mut new, Scope::Status, &[]).unwrap();
        assert_eq!(
            new,
            json!({"metadata": {"name": "d"}, "spec": {"replicas": 1}, "status": {"replicas": 7}})
        );
        let mut service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}, "status": {"x": 1}});
        let was = json!({"metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "clusterIP": "10.96.3.3",
            "clusterIPs": ["10.96.3.3"], "ports": [{"port": 2}]}, "status": {"loadBalancer": {}}});
        prepare_update(&SERVICE, &was, &mut service, Scope::Main, &[]).unwrap();
        assert_eq!(service["spec"]["clusterIP"], "10.96.3.3");
        assert_eq!(service["status"], json!({"loadBalancer": {}}));
    }

    #[test]
    fn classes_of_service() {
        let class =
            |resources: Value| qos_class(&json!({"containers": [{"resources": resources}]}));
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(
            class(json!({"requests": both, "limits": both})),
            "Guaranteed"
        );
    }
}
