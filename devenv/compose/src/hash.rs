//! The hash by which Compose tells whether a container is still what the file says.
//!
//! It is the SHA-256 of the service as Go writes it to JSON, keys in the order of
//! Compose's own structure. Followed to the byte for Compose 2.26, so that `up` of either
//! leaves alone what the other has started. Another version of Compose may add keys: then
//! its `up` makes the containers anew, once, on the same volumes.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::project::{Mount, MountKind, Service, Ulimit};
use crate::read::units::go_duration;

/// What the label `com.docker.compose.config-hash` says of a service.
pub(crate) fn config_hash(service: &Service) -> String {
    hex::encode(Sha256::digest(json(service)))
}

/// A JSON object, in the order in which it is filled.
#[derive(Default)]
struct Object(Vec<String>);

impl Object {
    fn put(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.0.push(format!("{}:{}", text(key), value.into()));
        self
    }

    /// What Go's `omitempty` leaves out is handed in as nothing.
    fn maybe(&mut self, key: &str, value: Option<String>) -> &mut Self {
        if let Some(value) = value {
            self.put(key, value);
        }
        self
    }

    fn text(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        self.maybe(key, value.filter(|v| !v.is_empty()).map(text))
    }

    fn texts(&mut self, key: &str, values: &[String]) -> &mut Self {
        self.maybe(key, (!values.is_empty()).then(|| list(values)))
    }

    fn flag(&mut self, key: &str, value: bool) -> &mut Self {
        self.maybe(key, value.then(|| "true".into()))
    }

    fn bytes(&mut self, key: &str, value: Option<u64>) -> &mut Self {
        self.maybe(key, value.filter(|b| *b > 0).map(|b| format!("\"{b}\"")))
    }

    fn map<T>(
        &mut self,
        key: &str,
        values: &BTreeMap<String, T>,
        value: impl Fn(&T) -> String,
    ) -> &mut Self {
        let mut inner = Object::default();
        for (key, item) in values {
            inner.put(key, value(item));
        }
        self.maybe(key, (!values.is_empty()).then(|| inner.end()))
    }

    fn end(&self) -> String {
        format!("{{{}}}", self.0.join(","))
    }
}

