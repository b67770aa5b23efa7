//! What a DNS question about the cluster is answered. Pure, from the store as it is.
//!
//! Source: the Kubernetes DNS specification 1.1 and CoreDNS' `kubernetes` plugin.

use std::net::Ipv4Addr;
use std::str::FromStr;

use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::controllers::endpointslice::SERVICE_LABEL;
use crate::kinds;
use crate::net::endpoints;
use crate::net::well_known::{HOST, HOST_NAMES};
use crate::store::Store;

/// The cluster's domain.
pub const DOMAIN: &str = "cluster.local.";
/// How many names may stand for one another in a row.
const LONGEST_CHAIN: usize = 8;
/// CoreDNS gives 5 s; less, since pods come and go faster here.
const TTL: u32 = 2;

/// What to do with a question.
#[derive(Debug)]
pub enum Verdict {
    /// Send this.
    Reply(Box<Message>),
    /// Ask the host's resolver.
    Forward,
    /// Send this after the host's resolver has completed it: it stands for that name outside the
    /// cluster.
    Follow(Box<Message>, Name),
    /// Not a question at all.
    Ignore,
}

/// Decides about a packet.
pub fn verdict(request: &Message, store: &Store) -> Verdict {
    if request.metadata.message_type != MessageType::Query {
        return Verdict::Ignore;
    }
    let [query] = request.queries.as_slice() else {
        return Verdict::Reply(Box::new(reply(request, ResponseCode::FormErr)));
    };
    if request.metadata.op_code != OpCode::Query {
        return Verdict::Reply(Box::new(reply(request, ResponseCode::NotImp)));
    }
    if let Ok(net) = query.name().parse_arpa_name()
        && let std::net::IpAddr::V4(ip) = net.addr()
        && (in_network(ip, [10, 96]) || in_network(ip, [10, 244]))
    {
        return Verdict::Reply(Box::new(reverse(request, query, ip, store)));
    }
    let name = query.name().to_lowercase().to_ascii();
    let name = if name.ends_with('.') {
        name
    } else {
        format!("{name}.")
    };
    let Some(found) = lookup(&name, store) else {
        return Verdict::Forward;
    };
    if query.query_class() != DNSClass::IN {
        return Verdict::Reply(Box::new(reply(request, ResponseCode::Refused)));
    }
    let mut message = reply(request, ResponseCode::NoError);
    message.metadata.authoritative = true;
    let outside = fill(&mut message, query.name().clone(), query, found, store);
    match outside {
        Some(target) => Verdict::Follow(Box::new(message), target),
        None => Verdict::Reply(Box::new(message)),
    }
}

fn in_network(ip: Ipv4Addr, prefix: [u8; 2]) -> bool {
    ip.octets()[..2] == prefix
}

/// An empty reply to a request.
pub fn reply(request: &Message, code: ResponseCode) -> Message {
    let mut message = Message::response(request.metadata.id, request.metadata.op_code);
    message.metadata = Metadata::response_from_request(&request.metadata);
    message.metadata.response_code = code;
    message.metadata.recursion_available = true;
    message.queries = request.queries.clone();
    if request.edns.is_some() {
        let mut own = hickory_proto::op::Edns::new();
        own.set_max_payload(1232);
        message.edns = Some(own);
    }
    message
}

/// What a name of the cluster stands for.
enum Found {
    /// Nothing of that name, nor anything below it.
    Nothing,
    /// It exists, with these records of any type.
    Records(Vec<RData>),
    /// It stands for another name.
    Alias(String),
}

/// What a name (in lower case, with its dot at the end) stands for; `None` outside the cluster.
fn lookup(name: &str, store: &Store) -> Option<Found> {
    if HOST_NAMES.contains(&name) {
        return Some(Found::Records(vec![RData::A(A(HOST))]));
    }
    let inner = name
        .strip_suffix(DOMAIN)
        .filter(|rest| rest.is_empty() || rest.ends_with('.'))?
        .trim_end_matches('.');
    let labels: Vec<&str> = if inner.is_empty() {
        Vec::new()
    } else {
        inner.split('.').collect()
    };
    Some(find(&labels, store))
}

