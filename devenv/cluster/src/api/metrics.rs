//! `metrics.k8s.io/v1beta1`: what pods and the Node use, as metrics-server serves it to
//! `kubectl top`. Nothing of it is stored: it is measured when it is asked for.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Context,
    body::ApiBody,
    call::Call,
    list::Selection,
    render::{self, ListMeta},
    status::Failure,
};
use crate::{
    kinds::{self, KindRef},
    store::{self, Object},
};

/// What something used, measured over a window that ended at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// The window's end.
    pub timestamp: jiff::Timestamp,
    /// Its length.
    pub window: Duration,
    /// CPU usage over the window, in billionths of a CPU.
    pub nanocores: u64,
    /// The working set at the window's end, in bytes.
    pub memory: u64,
}

/// A container's usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerMetrics {
    /// Its name in the pod.
    pub name: String,
    /// What it used.
    pub measured: Measured,
}

/// Measures; implemented by whatever runs the pods.
#[async_trait]
pub trait MetricsSource: Send + Sync {
    /// The usage of each running container of these pods, by the pods' uids. Pods of which no
    /// container runs are left out, and those that can't be measured as a whole.
    async fn pods(&self, uids: &[String]) -> HashMap<String, Vec<ContainerMetrics>>;
    /// The usage of the machine behind a Node; `None` when that is not this one, or unknown.
    async fn node(&self, name: &str) -> Option<Measured>;
}

/// Answers for the kinds of [`kinds::MEASURED`].
pub(super) async fn answer(
    ctx: &Context,
    method: &str,
    call: &Call,
) -> Result<Response<ApiBody>, Failure> {
    let kind = call.kind();
    if call.target.subresource.is_some() {
        return Err(Failure::no_such_resource());
    }
    if method != "GET" || call.query.flag("watch") {
        return Err(Failure::method_not_allowed());
    }
    let of = if *kind == kinds::NODE_METRICS {
        &kinds::NODE
    } else {
        &kinds::POD
    };
    let selection = Selection::of_kind(call, of)?;
    let Some(name) = call.target.name.as_deref() else {
        let (objects, _) = selection.list(ctx, of);
        let values = measured(ctx, kind, &objects).await;
        return Ok(render::values(
            call.form,
            kind,
            values.iter(),
            &ListMeta::default(),
        ));
    };
    let missing = || Failure::not_found(kind, name);
    let object = ctx.store.get(of, call.namespace(), name);
    let object = object.ok_or_else(missing)?;
    let values = measured(ctx, kind, &[object]).await;
    let value = values.first().ok_or_else(missing)?;
    Ok(render::object(call.form, StatusCode::OK, kind, value))
}

/// The objects that could be measured, in their order.
async fn measured(ctx: &Context, kind: KindRef, objects: &[Arc<Object>]) -> Vec<Value> {
    if *kind == kinds::NODE_METRICS {
        let mut values = Vec::new();
        for node in objects {
            if let Some(measured) = ctx.metrics.node(node.name()).await {
                values.push(of_node(node.value(), &measured));
            }
        }
        return values;
    }
    let uids: Vec<String> = objects.iter().map(|pod| pod.uid().to_owned()).collect();
    let mut known = ctx.metrics.pods(&uids).await;
    let of = |pod: &Arc<Object>| of_pod(pod.value(), &known.remove(pod.uid())?);
    objects.iter().filter_map(of).collect()
}

fn of_node(node: &Value, measured: &Measured) -> Value {
    let mut value = head(&kinds::NODE_METRICS, node, measured);
    value["usage"] = usage(measured);
    value
}

/// `None` without a container. Of several containers' times the earliest is told, as
/// metrics-server does.
fn of_pod(pod: &Value, containers: &[ContainerMetrics]) -> Option<Value> {
    let earliest = containers.iter().min_by_key(|c| c.measured.timestamp)?;
    let mut value = head(&kinds::POD_METRICS, pod, &earliest.measured);
    let containers = containers
        .iter()
        .map(|c| json!({"name": c.name, "usage": usage(&c.measured)}));
    value["containers"] = containers.collect();
    Some(value)
}

