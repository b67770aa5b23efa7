//! What a pod's `resources` come to for the kernel. Pure.
//!
//! Source: kubelet's `pkg/kubelet/cm/helpers_linux.go`; a request that is not
//! given is the limit.

use std::collections::BTreeMap;

use devenv_sandbox::Limits;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Processes and threads of a pod at most: a fork bomb ends there. Kubernetes
/// sets it per node (`podPidsLimit`).
const PIDS: u64 = 4096;

/// The limits of one container.
pub(crate) fn of_container(container: &Container) -> Limits {
    let resources = container.resources.as_ref();
    Limits {
        cpu: resources.and_then(|r| get(r.limits.as_ref(), "cpu", Unit::Thousandth)),
        cpu_request: Some(cpu_request(resources)),
        memory: resources.and_then(|r| get(r.limits.as_ref(), "memory", Unit::One)),
        pids: None,
    }
}

/// The limits of all containers together.
pub(crate) fn of_pod(spec: &PodSpec) -> Limits {
    let request = |container: &Container| cpu_request(container.resources.as_ref());
    let init = spec.init_containers.iter().flatten();
    let (beside, before): (Vec<_>, Vec<_>) =
        init.partition(|c| c.restart_policy.as_deref() == Some("Always"));
    let together: u64 = spec.containers.iter().chain(beside).map(request).sum();
    let largest = before.into_iter().map(request).max().unwrap_or(0);
    let own = spec.resources.as_ref();
    Limits {
        cpu: own.and_then(|r| get(r.limits.as_ref(), "cpu", Unit::Thousandth)),
        cpu_request: Some(match own {
            Some(own) => cpu_request(Some(own)),
            None => together.max(largest),
        }),
        memory: own.and_then(|r| get(r.limits.as_ref(), "memory", Unit::One)),
        pids: Some(PIDS),
    }
}

fn cpu_request(resources: Option<&ResourceRequirements>) -> u64 {
    let of = |list| get(list, "cpu", Unit::Thousandth);
    resources
        .and_then(|r| of(r.requests.as_ref()).or_else(|| of(r.limits.as_ref())))
        .unwrap_or(0)
}

fn get(list: Option<&BTreeMap<String, Quantity>>, name: &str, unit: Unit) -> Option<u64> {
    list?
        .get(name)
        .and_then(|quantity| count(&quantity.0, unit))
}

/// A quantity of bytes, rounded up; `None` when the text is no quantity.
pub fn bytes(quantity: &str) -> Option<u64> {
    count(quantity, Unit::One)
}

/// A quantity of CPUs in thousandths, likewise.
pub fn milli_cpus(quantity: &str) -> Option<u64> {
    count(quantity, Unit::Thousandth)
}

/// A quantity of CPUs in billionths, likewise.
pub fn nano_cpus(quantity: &str) -> Option<u64> {
    count(quantity, Unit::Billionth)
}

/// In what a quantity is counted.
#[derive(Debug, Clone, Copy)]
enum Unit {
    One,
    Thousandth,
    Billionth,
}

/// A quantity such as `500m`, `1.5`, `128Mi` or `1e3`, rounded up. What is not
/// a quantity was refused when the object was made.
fn count(text: &str, unit: Unit) -> Option<u64> {
    let text = text.trim().trim_start_matches('+');
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let decimals = i32::try_from(fraction.len()).ok()?;
    // digits × binary × 10^exponent
    let (binary, exponent): (u128, i32) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let exponent = exponent.checked_sub(decimals)?
        + match unit {
            Unit::One => 0,
            Unit::Thousandth => 3,
            Unit::Billionth => 9,
        };
    let value = digits.checked_mul(binary)?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs());
    let value = if exponent >= 0 {
        value.checked_mul(power?)?
    } else {
        // Too small to count is one of it.
        power.map_or(u128::from(value > 0), |power| value.div_ceil(power))
    };
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[rstest]
    #[case("500m", Some(500), Some(1))]
    #[case("1", Some(1000), Some(1))]
    #[case("1.5", Some(1500), Some(2))]
    #[case("0.1", Some(100), Some(1))]
    #[case("100n", Some(1), Some(1))]
    #[case("0", Some(0), Some(0))]
    #[case("2e3", Some(2_000_000), Some(2000))]
    #[case("128Mi", Some(134_217_728_000), Some(134_217_728))]
    #[case("0.5Gi", Some(536_870_912_000), Some(536_870_912))]
    #[case("1G", Some(1_000_000_000_000), Some(1_000_000_000))]
    #[case("1e-99", Some(1), Some(1))]
    #[case("99999999999Ei", None, None)]
    #[case("1e99", None, None)]
    #[case("-1", None, None)]
    #[case("much", None, None)]
    #[case("", None, None)]
    fn quantities(#[case] text: &str, #[case] thousandths: Option<u64>, #[case] ones: Option<u64>) {
        assert_eq!(
            (count(text, Unit::Thousandth), count(text, Unit::One)),
            (thousandths, ones)
        );
    }

    #[rstest]
    #[case("0", Some(0))]
    #[case("1234567n", Some(1_234_567))]
    #[case("15u", Some(15_000))]
    #[case("250m", Some(250_000_000))]
    #[case("1.5", Some(1_500_000_000))]
    #[case("0.1n", Some(1))]
    #[case("1n1", None)]
    fn billionths(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(nano_cpus(text), expected);
    }

    #[rstest]
    #[case::none(json!({}), None, 0, None)]
    #[case::both(json!({"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "250m"}}), Some(1000), 250, Some(64 << 20))]
    #[case::a_limit_is_a_request(json!({"limits": {"cpu": 2}}), Some(2000), 2000, None)]
    fn a_container(
        #[case] resources: Value,
        #[case] cpu: Option<u64>,
        #[case] cpu_request: u64,
        #[case] memory: Option<u64>,
    ) {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "resources": stringly(resources)}))
                .expect("a container");
        let expected = Limits {
            cpu,
            cpu_request: Some(cpu_request),
            memory,
            pids: None,
        };
        assert_eq!(of_container(&container), expected);
    }

    /// As the API stores quantities.
    fn stringly(mut resources: Value) -> Value {
        for list in resources.as_object_mut().into_iter().flatten() {
            for (_, quantity) in list.1.as_object_mut().into_iter().flatten() {
                if let Value::Number(n) = quantity {
                    *quantity = Value::String(n.to_string());
                }
            }
        }
        resources
    }

    #[rstest]
    #[case::together(json!([]), Value::Null, 300, None)]
    #[case::a_large_init_container(json!([{"name": "i", "resources": {"requests": {"cpu": "1"}}}]), Value::Null, 1000, None)]
    #[case::a_sidecar(json!([{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}]), Value::Null, 1300, None)]
    #[case::the_pods_own(json!([]), json!({"limits": {"cpu": "1", "memory": "1Ki"}}), 1000, Some(1024))]
    fn a_pod(
        #[case] init: Value,
        #[case] own: Value,
        #[case] cpu_request: u64,
        #[case] memory: Option<u64>,
    ) {
        let spec: PodSpec = serde_json::from_value(json!({
            "resources": own,
            "initContainers": init,
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "b", "resources": {"requests": {"cpu": "200m"}}},
            ],
        }))
        .expect("a pod");
        let limits = of_pod(&spec);
        assert_eq!(
            (limits.cpu_request, limits.memory, limits.pids),
            (Some(cpu_request), memory, Some(4096))
        );
    }
}
