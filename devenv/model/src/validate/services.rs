//! Services: do they lead to pods, and to ports that these pods have?

use super::pods::{port_names, selected};
use super::{Found, World, choices};
use crate::load::Named;
use crate::names::{NameRule, closest, did_you_mean};
use crate::node::{At, shortened};
use crate::problem::Draft;
use crate::source::Span;

/// The port of MySQL's own protocol.
pub(crate) const MYSQL_PORT: u16 = 3306;

pub(super) fn check(world: &World<'_>, out: &mut Vec<Draft>) {
    for service in world.of("v1", "Service", None) {
        let Some(spec) = service.root().get("spec") else {
            continue;
        };
        let external = spec.str_at("type") == Some("ExternalName");
        ports(service, &spec, external, out);
        match spec
            .get("selector")
            .filter(|s| !s.node.entries().is_empty())
        {
            Some(selector) => backed(world, service, &spec, &selector, out),
            None if !external => selectorless(world, service, &spec, out),
            None => {}
        }
    }
}

fn ports(service: &Found, spec: &At<'_>, external: bool, out: &mut Vec<Draft>) {
    let ports = spec.items_at("ports");
    let headless = spec.str_at("clusterIP") == Some("None");
    if ports.is_empty() && !external && !headless {
        out.push(
            Draft::error(
                "manifest::missing-field",
                spec.span(),
                format!("{} has no ports", service.title()),
            )
            .help("ports:\n- port: 80\n  targetPort: 8080"),
        );
    }
    for port in &ports {
        for field in ["port", "targetPort"] {
            if let Some(at) = port.get(field)
                && let Some(number) = at.node.as_i64()
                && !(1..=65535).contains(&number)
            {
                out.push(
                    Draft::error(
                        "manifest::illegal-port",
                        at.span(),
                        format!("`{}` is {number}", at.path),
                    )
                    .expected("a port from 1 to 65535"),
                );
            }
        }
        if ports.len() > 1 && port.str_at("name").is_none() {
            out.push(
                Draft::error(
                    "manifest::missing-field",
                    port.span(),
                    format!("`{}` is missing", port.path.key("name")),
                )
                .expected("a name for every port, because the Service has several"),
            );
        }
    }
}

fn backed(
    world: &World<'_>,
    service: &Found,
    spec: &At<'_>,
    selector: &At<'_>,
    out: &mut Vec<Draft>,
) {
    let namespace = service.namespace.as_deref();
    let pods: Vec<&Found> = world
        .workloads(namespace)
        .filter(|w| selected(selector.node, &w.pod_labels()))
        .collect();
    if pods.is_empty() {
        out.push(unmatched(world, service, selector));
        return;
    }
    let containers: Vec<At<'_>> = pods
        .iter()
        .filter_map(|w| w.pod_spec())
        .flat_map(|spec| {
            let mut all = spec.items_at("containers");
            all.extend(spec.items_at("initContainers"));
            all
        })
        .collect();
    let names: Vec<&str> = containers.iter().flat_map(port_names).collect();
    for port in spec.items_at("ports") {
        if let Some(target) = port.get("targetPort")
            && let Some(name) = target.node.as_str()
            && !names.contains(&name)
        {
            let who = pods
                .iter()
                .map(|p| p.title())
                .collect::<Vec<_>>()
                .join(", ");
            let numeric = name.parse::<u16>().is_ok();
            let help = if numeric {
                Some(format!("a number is written without quotes: {name}"))
            } else {
                did_you_mean(name, names.iter().copied()).or_else(|| {
                    Some(format!("name the port in the container:\nports:\n- name: {name}\n  containerPort: 8080"))
                })
            };
            out.push(
                Draft::error(
                    "manifest::unknown-port",
                    target.span(),
                    format!(
                        "{} sends to the port {}, and no container of {who} names a port so",
                        service.title(),
                        shortened(name)
                    ),
                )
                .expected(choices(
                    "named port in these containers",
                    names.iter().copied(),
                ))
                .maybe_help(help),
            );
        }
    }
}

fn unmatched(world: &World<'_>, service: &Found, selector: &At<'_>) -> Draft {
    let wanted = super::pairs(selector.node);
    let text: Vec<String> = wanted.iter().map(|(k, v)| format!("{k}={v}")).collect();
    // The nearest label value of the same key tells a typing error.
    let mut near = None;
    for (key, value) in &wanted {
        let values: Vec<&str> = world
            .workloads(service.namespace.as_deref())
            .flat_map(|w| w.pod_labels())
            .filter(|(k, _)| k == key)
            .map(|(_, v)| v)
            .collect();
        if !values.contains(value)
            && let Some(candidate) = closest(value, values)
        {
            near = Some(format!("did you mean {key}: {candidate}?"));
        }
    }
    Draft::warning(
        "manifest::selects-nothing",
        selector.span(),
        format!(
            "{} selects no pod of the project: {}",
            service.title(),
            text.join(",")
        ),
    )
    .expected("labels that the pod template of a workload in the same namespace has")
    .maybe_help(near)
}

