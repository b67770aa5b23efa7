//! The kind cluster's configuration: the project's `kind/cluster.yaml`, with the addresses of
//! this machine that lead into it.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::IngressController;

/// Where the Ingress listens on the node.
pub const HTTP: u16 = 80;
/// The same for TLS.
const HTTPS: u16 = 443;
/// The node port of the first Cloud Run service; the others follow.
pub const CLOUD_RUN_NODE_PORT: u16 = 30081;

/// An address of this machine that leads to a port of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The node's port.
    pub node: u16,
    /// This machine's.
    pub here: SocketAddrV4,
}

/// Which addresses there are.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The project's own loopback address.
    pub own: Ipv4Addr,
    /// The port of the Ingress on 127.0.0.1, where people type it by hand.
    pub by_hand: Option<u16>,
    /// The ports of the Cloud Run services on this machine, in their order.
    pub cloud_run: Vec<u16>,
}

impl Wanted {
    /// All of them; the first of each node port is the one that is told.
    pub fn mappings(&self) -> Vec<Mapping> {
        let to = |node, ip, port| Mapping {
            node,
            here: SocketAddrV4::new(ip, port),
        };
        let mut all = Vec::new();
        all.extend(self.by_hand.map(|port| to(HTTP, Ipv4Addr::LOCALHOST, port)));
        all.push(to(HTTP, self.own, HTTP));
        all.push(to(HTTPS, self.own, HTTPS));
        let nodes = CLOUD_RUN_NODE_PORT..;
        let fronts = nodes.zip(&self.cloud_run);
        all.extend(fronts.map(|(node, port)| to(node, self.front(), *port)));
        all
    }

    /// The address at which people find Cloud Run services.
    pub fn front(&self) -> Ipv4Addr {
        match self.by_hand {
            Some(_) => Ipv4Addr::LOCALHOST,
            None => self.own,
        }
    }
}

/// What `kind create cluster` is given: `written` (the project's file, if it has one) with
/// this name, these mappings instead of its own to the same ports of the node, and this image
/// where it names none.
///
/// # Errors
/// What is wrong with the file.
pub fn config(
    written: Option<&str>,
    name: &str,
    mappings: &[Mapping],
    image: Option<&str>,
) -> Result<Value, String> {
    let mut config: Value = match written {
        Some(text) => serde_saphyr::from_str(text).map_err(|e| e.to_string())?,
        None => json!({"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4"}),
    };
    if config["kind"] != "Cluster" {
        return Err("it is no kind configuration: expected `kind: Cluster`".to_owned());
    }
    config["name"] = json!(name);
    if config["nodes"].as_array().is_none_or(Vec::is_empty) {
        config["nodes"] = json!([{"role": "control-plane"}]);
    }
    let Some(nodes) = config["nodes"].as_array_mut() else {
        return Err("`nodes` must be a list".to_owned());
    };
    for node in &mut *nodes {
        if let (Some(image), None) = (image, node["image"].as_str()) {
            node["image"] = json!(image);
        }
    }
    // The ingress goes to the node that says that it is ready for it, or else to the first.
    let is_marked = |node: &Value| node["labels"]["ingress-ready"] == "true";
    let at = nodes.iter().position(is_marked).unwrap_or(0);
    let node = &mut nodes[at];
    node["labels"]["ingress-ready"] = json!("true");
    let own = node["extraPortMappings"].as_array().cloned();
    let ours = |port: &Value| {
        let port = port["containerPort"].as_u64();
        port.is_some_and(|port| mappings.iter().any(|m| u64::from(m.node) == port))
    };
    let mut ports: Vec<Value> = own.into_iter().flatten().filter(|p| !ours(p)).collect();
    ports.extend(mappings.iter().map(|mapping| {
        json!({
            "containerPort": mapping.node,
            "hostPort": mapping.here.port(),
            "listenAddress": mapping.here.ip().to_string(),
            "protocol": "TCP",
        })
    }));
    node["extraPortMappings"] = json!(ports);
    Ok(config)
}

