//! Making the application's Service lead to the database, while both come, go and change.

use std::{fmt::Debug, net::Ipv4Addr};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::{EndpointPort, EndpointSlice},
};
use kube::{
    Api, Client,
    api::{ListParams, LogParams},
    runtime::{WatchStreamExt, watcher},
};

use serde::de::DeserializeOwned;

use super::{NAMESPACE, endpoint_ports, endpoint_slice, endpoints};
use crate::{kubernetes::apply, target::TargetError};

/// How often the database's server may end before it has answered once.
const DATABASE_TRIES: i32 = 3;
/// Its pod.
const OF_DATABASE: &str = "devenv.dev/role=database";

/// Where the database is, and whether it answers there; `None` while it is nowhere.
pub(crate) type Place = Option<(Ipv4Addr, bool)>;

/// What leads from a Service without a selector to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `discovery.k8s.io/v1`, since Kubernetes 1.21.
    EndpointSlice,
    /// The Endpoints of the Service's name, as every version has them; the cluster itself
    /// makes slices of them (EndpointSliceMirroring).
    Endpoints,
}

/// What a watch tells of the way to the database.
enum Seen {
    Place(Place),
    /// It will not come: why.
    GivenUp(String),
    Service(Box<Service>),
    Other,
}

/// Where the database's pod is, now and whenever that may have changed; and that its
/// server has ended too often.
pub(crate) fn pod(
    client: &Client,
) -> impl Stream<Item = Result<Place, String>> + Send + 'static + use<> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let of_database = watcher::Config::default().labels(OF_DATABASE);
    let events = watcher(pods.clone(), of_database).default_backoff();
    let seen = events.then(move |event| {
        let pods = pods.clone();
        async move {
            let mut seen = Vec::new();
            match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    seen.extend(given_up(&pods, &pod).await.map(Err));
                }
                Ok(_) => {}
                Err(e) => {
                    tracing::debug!(error = %e, "watching the database's pod");
                    return seen;
                }
            }
            seen.extend(database_pod(&pods).await.map(Ok));
            seen
        }
    });
    seen.flat_map(stream::iter)
}

/// Makes the application's selectorless Service lead to the database, by whichever ports
/// the Service has, for as long as the cluster runs. Returns when that is so for the first
/// time by all ports of `wanted`: the database is ready, and the Service is as the project
/// says it. Fails when it is given up before that.
pub(crate) async fn database(
    client: Client,
    namespace: String,
    service: String,
    wanted: Service,
    places: impl Stream<Item = Result<Place, String>> + Send + 'static,
    way: Way,
) -> Result<(), TargetError> {
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let (ready_tx, ready_rx) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut ready_tx = Some(ready_tx);
        let mut found = None;
        let mut place = None;
        let mut known = None;
        let of_that_name = watcher::Config::default().fields(&format!("metadata.name={service}"));
        let places = places.map(|place| {
            Ok(match place {
                Ok(place) => Seen::Place(place),
                Err(reason) => Seen::GivenUp(reason),
            })
        });
        let mut events = std::pin::pin!(stream::select(
            places,
            seen(services, of_that_name, Seen::Service),
        ));
        while let Some(event) = events.next().await {
            match event {
                Ok(Seen::Place(now)) => place = Some(now),
                Ok(Seen::GivenUp(reason)) => {
                    if let Some(tx) = ready_tx.take() {
                        let _ = tx.send(Err(reason));
                    }
                }
                Ok(Seen::Service(now)) => found = Some(now),
                Ok(Seen::Other) => {}
                Err(e) => {
                    tracing::debug!(error = %e, "watching the database's Service");
                    continue;
                }
            }
            let (Some(found), Some(place)) = (&found, place) else {
                continue;
            };
            let now = (place, endpoint_ports(found));
            if known.as_ref() != Some(&now) {
                let written = write(&client, &namespace, &service, &now.1, place, way);
                if let Err(e) = written.await {
                    // Also the ordinary end: the pod goes, and the API with it.
                    tracing::debug!(error = %e, service, "the database's endpoints could not be written");
                    continue;
                }
                known = Some(now);
            }
            if matches!(place, Some((_, true)))
                && has_ports_of(found, &wanted)
                && let Some(tx) = ready_tx.take()
            {
                // The receiver is gone only when `up` was given up meanwhile.
                let _ = tx.send(Ok(()));
            }
        }
    });
    ready_rx
        .await
        .unwrap_or_else(|_| Err("it is no longer watched".to_owned()))
        .map_err(|reason| TargetError::Database { reason })
}