/// A string as Go writes it: safe within HTML too.
fn text(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{0}'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

fn list(values: &[String]) -> String {
    let items: Vec<String> = values.iter().map(|v| text(v)).collect();
    format!("[{}]", items.join(","))
}

fn command(words: Option<&Vec<String>>) -> String {
    words.map_or("null".into(), |words| list(words))
}

fn json(service: &Service) -> String {
    let duration = |d: std::time::Duration| text(&go_duration(d));
    let mut o = Object::default();
    o.texts("profiles", &service.profiles)
        .texts("cap_add", &service.cap_add)
        .texts("cap_drop", &service.cap_drop)
        .put("command", command(service.command.as_ref()))
        .text("container_name", service.container_name.as_deref())
        .map("depends_on", &service.depends_on, |d| {
            Object::default()
                .text("condition", Some(d.condition.as_str()))
                .flag("restart", d.restart)
                .put("required", d.required.to_string())
                .end()
        })
        .maybe("deploy", deploy(service))
        .put("entrypoint", command(service.entrypoint.as_ref()))
        .map("environment", &service.environment, |value| {
            value.as_deref().map_or("null".into(), text)
        })
        .maybe("extra_hosts", extra_hosts(service))
        .text("hostname", service.hostname.as_deref())
        .maybe("healthcheck", healthcheck(service))
        .text("image", Some(&service.image))
        .maybe("init", service.init.map(|init| init.to_string()))
        .map("labels", &service.labels, |v| text(v))
        .bytes("mem_limit", service.mem_limit)
        .map("networks", &service.networks, |attachment| {
            attachment.as_ref().map_or("null".into(), |a| {
                Object::default()
                    .texts("aliases", &a.aliases)
                    .text("ipv4_address", a.ipv4_address.as_deref())
                    .text("ipv6_address", a.ipv6_address.as_deref())
                    .end()
            })
        })
        .maybe("ports", ports(service))
        .flag("read_only", service.read_only)
        .maybe("restart", service.restart.map(|r| text(&r.to_string())))
        .bytes("shm_size", service.shm_size)
        .maybe("stop_grace_period", service.stop_grace_period.map(duration))
        .text("stop_signal", service.stop_signal.as_deref())
        .texts("tmpfs", &service.tmpfs)
        .map("ulimits", &service.ulimits, |limit| match limit {
            Ulimit::Single(0) => "{}".into(),
            Ulimit::Single(both) => both.to_string(),
            Ulimit::Range { soft, hard } => Object::default()
                .maybe("soft", (*soft != 0).then(|| soft.to_string()))
                .maybe("hard", (*hard != 0).then(|| hard.to_string()))
                .end(),
        })
        .text("user", service.user.as_deref())
        .maybe("volumes", mounts(service))
        .text("working_dir", service.working_dir.as_deref());
    o.end()
}

fn deploy(service: &Service) -> Option<String> {
    let limits = service.limits.as_ref()?;
    let limits = Object::default()
        .maybe(
            "cpus",
            limits.cpus.filter(|c| *c > 0.0).map(|c| c.to_string()),
        )
        .bytes("memory", limits.memory)
        .maybe(
            "pids",
            limits.pids.filter(|p| *p != 0).map(|p| p.to_string()),
        )
        .end();
    let resources = Object::default().put("limits", limits).end();
    let deploy = Object::default()
        .put("resources", resources)
        .put("placement", "{}")
        .end();
    Some(deploy)
}

fn extra_hosts(service: &Service) -> Option<String> {
    let mut all: Vec<String> = service
        .extra_hosts
        .iter()
        .flat_map(|(host, ips)| ips.iter().map(move |ip| format!("{host}={ip}")))
        .collect();
    all.sort();
    (!all.is_empty()).then(|| list(&all))
}

fn healthcheck(service: &Service) -> Option<String> {
    let check = service.healthcheck.as_ref()?;
    let duration = |d: std::time::Duration| text(&go_duration(d));
    let check = Object::default()
        .texts("test", &check.test)
        .maybe("timeout", check.timeout.map(duration))
        .maybe("interval", check.interval.map(duration))
        .maybe("retries", check.retries.map(|n| n.to_string()))
        .maybe("start_period", check.start_period.map(duration))
        .maybe("start_interval", check.start_interval.map(duration))
        .flag("disable", check.disable)
        .end();
    Some(check)
}

fn ports(service: &Service) -> Option<String> {
    let items: Vec<String> = service
        .ports
        .iter()
        .map(|port| {
            Object::default()
                .text("name", port.name.as_deref())
                .text("mode", Some(&port.mode))
                .text("host_ip", Some(&port.host_ip))
                .put("target", port.target.to_string())
                .text("published", Some(&port.published))
                .text("protocol", Some(&port.protocol))
                .text("app_protocol", port.app_protocol.as_deref())
                .end()
        })
        .collect();
    (!items.is_empty()).then(|| format!("[{}]", items.join(",")))
}

fn mounts(service: &Service) -> Option<String> {
    let items: Vec<String> = service.mounts.iter().map(mount).collect();
    (!items.is_empty()).then(|| format!("[{}]", items.join(",")))
}

fn mount(mount: &Mount) -> String {
    let mut o = Object::default();
    let kind = match mount.kind {
        MountKind::Volume { .. } => "volume",
        MountKind::Bind { .. } => "bind",
        MountKind::Tmpfs { .. } => "tmpfs",
    };
    o.text("type", Some(kind))
        .text("source", Some(&mount.source))
        .text("target", Some(&mount.target))
        .flag("read_only", mount.read_only);
    match &mount.kind {
        MountKind::Volume { nocopy, written } => {
            let options = Object::default().flag("nocopy", *nocopy).end();
            o.maybe("volume", written.then_some(options));
        }
        MountKind::Bind {
            create_host_path,
            selinux,
            propagation,
            written,
        } => {
            let options = Object::default()
                .text("selinux", selinux.as_deref())
                .text("propagation", propagation.as_deref())
                .flag("create_host_path", create_host_path.unwrap_or(false))
                .end();
            o.maybe("bind", written.then_some(options));
        }
        MountKind::Tmpfs { size, mode } => {
            let options = Object::default()
                .bytes("size", *size)
                .maybe("mode", mode.filter(|m| *m != 0).map(|m| m.to_string()))
                .end();
            o.maybe(
                "tmpfs",
                (size.is_some() || mode.is_some()).then_some(options),
            );
        }
    }
    o.end()
}
