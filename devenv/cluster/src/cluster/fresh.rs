//! Making an old store fit for a new run.

use serde_json::json;

use crate::controllers::endpoints::SKIP_MIRROR;
use crate::controllers::endpointslice::{SERVICE_LABEL, is_ours};
use crate::controllers::node;
use crate::kinds;
use crate::net::well_known::{API_IN_CLUSTER, API_SERVICE};
use crate::store::{Store, StoreError};

/// Removes what died with the previous run: pods, and the endpoints that led to them. Their
/// controllers make new ones and compute every status anew. Ensures the Node, the IngressClass and
/// the API server's own Service, which are always there.
///
/// # Errors
/// When the store refuses a write.
pub(super) fn prepare(store: &Store) -> Result<(), StoreError> {
    for pod in store.list(&kinds::POD, None).0 {
        store.delete(&kinds::POD, pod.namespace(), pod.name())?;
    }
    for slice in store.list(&kinds::ENDPOINT_SLICE, None).0 {
        if is_ours(&slice) {
            store.delete(&kinds::ENDPOINT_SLICE, slice.namespace(), slice.name())?;
        }
    }
    // Clients wait for these: they must not believe what was true in the previous run.
    for kind in [
        &kinds::DEPLOYMENT,
        &kinds::REPLICA_SET,
        &kinds::KNATIVE_SERVICE,
        &kinds::INGRESS,
    ] {
        for object in store.list(kind, None).0 {
            store.update_status(kind, object.namespace(), object.name(), json!({}))?;
        }
    }
    node::ensure(store)?;
    ensure_master(store)?;
    let class = json!({
        "metadata": {"name": "nginx", "labels": {"app.kubernetes.io/managed-by": "devenv"}},
        "spec": {"controller": "k8s.io/ingress-nginx"},
    });
    match store.create(&kinds::INGRESS_CLASS, class) {
        Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// `kubernetes.default`: the API server as pods reach it.
fn ensure_master(store: &Store) -> Result<(), StoreError> {
    let metadata = json!({
        "name": "kubernetes",
        "namespace": "default",
        "labels": {"component": "apiserver", "provider": "kubernetes"},
    });
    let port = json!({
        "name": "https",
        "port": 443,
        "protocol": "TCP",
        "targetPort": API_IN_CLUSTER.port(),
    });
    let service = json!({
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP",
            "clusterIP": API_SERVICE.to_string(),
            "clusterIPs": [API_SERVICE.to_string()],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [port],
            "sessionAffinity": "None",
        },
        "status": {"loadBalancer": {}},
    });
    let slice = json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {SERVICE_LABEL: "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [API_IN_CLUSTER.ip().to_string()],
            "conditions": {"ready": true},
        }],
        "ports": [{"name": "https", "port": API_IN_CLUSTER.port(), "protocol": "TCP"}],
    });
    let endpoints = json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {SKIP_MIRROR: "true"},
        },
        "subsets": [{
            "addresses": [{"ip": API_IN_CLUSTER.ip().to_string()}],
            "ports": [{"name": "https", "port": API_IN_CLUSTER.port(), "protocol": "TCP"}],
        }],
    });
    for (kind, object) in [
        (&kinds::ENDPOINTS, endpoints),
        (&kinds::SERVICE, service),
        (&kinds::ENDPOINT_SLICE, slice),
    ] {
        match store.create(kind, object) {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_go_and_what_others_wrote_stays() {
        let store = Store::in_memory();
        let put = |kind, name: &str, labels| {
            store
                .create(
                    kind,
                    json!({"metadata": {"name": name, "namespace": "default", "labels": labels}}),
                )
                .expect("created");
        };
        put(&kinds::POD, "p", json!({}));
        put(&kinds::CONFIG_MAP, "c", json!({}));
        put(&kinds::DEPLOYMENT, "d", json!({}));
        store
            .update_status(
                &kinds::DEPLOYMENT,
                "default",
                "d",
                json!({"availableReplicas": 2}),
            )
            .expect("written");
        put(
            &kinds::ENDPOINT_SLICE,
            "db",
            json!({"kubernetes.io/service-name": "cloudsql"}),
        );
        put(
            &kinds::ENDPOINT_SLICE,
            "web",
            json!({"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}),
        );
        prepare(&store).expect("prepared");
        prepare(&store).expect("twice is fine");
        let count = |kind| store.list(kind, None).0.len();
        assert_eq!(
            (
                count(&kinds::POD),
                count(&kinds::CONFIG_MAP),
                count(&kinds::NODE),
                count(&kinds::INGRESS_CLASS)
            ),
            (0, 1, 1, 1)
        );
        let deployment = store
            .get(&kinds::DEPLOYMENT, "default", "d")
            .expect("stays");
        assert_eq!(deployment.value()["status"], json!({}));
        let slices: Vec<String> = store
            .list(&kinds::ENDPOINT_SLICE, None)
            .0
            .iter()
            .map(|s| s.name().to_owned())
            .collect();
        assert_eq!(slices, ["db", "kubernetes"]);
    }
}