/// Without a selector somebody else must say where the Service leads.
fn selectorless(world: &World<'_>, service: &Found, spec: &At<'_>, out: &mut Vec<Draft>) {
    let sql = world.located.config.cloudsql.as_ref();
    if sql.is_some_and(|sql| sql.service == service.name) {
        return;
    }
    let sliced = world
        .of(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            service.namespace.as_deref(),
        )
        .any(|slice| {
            slice
                .node
                .str_at(&["metadata", "labels", "kubernetes.io/service-name"])
                == Some(&service.name)
        });
    if !sliced {
        let help = match sql {
            None => {
                "if it stands for Cloud SQL, add a section [cloudsql] with `service` to devenv.toml; otherwise give it a selector or an EndpointSlice"
            }
            Some(_) => {
                "give it a selector, or an EndpointSlice labelled kubernetes.io/service-name"
            }
        };
        out.push(
            Draft::warning(
                "manifest::selects-nothing",
                spec.span(),
                format!(
                    "{} has no selector, and nothing says where it leads",
                    service.title()
                ),
            )
            .help(help),
        );
    }
}

/// The port of a Service that stands for Cloud SQL: MySQL's own if it has that one, else
/// its first for TCP.
pub(crate) fn cloud_sql_port(service: &Found) -> Option<u16> {
    let spec = service.root().get("spec")?;
    let ports = tcp_ports(&spec).into_iter().filter_map(|port| {
        let number = port.get("port")?.node.as_i64()?;
        u16::try_from(number).ok()
    });
    ports.min_by_key(|port| *port != MYSQL_PORT)
}

fn tcp_ports<'n>(spec: &At<'n>) -> Vec<At<'n>> {
    let mut ports = spec.items_at("ports");
    ports.retain(|port| port.str_at("protocol").unwrap_or("TCP") == "TCP");
    ports
}

/// `[cloudsql]` needs its Service, and that Service must leave its endpoints to devenv.
pub(super) fn cloud_sql(world: &World<'_>, project: &Named, out: &mut Vec<Draft>) {
    let Some(sql) = &world.located.config.cloudsql else {
        return;
    };
    // An impossible name has been reported, and no Service can have it.
    if !NameRule::Label1035.accepts(&sql.service) {
        return;
    }
    let namespace = &project.project.namespace;
    let services: Vec<&Found> = world.of("v1", "Service", None).collect();
    let named = services.iter().filter(|s| s.name == sql.service);
    let Some(service) = named.min_by_key(|s| s.namespace.as_ref() != Some(namespace)) else {
        let help = did_you_mean(&sql.service, services.iter().map(|s| s.name.as_str()))
            .unwrap_or_else(|| {
                format!(
                    "apiVersion: v1\nkind: Service\nmetadata:\n  name: {}\n  namespace: {namespace}\nspec:\n  ports:\n  - port: {MYSQL_PORT}",
                    sql.service
                )
            });
        out.push(
            Draft::error(
                "cloudsql::no-service",
                world.located.span(&["cloudsql", "service"]),
                format!(
                    "no Service {:?} in the manifests: the pods could not reach the database",
                    sql.service
                ),
            )
            .expected("a Service without selector, whose endpoints devenv fills in")
            .help(help),
        );
        return;
    };
    let said = world.located.span(&["cloudsql", "service"]);
    let Some(spec) = service.root().get("spec") else {
        return;
    };
    if let Some(selector) = spec.get("selector")
        && !selector.node.entries().is_empty()
    {
        out.push(
            Draft::error(
                "cloudsql::selector",
                selector.span(),
                format!("{} stands for Cloud SQL, so it must have no selector", service.title()),
            )
            .related(said, "said to be so at")
            .help("remove the selector: devenv fills in the endpoints here, as the network does in production"),
        );
    }
    out.extend(leads_elsewhere(service, &spec, said));
}

/// Why a Service can't lead to the database: it leads to a name, or has no port for it.
fn leads_elsewhere(service: &Found, spec: &At<'_>, said: Span) -> Option<Draft> {
    let headless = spec.str_at("clusterIP") == Some("None");
    let ports = spec.get("ports").filter(|p| !p.items().is_empty());
    if spec.str_at("type") == Some("ExternalName") {
        return Some(
            Draft::error(
                "cloudsql::external-name",
                spec.get("type").map_or(spec.span(), |t| t.span()),
                format!(
                    "{} stands for Cloud SQL, and as an ExternalName it would lead the pods away from here",
                    service.title()
                ),
            )
            .related(said, "said to be so at")
            .expected("a Service without selector, whose endpoints devenv fills in")
            .help(format!(
                "instead of `type` and `externalName`, write:\nports:\n- port: {MYSQL_PORT}"
            )),
        );
    }
    // Any other Service without ports has been reported.
    (tcp_ports(spec).is_empty() && (ports.is_some() || headless)).then(|| {
        Draft::error(
            "cloudsql::no-port",
            ports.map_or(spec.span(), |p| p.span()),
            format!(
                "{} stands for Cloud SQL, and has no port for TCP that could lead there",
                service.title()
            ),
        )
        .related(said, "said to be so at")
        .help(format!("ports:\n- port: {MYSQL_PORT}"))
    })
}