/// Makes the Service lead to `place`.
async fn write(
    client: &Client,
    namespace: &str,
    service: &str,
    ports: &[EndpointPort],
    place: Place,
    way: Way,
) -> Result<(), kube::Error> {
    match way {
        Way::EndpointSlice => {
            let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
            let slice = endpoint_slice(namespace, service, ports, place);
            let name = format!("{service}-devenv");
            apply(&slices, &name, &slice).await.map(drop)
        }
        Way::Endpoints => {
            let all: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
            let object = endpoints(namespace, service, ports, place);
            apply(&all, service, &object).await.map(drop)
        }
    }
}

/// What a watch of one kind tells.
fn seen<K>(
    api: Api<K>,
    config: watcher::Config,
    is: fn(Box<K>) -> Seen,
) -> impl Stream<Item = Result<Seen, watcher::Error>> + Send
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    watcher(api, config)
        .default_backoff()
        .map_ok(move |event| match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                is(Box::new(object))
            }
            _ => Seen::Other,
        })
}

/// Whether a Service has all ports that another one is to have. That of an earlier run,
/// which is in the store from the start, may have had others.
fn has_ports_of(service: &Service, wanted: &Service) -> bool {
    let ports = |service: &Service| -> Vec<(String, i32)> {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        ports
            .into_iter()
            .flatten()
            .map(|port| (port.name.clone().unwrap_or_default(), port.port))
            .collect()
    };
    let has = ports(service);
    ports(wanted).iter().all(|port| has.contains(port))
}

/// Why a database that was never ready won't be: its server ended again and again.
async fn given_up(pods: &Api<Pod>, pod: &Pod) -> Option<String> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    if container.restart_count < DATABASE_TRIES {
        return None;
    }
    let ended = container
        .last_state
        .as_ref()
        .and_then(|s| s.terminated.as_ref())
        .map(|t| format!(", last with exit code {}", t.exit_code))
        .unwrap_or_default();
    let mut reason = format!("its server ended {} times{ended}", container.restart_count);
    let params = LogParams {
        tail_lines: Some(10),
        previous: true,
        ..LogParams::default()
    };
    let name = pod.metadata.name.as_deref()?;
    for line in pods.logs(name, &params).await.unwrap_or_default().lines() {
        reason.push_str("\n    ");
        reason.push_str(line);
    }
    Some(reason)
}

/// The address and readiness of the database's pod; the outer `None` when the API
/// did not answer.
async fn database_pod(pods: &Api<Pod>) -> Option<Place> {
    let params = ListParams::default().labels(OF_DATABASE);
    let list = pods.list(&params).await.ok()?;
    let best = list
        .items
        .iter()
        .filter(|p| p.metadata.deletion_timestamp.is_none())
        .filter_map(|p| {
            let status = p.status.as_ref()?;
            let ip = status.pod_ip.as_ref()?.parse().ok()?;
            let ready = status
                .conditions
                .iter()
                .flatten()
                .any(|c| c.type_ == "Ready" && c.status == "True");
            Some((ip, ready))
        })
        .max_by_key(|(_, ready)| *ready);
    Some(best)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn service(ports: &Value) -> Service {
        serde_json::from_value(json!({"metadata": {}, "spec": {"ports": ports}})).unwrap()
    }

    #[rstest]
    #[case::the_same(json!([{"port": 3306, "protocol": "TCP", "targetPort": 3306}]), true)]
    #[case::a_name_in_vain(json!([{"name": "", "port": 3306}]), true)]
    #[case::another_name(json!([{"name": "mysql", "port": 3306}]), false)]
    #[case::another_number(json!([{"port": 13306}]), false)]
    #[case::one_more(json!([{"port": 3306}, {"name": "by-hand", "port": 1}]), true)]
    #[case::none(json!(null), false)]
    fn an_earlier_service_is_told_by_its_ports(#[case] has: Value, #[case] want: bool) {
        let wanted = service(&json!([{"port": 3306}]));
        assert_eq!(has_ports_of(&service(&has), &wanted), want);
    }
}
