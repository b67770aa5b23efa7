//! What the project's objects are in a namespace of one's own on a cluster that others use.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use devenv_model::{Object, Topology};
use serde_json::{Value, json};

use super::database::OF_DATABASE;
use super::error::KubeError;
use crate::objects;
use crate::target::Adapter;

const MYSQL: u16 = 3306;

/// What is known of the namespace.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its name.
    pub namespace: String,
    /// Where requests come in; `None`: Ingresses are left out.
    pub ingress: Option<String>,
    /// The Service that leads to the database.
    pub database: Option<String>,
}

/// Makes a topology one for this namespace.
pub fn adapter(place: Place) -> Adapter {
    Arc::new(move |topology: Topology| {
        let topology = topology.in_namespace(&place.namespace);
        topology.with_made(|object| made(object, &place))
    })
}

fn made(object: &Object, place: &Place) -> Option<Vec<Value>> {
    match object.kind() {
        // It is there, with the label that says whose it is.
        "Namespace" => Some(Vec::new()),
        // The cluster's own.
        "IngressClass" => Some(Vec::new()),
        "Ingress" => Some(ingress(object.value(), place).into_iter().collect()),
        "Service" if object.is_cloud_run() => cloud_run(object, place),
        "Service" if Some(object.name()) == place.database.as_deref() => {
            Some(vec![leads_to_database(object.value())])
        }
        _ => objects::asked_at_once(object).map(|value| vec![value]),
    }
}

/// With the host of this namespace, so that it takes nobody else's requests.
fn ingress(value: &Value, place: &Place) -> Option<Value> {
    let url = place.ingress.as_deref()?;
    let mut made = value.clone();
    for rule in made["spec"]["rules"].as_array_mut().into_iter().flatten() {
        match host_of(url) {
            Some(host) => rule["host"] = json!(host),
            None => {
                rule.as_object_mut()?.remove("host");
            }
        }
    }
    if !url.starts_with("https:") {
        made["spec"].as_object_mut()?.remove("tls");
    }
    Some(made)
}

/// The name in a URL; `None`: it has an address, and whoever has the address has the ingress.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(authority, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    (address.parse::<IpAddr>().is_err() && !host.is_empty()).then_some(host)
}

fn cloud_run(object: &Object, place: &Place) -> Option<Vec<Value>> {
    let around = place.ingress.clone();
    let around = around.map(|url| ("INGRESS_URL".to_owned(), url));
    let made = objects::cloud_run(object, around.as_slice())?;
    Some(vec![made.service, made.deployment])
}

/// In production it has no selector, and leads out of the cluster.
fn leads_to_database(value: &Value) -> Value {
    let mut made = value.clone();
    let (key, role) = OF_DATABASE;
    made["spec"]["selector"] = json!({key: role});
    for port in made["spec"]["ports"].as_array_mut().into_iter().flatten() {
        // Whatever production's server listens at.
        port["targetPort"] = json!(MYSQL);
    }
    made
}

/// What of the project can't be in a namespace of its own, and what is left out of it, for
/// people.
///
/// # Errors
/// [`KubeError::Unfit`].
pub fn look(topology: &Topology, place: &Place) -> Result<Vec<String>, KubeError> {
    let own = &topology.project().namespace;
    let mut notes = Vec::new();
    let mut hosts = BTreeSet::new();
    for object in topology.objects() {
        let elsewhere = match object.namespace() {
            Some(namespace) => namespace != own,
            None => object.kind() == "Namespace" && object.name() != own,
        };
        if elsewhere {
            return Err(KubeError::Unfit(format!(
                "{}: {object} is outside of the project's namespace {own}; on a cluster that \
                 others use, all of it goes into one namespace of one's own",
                object.origin()
            )));
        }
        match object.kind() {
            "IngressClass" => notes.push(format!(
                "{object} ({}) is the cluster's own and not applied",
                object.origin()
            )),
            "Ingress" => {
                let rules = object.value()["spec"]["rules"].as_array();
                let named = rules
                    .into_iter()
                    .flatten()
                    .filter_map(|r| r["host"].as_str());
                hosts.extend(named.map(str::to_owned));
            }
            _ => {}
        }
        let by_name = format!(".{own}.svc");
        if object.value().to_string().contains(&by_name) {
            notes.push(format!(
                "{object} ({}) names something as \"…{by_name}\", which is not the namespace {}",
                object.origin(),
                place.namespace
            ));
        }
    }
    if hosts.len() > 1 {
        let hosts: Vec<String> = hosts.into_iter().collect();
        return Err(KubeError::Unfit(format!(
            "the Ingresses have several hosts ({}), and a namespace of one's own has one",
            hosts.join(", ")
        )));
    }
    if place.ingress.is_none() {
        notes.push(
            "its Ingresses are not applied: without a host of their own they would take other \
             people's requests; say ingress = \"http://{namespace}.HOST\" for this context"
                .to_owned(),
        );
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(ingress: Option<&str>) -> Place {
        Place {
            namespace: "shop-bob".to_owned(),
            ingress: ingress.map(str::to_owned),
            database: Some("cloudsql".to_owned()),
        }
    }

    #[test]
    fn an_ingress_has_the_host_of_its_namespace() {
        let value = json!({"spec": {"tls": [{"hosts": ["shop.example"]}], "rules": [
            {"http": {}}, {"host": "shop.example", "http": {}},
        ]}});
        let url = "http://shop-bob.dev.example:8080";
        let made = ingress(&value, &place(Some(url))).unwrap();
        let rule = json!({"host": "shop-bob.dev.example", "http": {}});
        assert_eq!(made["spec"], json!({"rules": [rule, rule]}));
        // Whose address it is has it for themselves.
        let made = ingress(&value, &place(Some("https://127.0.0.1:8443"))).unwrap();
        assert_eq!(made["spec"]["rules"], json!([{"http": {}}, {"http": {}}]));
        assert!(made["spec"]["tls"].is_array());
        assert_eq!(ingress(&value, &place(None)), None);
    }

    #[test]
    fn hosts_are_told_from_addresses() {
        for (url, host) in [
            ("http://a.example", Some("a.example")),
            ("https://a.example:8443/x", Some("a.example")),
            ("http://127.0.0.1:80", None),
            ("http://[::1]:80", None),
            ("http://[::1]", None),
            ("http://", None),
        ] {
            assert_eq!(host_of(url), host, "{url}");
        }
    }

    #[test]
    fn the_databases_service_leads_to_its_pod() {
        let value =
            json!({"spec": {"ports": [{"name": "mysql", "port": 3306, "targetPort": 13306}]}});
        let made = leads_to_database(&value);
        assert_eq!(
            made["spec"]["selector"],
            json!({"devenv.dev/role": "database"})
        );
        assert_eq!(made["spec"]["ports"][0]["targetPort"], 3306);
    }
}