/// What tells one cluster from another: its configuration, and who serves its Ingresses, for
/// two controllers can't have one port and one class.
pub fn digest(config: &Value, ingress: IngressController) -> String {
    hex::encode(&Sha256::digest(format!("{ingress} {config}"))[..12])
}

/// The cluster's name: `devenv-PROJECT`, with the run's where it is one's. Names of nodes are
/// made of it and must be names of hosts.
pub fn cluster_name(project: &str, run: Option<&str>) -> String {
    const LONGEST: usize = 40;
    let name = match run {
        Some(run) => format!("devenv-{project}-{}", run.to_lowercase()),
        None => format!("devenv-{project}"),
    };
    if name.len() <= LONGEST {
        return name;
    }
    let tail = hex::encode(&Sha256::digest(&name)[..4]);
    let head = name[..LONGEST - tail.len() - 1].trim_end_matches('-');
    format!("{head}-{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(127, 70, 1, 2);

    fn wanted(by_hand: Option<u16>) -> Vec<Mapping> {
        let wanted = Wanted {
            own: OWN,
            by_hand,
            cloud_run: vec![8081],
        };
        wanted.mappings()
    }

    #[test]
    fn the_projects_file_keeps_what_is_its_own() {
        let written = "
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: mine
nodes:
  - role: control-plane
    image: kindest/node:v1.33.0
  - role: worker
    labels: {ingress-ready: 'true'}
    extraPortMappings:
      - {containerPort: 80, hostPort: 80}
      - {containerPort: 9000, hostPort: 9000}
";
        let made = config(Some(written), "devenv-p", &wanted(Some(8080)), Some("x:1")).unwrap();
        assert_eq!(made["name"], "devenv-p");
        assert_eq!(made["nodes"][0]["image"], "kindest/node:v1.33.0");
        assert_eq!(made["nodes"][0]["extraPortMappings"], Value::Null);
        assert_eq!(made["nodes"][1]["image"], "x:1");
        let ports: Vec<String> = made["nodes"][1]["extraPortMappings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| {
                let ip = p["listenAddress"].as_str().unwrap_or("*");
                format!("{ip}:{}→{}", p["hostPort"], p["containerPort"])
            })
            .collect();
        let expected = [
            "*:9000→9000",
            "127.0.0.1:8080→80",
            "127.70.1.2:80→80",
            "127.70.1.2:443→443",
            "127.0.0.1:8081→30081",
        ];
        assert_eq!(ports, expected);
    }

    #[test]
    fn without_a_file_there_is_one_node() {
        let made = config(None, "devenv-p", &wanted(None), None).unwrap();
        assert_eq!(made["nodes"].as_array().unwrap().len(), 1);
        assert_eq!(made["nodes"][0]["labels"]["ingress-ready"], "true");
        // A run has nothing on 127.0.0.1.
        let text = made.to_string();
        assert!(!text.contains("127.0.0.1"), "{text}");
        let (nginx, devenv) = (IngressController::Nginx, IngressController::Devenv);
        assert_ne!(digest(&made, devenv), digest(&json!({}), devenv));
        assert_ne!(digest(&made, devenv), digest(&made, nginx));
    }

    #[test]
    fn what_is_no_configuration_is_told() {
        for text in ["kind: Pod", "- a", "kind: [", "kind: Cluster\nnodes: 3"] {
            let made = config(Some(text), "n", &wanted(None), None);
            match text {
                // Not a list is as good as none.
                "kind: Cluster\nnodes: 3" => assert!(made.is_ok()),
                _ => assert!(made.is_err(), "{text}"),
            }
        }
    }

    #[test]
    fn names_are_names_of_hosts() {
        assert_eq!(cluster_name("shop", None), "devenv-shop");
        assert_eq!(cluster_name("shop", Some("A1-2")), "devenv-shop-a1-2");
        let long = cluster_name(&"x".repeat(63), Some("1"));
        assert!(long.len() <= 40, "{long}");
        assert_ne!(long, cluster_name(&"x".repeat(63), Some("2")));
    }
}