/// Puts what was found for `name` into the answer, following names that stand for others. Returns
/// the name that has to be asked for outside the cluster to complete it.
fn fill(
    message: &mut Message,
    mut name: Name,
    query: &Query,
    mut found: Found,
    store: &Store,
) -> Option<Name> {
    let wanted = |data: &RData| {
        query.query_type() == RecordType::ANY || data.record_type() == query.query_type()
    };
    for _ in 0..LONGEST_CHAIN {
        match found {
            Found::Nothing => message.metadata.response_code = ResponseCode::NXDomain,
            Found::Records(all) => {
                for data in all.iter().filter(|d| wanted(d)) {
                    message.add_answer(Record::from_rdata(name.clone(), TTL, data.clone()));
                    // The addresses of SRV targets save the client a second question.
                    if let RData::SRV(srv) = data {
                        add_target(message, &srv.target, store);
                    }
                }
            }
            Found::Alias(target) => {
                let Ok(target) = Name::from_str(&format!("{}.", target.trim_end_matches('.')))
                else {
                    message.metadata.response_code = ResponseCode::ServFail;
                    return None;
                };
                let alias = RData::CNAME(CNAME(target.clone()));
                message.add_answer(Record::from_rdata(name, TTL, alias));
                if matches!(query.query_type(), RecordType::CNAME | RecordType::ANY) {
                    return None;
                }
                match lookup(&target.to_lowercase().to_ascii(), store) {
                    None => return Some(target),
                    Some(next) => (name, found) = (target, next),
                }
                continue;
            }
        }
        let no_data = message
            .answers
            .iter()
            .all(|r| r.record_type() == RecordType::CNAME);
        if no_data
            && name.to_lowercase().to_ascii().ends_with(DOMAIN)
            && let Some(soa) = soa()
        {
            message.add_authority(soa);
        }
        return None;
    }
    // They stand for each other in a circle.
    message.metadata.response_code = ResponseCode::ServFail;
    None
}

fn add_target(message: &mut Message, target: &Name, store: &Store) {
    let name = target.to_lowercase().to_ascii();
    let Some(inner) = name.strip_suffix(DOMAIN) else {
        return;
    };
    let labels: Vec<&str> = inner.trim_end_matches('.').split('.').collect();
    if let Found::Records(all) = find(&labels, store) {
        for data in all.into_iter().filter(|d| matches!(d, RData::A(_))) {
            let record = Record::from_rdata(target.clone(), TTL, data);
            if !message.additionals.contains(&record) {
                message.add_additional(record);
            }
        }
    }
}

/// `labels` are those before `cluster.local`, outermost last.
fn find(labels: &[&str], store: &Store) -> Found {
    let exists = Found::Records(Vec::new());
    match labels {
        [] | ["svc" | "pod"] => exists,
        [ns, "svc" | "pod"] => {
            if has_namespace(store, ns) {
                exists
            } else {
                Found::Nothing
            }
        }
        [dashed, ns, "pod"] => match dashed.replace('-', ".").parse::<Ipv4Addr>() {
            Ok(ip) if has_namespace(store, ns) => Found::Records(vec![RData::A(A(ip))]),
            _ => Found::Nothing,
        },
        [rest @ .., service, ns, "svc"] => match service_of(store, ns, service) {
            Some(found) => of_service(rest, &found, store),
            None => Found::Nothing,
        },
        _ => Found::Nothing,
    }
}

fn has_namespace(store: &Store, ns: &str) -> bool {
    store.get(&kinds::NAMESPACE, "", ns).is_some()
}

fn service_of(store: &Store, ns: &str, name: &str) -> Option<Service> {
    store.get(&kinds::SERVICE, ns, name)?.typed().ok()
}

fn of_service(rest: &[&str], service: &Service, store: &Store) -> Found {
    let spec = service.spec.clone().unwrap_or_default();
    let name = service.metadata.name.clone().unwrap_or_default();
    let ns = service.metadata.namespace.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return match (rest, spec.external_name) {
            ([], Some(target)) => Found::Alias(target),
            _ => Found::Nothing,
        };
    }
    let cluster_ip = spec
        .cluster_ip
        .as_deref()
        .and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    let full = format!("{name}.{ns}.svc.{DOMAIN}");
    let Some(ip) = cluster_ip else {
        let all = spec.publish_not_ready_addresses.unwrap_or(false);
        let members = members(&endpoints::slices(store, &ns, &name), all);
        return of_headless(rest, &full, &members);
    };
    let ports = spec.ports.iter().flatten().filter_map(|p| {
        Some((
            p.name.clone()?,
            p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            u16::try_from(p.port).ok()?,
        ))
    });
    match rest {
        [] => Found::Records(vec![RData::A(A(ip))]),
        [port, protocol] => srv(
            port,
            protocol,
            ports.map(|(n, p, number)| (n, p, number, full.clone())),
        ),
        [protocol] if protocol.starts_with('_') => Found::Records(Vec::new()),
        _ => Found::Nothing,
    }
}

/// One endpoint of a headless Service.
struct Member {
    host: String,
    ip: Ipv4Addr,
    ports: Vec<(String, String, u16)>,
}

