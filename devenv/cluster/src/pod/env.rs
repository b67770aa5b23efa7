//! A container's environment and command line, as the kubelet makes them.
//!
//! Sources: kubelet `makeEnvironmentVariables`, `k8s.io/kubernetes/third_party/forked/golang/expansion`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::configs::Configs;
use crate::image::Image;

/// Facts of the running pod that `fieldRef` may ask for.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The pod's address; empty before it has one.
    pub pod_ip: String,
    /// The node's address.
    pub host_ip: String,
    /// The node's name.
    pub node: String,
    /// Variables that say where Services are: known to `$(NAME)`, set where nothing else sets them.
    pub services: Vec<(String, String)>,
}

/// Why an environment cannot be made; becomes the message of `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EnvError(pub String);

/// Variables of `container` in order (later ones win), without the image's own.
///
/// # Errors
/// A ConfigMap, Secret, key or field that is referred to, is not optional and is not there.
pub fn environment(
    pod: &Pod,
    container: &Container,
    configs: &dyn Configs,
    facts: &Facts,
) -> Result<Vec<(String, String)>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut vars = Vars::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (what, name, optional, found) = if let Some(r) = &source.config_map_ref {
            (
                "configmap",
                &r.name,
                r.optional,
                configs.config_map(&r.name),
            )
        } else if let Some(r) = &source.secret_ref {
            ("secret", &r.name, r.optional, configs.secret(&r.name))
        } else {
            continue;
        };
        match found {
            Some(data) => {
                for (key, value) in data {
                    let text = String::from_utf8(value).map_err(|_| {
                        EnvError(format!(
                            "key {key:?} of {what} {name:?} is not text: mount it as a file instead of using envFrom"
                        ))
                    })?;
                    vars.set(&format!("{prefix}{key}"), text);
                }
            }
            None if optional.unwrap_or(false) => {}
            None => return Err(missing(what, name, namespace)),
        }
    }
    for var in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, var, configs, facts, &vars)? {
            vars.set(&var.name, value);
        }
    }
    for (name, value) in &facts.services {
        if vars.get(name).is_none() {
            vars.set(name, value.clone());
        }
    }
    Ok(vars.ordered)
}

/// The command line: `command` replaces ENTRYPOINT and CMD, `args` alone replace CMD.
///
/// `$(VAR)` is replaced from `env`, the container's own variables.
pub(crate) fn command_line(
    container: &Container,
    image: &Image,
    env: &[(String, String)],
) -> Vec<String> {
    let lookup: BTreeMap<&str, &str> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let find = |name: &str| lookup.get(name).map(|v| (*v).to_owned());
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words
            .iter()
            .flatten()
            .map(|word| expand(word, &find))
            .collect()
    };
    let command = expanded(&container.command);
    let args = expanded(&container.args);
    let argv = &image.run.argv;
    match (command.is_empty(), args.is_empty()) {
        (true, true) => argv.clone(),
        (true, false) => [&argv[..image.entrypoint], &args[..]].concat(),
        (false, _) => [command, args].concat(),
    }
}