/// All but the usage. The object's age is its own: it was made just now.
fn head(kind: KindRef, of: &Value, measured: &Measured) -> Value {
    let mut metadata = json!({
        "name": of["metadata"]["name"],
        "creationTimestamp": store::timestamp(jiff::Timestamp::now()),
    });
    for field in ["namespace", "labels"] {
        if !of["metadata"][field].is_null() {
            metadata[field] = of["metadata"][field].clone();
        }
    }
    json!({
        "kind": kind.kind,
        "apiVersion": kind.api_version(),
        "metadata": metadata,
        "timestamp": store::timestamp(measured.timestamp),
        "window": duration(measured.window),
    })
}

/// As quantities, in the units of metrics-server.
fn usage(measured: &Measured) -> Value {
    let cpu = match measured.nanocores {
        0 => "0".to_owned(),
        nanocores => format!("{nanocores}n"),
    };
    json!({"cpu": cpu, "memory": format!("{}Ki", measured.memory / 1024)})
}

/// As Go reads and writes a duration, to the millisecond.
fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis().max(1);
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let (minutes, seconds) = (milliseconds / 60_000, milliseconds % 60_000);
    let minutes = match minutes {
        0 => String::new(),
        minutes => format!("{minutes}m"),
    };
    let fraction = format!(".{:03}", seconds % 1000);
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{minutes}{}{fraction}s", seconds / 1000)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn at(second: i64, nanocores: u64, memory: u64) -> Measured {
        Measured {
            timestamp: jiff::Timestamp::from_second(second).unwrap(),
            window: Duration::from_millis(250),
            nanocores,
            memory,
        }
    }

    #[rstest]
    #[case(0, 0, "0", "0Ki")]
    #[case(1, 1023, "1n", "0Ki")]
    #[case(1_234_567, 12_345 * 1024 + 7, "1234567n", "12345Ki")]
    #[case(2_000_000_000, 1 << 40, "2000000000n", "1073741824Ki")]
    #[case(u64::MAX, u64::MAX, "18446744073709551615n", "18014398509481983Ki")]
    fn quantities(
        #[case] nanocores: u64,
        #[case] memory: u64,
        #[case] cpu: &str,
        #[case] kibibytes: &str,
    ) {
        assert_eq!(
            usage(&at(0, nanocores, memory)),
            json!({"cpu": cpu, "memory": kibibytes})
        );
    }

    #[rstest]
    #[case(0, "1ms")]
    #[case(250, "250ms")]
    #[case(1000, "1s")]
    #[case(10_062, "10.062s")]
    #[case(15_500, "15.5s")]
    #[case(60_000, "1m0s")]
    #[case(75_020, "1m15.02s")]
    fn durations(#[case] milliseconds: u64, #[case] wanted: &str) {
        assert_eq!(duration(Duration::from_millis(milliseconds)), wanted);
    }

    #[test]
    fn a_pod_is_told_as_metrics_server_does() {
        let pod = json!({"metadata": {"name": "p", "namespace": "x", "labels": {"app": "web"}, "uid": "u"}});
        let container = |name: &str, measured| ContainerMetrics {
            name: name.to_owned(),
            measured,
        };
        let containers = [
            container("a", at(20, 5, 2048)),
            container("b", at(10, 6, 1024)),
        ];
        let mut value = of_pod(&pod, &containers).unwrap();
        value["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("creationTimestamp")
            .unwrap();
        assert_eq!(
            value,
            json!({
                "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {"name": "p", "namespace": "x", "labels": {"app": "web"}},
                "timestamp": "1970-01-01T00:00:10Z", "window": "250ms",
                "containers": [
                    {"name": "a", "usage": {"cpu": "5n", "memory": "2Ki"}},
                    {"name": "b", "usage": {"cpu": "6n", "memory": "1Ki"}},
                ],
            })
        );
        assert_eq!(of_pod(&pod, &[]), None);
    }
}