fn members(slices: &[EndpointSlice], all: bool) -> Vec<Member> {
    slices
        .iter()
        .filter(|s| s.address_type == "IPv4")
        .flat_map(|slice| {
            let ports: Vec<(String, String, u16)> = slice
                .ports
                .iter()
                .flatten()
                .filter_map(|p| {
                    let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                    Some((
                        p.name.clone().unwrap_or_default(),
                        protocol,
                        u16::try_from(p.port?).ok()?,
                    ))
                })
                .collect();
            slice
                .endpoints
                .iter()
                .filter(move |e| all || endpoints::is_ready(e))
                .flat_map(move |endpoint| {
                    let ports = ports.clone();
                    endpoint
                        .addresses
                        .iter()
                        .filter_map(|a| a.parse().ok())
                        .map(move |ip: Ipv4Addr| Member {
                            host: endpoint
                                .hostname
                                .clone()
                                .unwrap_or_else(|| ip.to_string().replace('.', "-")),
                            ip,
                            ports: ports.clone(),
                        })
                })
        })
        .collect()
}

fn of_headless(rest: &[&str], full: &str, members: &[Member]) -> Found {
    match rest {
        [] => Found::Records(members.iter().map(|m| RData::A(A(m.ip))).collect()),
        [port, protocol] => {
            let all = members.iter().flat_map(|m| {
                m.ports.iter().map(move |(name, protocol, number)| {
                    (
                        name.clone(),
                        protocol.clone(),
                        *number,
                        format!("{}.{full}", m.host),
                    )
                })
            });
            srv(port, protocol, all)
        }
        [protocol] if protocol.starts_with('_') => Found::Records(Vec::new()),
        [host] => {
            let found: Vec<RData> = members
                .iter()
                .filter(|m| m.host == *host)
                .map(|m| RData::A(A(m.ip)))
                .collect();
            if found.is_empty() {
                Found::Nothing
            } else {
                Found::Records(found)
            }
        }
        _ => Found::Nothing,
    }
}

/// The SRV records of `_port._protocol` among (name, protocol, number, target).
fn srv(
    port: &str,
    protocol: &str,
    ports: impl Iterator<Item = (String, String, u16, String)>,
) -> Found {
    let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
        return Found::Nothing;
    };
    let found: Vec<RData> = ports
        .filter(|(name, proto, ..)| {
            name.eq_ignore_ascii_case(port) && proto.eq_ignore_ascii_case(protocol)
        })
        .filter_map(|(_, _, number, target)| {
            Some(RData::SRV(SRV::new(
                0,
                100,
                number,
                Name::from_str(&target).ok()?,
            )))
        })
        .collect();
    if found.is_empty() {
        Found::Nothing
    } else {
        Found::Records(found)
    }
}

/// The name of a ClusterIP, or those of an endpoint in its Services.
fn reverse(request: &Message, query: &Query, ip: Ipv4Addr, store: &Store) -> Message {
    let mut message = reply(request, ResponseCode::NoError);
    message.metadata.authoritative = true;
    let names = names_of(ip, store);
    if names.is_empty() {
        message.metadata.response_code = ResponseCode::NXDomain;
        if let Some(soa) = soa() {
            message.add_authority(soa);
        }
    }
    if matches!(query.query_type(), RecordType::PTR | RecordType::ANY) {
        for name in names.iter().filter_map(|name| Name::from_str(name).ok()) {
            let data = RData::PTR(PTR(name));
            message.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
        }
    }
    message
}

fn names_of(ip: Ipv4Addr, store: &Store) -> Vec<String> {
    let text = ip.to_string();
    let (services, _) = store.list(&kinds::SERVICE, None);
    let service = services
        .iter()
        .find(|s| s.value()["spec"]["clusterIP"] == text.as_str());
    if let Some(s) = service {
        return vec![format!("{}.{}.svc.{DOMAIN}", s.name(), s.namespace())];
    }
    let (slices, _) = store.list(&kinds::ENDPOINT_SLICE, None);
    let mut names = Vec::new();
    for slice in slices {
        let Some(service) = slice.value()["metadata"]["labels"][SERVICE_LABEL].as_str() else {
            continue;
        };
        let found: Option<EndpointSlice> = slice.typed().ok();
        let ours = found
            .iter()
            .flat_map(|s| members(std::slice::from_ref(s), true));
        names.extend(
            ours.filter(|m| m.ip == ip)
                .map(|m| format!("{}.{service}.{}.svc.{DOMAIN}", m.host, slice.namespace())),
        );
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// Tells resolvers how long they may believe that a name is not there.
fn soa() -> Option<Record> {
    let zone = Name::from_str(DOMAIN).ok()?;
    let server = Name::from_str("ns.dns.cluster.local.").ok()?;
    let contact = Name::from_str("hostmaster.cluster.local.").ok()?;
    let soa = SOA::new(server, contact, 1, 7200, 1800, 86_400, TTL);
    Some(Record::from_rdata(zone, TTL, RData::SOA(soa)))
}