/// Replaces `$(NAME)`: unknown names and incomplete references stay as they are, `$$` is a `$`.
pub fn expand(text: &str, find: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('(') {
            match tail.split_once(')') {
                Some((name, tail)) => {
                    match find(name) {
                        Some(value) => out.push_str(&value),
                        None => {
                            out.push_str("$(");
                            out.push_str(name);
                            out.push(')');
                        }
                    }
                    rest = tail;
                }
                None => {
                    out.push_str("$(");
                    rest = tail;
                }
            }
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[derive(Default)]
struct Vars {
    ordered: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Vars {
    fn set(&mut self, name: &str, value: String) {
        match self.index.get(name) {
            Some(&at) => self.ordered[at].1 = value,
            None => {
                self.index.insert(name.to_owned(), self.ordered.len());
                self.ordered.push((name.to_owned(), value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.index.get(name).map(|&at| self.ordered[at].1.clone())
    }
}

fn value_of(
    pod: &Pod,
    var: &EnvVar,
    configs: &dyn Configs,
    facts: &Facts,
    vars: &Vars,
) -> Result<Option<String>, EnvError> {
    let Some(source) = &var.value_from else {
        let text = var.value.as_deref().unwrap_or_default();
        let service = |name: &str| {
            let known = facts.services.iter().find(|(n, _)| n == name);
            known.map(|(_, value)| value.clone())
        };
        let find = |name: &str| vars.get(name).or_else(|| service(name));
        return Ok(Some(expand(text, &find)));
    };
    let EnvVarSource {
        config_map_key_ref,
        secret_key_ref,
        field_ref,
        resource_field_ref,
        ..
    } = source;
    if let Some(r) = config_map_key_ref {
        return key_of(
            pod,
            "configmap",
            &r.name,
            &r.key,
            r.optional,
            configs.config_map(&r.name),
        );
    }
    if let Some(r) = secret_key_ref {
        return key_of(
            pod,
            "secret",
            &r.name,
            &r.key,
            r.optional,
            configs.secret(&r.name),
        );
    }
    if let Some(r) = field_ref {
        return field(pod, r, facts).map(Some);
    }
    let kind = if resource_field_ref.is_some() {
        "resourceFieldRef"
    } else {
        "this valueFrom"
    };
    Err(EnvError(format!(
        "env {}: {kind} is not supported here; use value, configMapKeyRef, secretKeyRef or fieldRef",
        var.name
    )))
}

fn key_of(
    pod: &Pod,
    what: &str,
    name: &str,
    key: &str,
    optional: Option<bool>,
    data: Option<BTreeMap<String, Vec<u8>>>,
) -> Result<Option<String>, EnvError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let optional = optional.unwrap_or(false);
    let Some(mut data) = data else {
        return if optional {
            Ok(None)
        } else {
            Err(missing(what, name, namespace))
        };
    };
    match data.remove(key) {
        Some(value) => String::from_utf8(value).map(Some).map_err(|_| {
            EnvError(format!(
                "key {key} of {what} {namespace}/{name} is not text: mount it as a file"
            ))
        }),
        None if optional => Ok(None),
        None => {
            let kind = if what == "secret" {
                "Secret"
            } else {
                "ConfigMap"
            };
            Err(EnvError(format!(
                "couldn't find key {key} in {kind} {namespace}/{name}"
            )))
        }
    }
}

fn missing(what: &str, name: &str, namespace: &str) -> EnvError {
    EnvError(format!(
        "{what} {name:?} not found in namespace {namespace:?}"
    ))
}

/// The value of a downward-API field.
///
/// # Errors
/// Names the fields that can be asked for.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, facts: &Facts) -> Result<String, EnvError> {
    let meta = &pod.metadata;
    let path = selector.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unknown_field(path)),
        };
        return Ok(map
            .as_ref()
            .and_then(|m| m.get(key))
            .cloned()
            .unwrap_or_default());
    }
    let listed = |map: &Option<BTreeMap<String, String>>| -> String {
        let lines: Vec<String> = map
            .iter()
            .flatten()
            .map(|(k, v)| format!("{k}={v:?}"))
            .collect();
        lines.join("\n")
    };
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => listed(&meta.labels),
        "metadata.annotations" => listed(&meta.annotations),
        "spec.nodeName" => facts.node.clone(),
        "spec.serviceAccountName" => pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned()),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone(),
        _ => return Err(unknown_field(path)),
    })
}

fn unknown_field(path: &str) -> EnvError {
    EnvError(format!(
        "fieldRef {path:?} is not known: use metadata.name, .namespace, .uid, .labels['k'], .annotations['k'], \
         spec.nodeName, spec.serviceAccountName, status.podIP or status.hostIP"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::image::RunSpec;
    use crate::pod::configs::tests::Fixed;

    #[rstest]
    #[case("$(A)-$(B)", "1-2")]
    #[case("$(X)", "$(X)")]
    #[case("$$(A)", "$(A)")]
    #[case("$$$(A)", "$1")]
    #[case("$(A", "$(A")]
    #[case("$A $", "$A $")]
    #[case("$(A)$(", "1$(")]
    #[case("$()", "$()")]
    #[case("é$(A)ñ", "é1ñ")]
    fn expansion(#[case] text: &str, #[case] expected: &str) {
        let find = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "B" => Some("2".to_owned()),
            _ => None,
        };
        assert_eq!(expand(text, &find), expected);
    }

    fn run(container: Value) -> Result<Vec<(String, String)>, EnvError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}},
        }))
        .expect("a pod");
        let container: Container = serde_json::from_value(container).expect("a container");
        let configs = Fixed::default()
            .config_map("cm", &[("K", "v"), ("Z", "z")])
            .secret("s", &[("PASSWORD", "secret$(K)")]);
        let facts = Facts {
            pod_ip: "10.244.0.9".into(),
            host_ip: "10.244.0.1".into(),
            node: "devenv".into(),
            services: pairs(&[
                ("DB_PORT", "tcp://10.96.1.1:3306"),
                ("DB_SERVICE_HOST", "10.96.1.1"),
            ]),
        };
        environment(&pod, &container, &configs, &facts)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect()
    }

    #[test]
    fn order_overrides_and_references() {
        let env = run(json!({"name": "c",
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "A", "value": "$(P_K)/$(LATER)"},
                {"name": "LATER", "value": "x"},
                {"name": "P_Z", "value": "mine"},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "PASSWORD"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no", "optional": true}}},
                {"name": "URL", "value": "$(DB_SERVICE_HOST)/$(DB_PORT)"},
                {"name": "DB_PORT", "value": "3306"},
                {"name": "AGAIN", "value": "$(DB_PORT)"},
                {"name": "E"}
            ]}))
        .expect("all references resolve");
        assert_eq!(
            env,
            pairs(&[
                ("P_K", "v"),
                ("P_Z", "mine"),
                ("A", "v/$(LATER)"),
                ("LATER", "x"),
                // What a Secret holds is never expanded.
                ("S", "secret$(K)"),
                ("IP", "10.244.0.9"),
                ("L", "x"),
                // Until the container's own variable of that name is set, the Service's is known.
                ("URL", "10.96.1.1/tcp://10.96.1.1:3306"),
                ("DB_PORT", "3306"),
                ("AGAIN", "3306"),
                ("E", ""),
                ("DB_SERVICE_HOST", "10.96.1.1"),
            ])
        );
    }

    #[rstest]
    #[case(json!({"name": "c", "envFrom": [{"secretRef": {"name": "no"}}]}), r#"secret "no" not found in namespace "ns""#)]
    #[case(json!({"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k"}}}]}),
        r#"configmap "no" not found in namespace "ns""#)]
    #[case(json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
        "couldn't find key k in Secret ns/s")]
    fn what_is_missing_is_named(#[case] container: Value, #[case] message: &str) {
        assert_eq!(run(container).expect_err("must fail").0, message);
    }

    #[rstest]
    #[case(json!({}), 0, &["img", "serve"])]
    #[case(json!({"args": ["$(A)"]}), 0, &["1"])]
    #[case(json!({"args": ["$(A)"]}), 1, &["img", "1"])]
    #[case(json!({"command": ["sh"]}), 1, &["sh"])]
    #[case(json!({"command": ["sh", "-c"], "args": ["$(A) $(B)"]}), 1, &["sh", "-c", "1 $(B)"])]
    fn command_and_args(
        #[case] extra: Value,
        #[case] entrypoint: usize,
        #[case] expected: &[&str],
    ) {
        let mut container = extra;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).expect("a container");
        let argv = vec!["img".to_owned(), "serve".to_owned()];
        let image = Image {
            run: Arc::new(RunSpec {
                argv,
                ..RunSpec::default()
            }),
            entrypoint,
        };
        assert_eq!(
            command_line(&container, &image, &pairs(&[("A", "1")])),
            expected
        );
    }
}
