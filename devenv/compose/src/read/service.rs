//! One service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use devenv_model::tree::Data;

use super::at::{At, Reader};
use super::keys;
use super::{Options, dotenv, short, shown};
use crate::project::{
    Attachment, Condition, Dependency, Healthcheck, Limits, Mount, MountKind, Port, PullPolicy,
    Restart, Service, Ulimit,
};

/// What a service's values may refer to.
pub(super) struct Around<'a> {
    pub working_dir: &'a Path,
    pub environment: &'a BTreeMap<String, String>,
    pub options: &'a Options,
}

/// Reads a service; what is wrong is noted, and what can be read is read.
pub(super) fn read(r: &mut Reader<'_>, name: &str, at: &At<'_>, around: &Around<'_>) -> Service {
    r.keys(at, &keys::SERVICE);
    let image = match at.get("image") {
        Some(image) => r.text(&image).unwrap_or_default(),
        None => {
            // With a build section that is what is said.
            if at.get("build").is_none() {
                r.files
                    .error(
                        "compose::value",
                        at.key,
                        format!("`{}` has no image", at.path),
                    )
                    .expected("`image`, the reference of an image");
            }
            String::new()
        }
    };
    if let Some(image) = at.get("image").filter(|_| image.trim().is_empty()) {
        r.error(&image, format!("`{}` is empty", image.path));
    }
    Service {
        name: name.to_owned(),
        origin: r.files.origin(at.key),
        image,
        pull_policy: pull_policy(r, at),
        command: r.command_at(at, "command"),
        entrypoint: r.command_at(at, "entrypoint"),
        environment: environment(r, at, around),
        ports: at.get("ports").map(|p| ports(r, &p)).unwrap_or_default(),
        mounts: at
            .get("volumes")
            .map(|v| mounts(r, &v, around))
            .unwrap_or_default(),
        tmpfs: r.text_or_list_at(at, "tmpfs"),
        networks: networks(r, at),
        healthcheck: at.get("healthcheck").map(|h| healthcheck(r, &h)),
        depends_on: at
            .get("depends_on")
            .map(|d| depends_on(r, &d))
            .unwrap_or_default(),
        restart: at.get("restart").and_then(|p| restart(r, &p)),
        labels: r.labels_at(at, "labels"),
        user: r.text_at(at, "user"),
        working_dir: r.text_at(at, "working_dir"),
        stop_signal: r.text_at(at, "stop_signal"),
        stop_grace_period: r.duration_at(at, "stop_grace_period"),
        mem_limit: r.bytes_at(at, "mem_limit"),
        limits: at.get("deploy").and_then(|d| limits(r, &d)),
        init: r.boolean_at(at, "init"),
        cap_add: r.texts_at(at, "cap_add"),
        cap_drop: r.texts_at(at, "cap_drop"),
        shm_size: r.bytes_at(at, "shm_size"),
        extra_hosts: at
            .get("extra_hosts")
            .map(|h| extra_hosts(r, &h))
            .unwrap_or_default(),
        ulimits: at
            .get("ulimits")
            .map(|u| ulimits(r, &u))
            .unwrap_or_default(),
        hostname: r.text_at(at, "hostname"),
        container_name: r.text_at(at, "container_name"),
        read_only: r.boolean_at(at, "read_only").unwrap_or(false),
        profiles: r.texts_at(at, "profiles"),
    }
}

fn pull_policy(r: &mut Reader<'_>, at: &At<'_>) -> PullPolicy {
    let words = [
        ("missing", PullPolicy::Missing),
        ("if_not_present", PullPolicy::Missing),
        ("always", PullPolicy::Always),
        ("never", PullPolicy::Never),
    ];
    at.get("pull_policy")
        .and_then(|p| r.word(&p, &words))
        .unwrap_or_default()
}

/// `env_file`s, then `environment` over them. What has no value takes it from outside.
fn environment(
    r: &mut Reader<'_>,
    at: &At<'_>,
    around: &Around<'_>,
) -> BTreeMap<String, Option<String>> {
    let mut out = BTreeMap::new();
    if let Some(files) = at.get("env_file") {
        let items = match files.node.data {
            Data::Seq(_) => r.list(&files),
            _ => vec![files],
        };
        for item in items {
            env_file(r, &item, around, &mut out);
        }
    }
    let written = at
        .get("environment")
        .map(|e| r.pairs(&e))
        .unwrap_or_default();
    for (key, value) in written {
        let value = value.or_else(|| around.environment.get(&key).cloned());
        out.insert(key, value);
    }
    out
}

fn env_file(
    r: &mut Reader<'_>,
    item: &At<'_>,
    around: &Around<'_>,
    out: &mut BTreeMap<String, Option<String>>,
) {
    let (path, required) = if matches!(item.node.data, Data::Map(_)) {
        r.keys(item, &keys::ENV_FILE);
        (
            r.text_at(item, "path"),
            r.boolean_at(item, "required").unwrap_or(true),
        )
    } else {
        (r.text(item), true)
    };
    let Some(path) = path else { return };
    let full: PathBuf = around.working_dir.join(&path);
    let text = match std::fs::read_to_string(&full) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => return,
        Err(e) => {
            r.error(
                item,
                format!("{} can't be read: {e}", shown(&full, around.options)),
            )
            .help("make the file, or write `required: false` beside its `path`");
            return;
        }
    };
    // Variables of the files above are known in the ones below.
    let lookup = |name: &str| {
        let above = out.get(name).cloned().flatten();
        above.or_else(|| around.environment.get(name).cloned())
    };
    match dotenv::parse(&text, &lookup) {
        Ok(pairs) => out.extend(pairs.into_iter().map(|(k, v)| (k, Some(v)))),
        Err(broken) => {
            if let Some(file) = r.files.other(&shown(&full, around.options), &text) {
                let span = r.files.place(file, broken.at);
                r.files.error("compose::env-file", span, broken.message);
            }
        }
    }
}

fn ports(r: &mut Reader<'_>, at: &At<'_>) -> Vec<Port> {
    let mut out = Vec::new();
    for item in r.list(at) {
        if matches!(item.node.data, Data::Map(_)) {
            out.extend(long_port(r, &item));
            continue;
        }
        let Some(spec) = r.scalar(&item) else {
            continue;
        };
        match short::ports(&spec) {
            Ok(ports) => out.extend(ports),
            Err(wrong) => {
                r.error(&item, format!("`{}`: {wrong}", item.path))
                    .expected("[[IP:]HOST:]CONTAINER[/PROTOCOL], such as \"127.0.0.1:8080:80\"");
            }
        }
    }
    out
}

fn long_port(r: &mut Reader<'_>, at: &At<'_>) -> Option<Port> {
    r.keys(at, &keys::PORT);
    let Some(target) = at.get("target") else {
        r.error(
            at,
            format!("`{}` has no `target`, the container's port", at.path),
        );
        return None;
    };
    let target: u16 = r.integer(&target, "a port from 1 to 65535")?;
    let published = r.scalar_at(at, "published").unwrap_or_default();
    if !published.is_empty() && short::range(&published).is_none() {
        r.error(at, format!("`{}.published` is {published:?}", at.path))
            .expected("a port or a range of ports of the host");
        return None;
    }
    let host_ip = r.text_at(at, "host_ip").unwrap_or_default();
    if let Err(wrong) = short::address(&host_ip) {
        r.error(at, format!("`{}.host_ip`: {wrong}", at.path));
    }
    let words = [("tcp", "tcp"), ("udp", "udp"), ("sctp", "sctp")];
    let protocol = at.get("protocol").and_then(|p| r.word(&p, &words));
    let words = [("ingress", "ingress"), ("host", "host")];
    let mode = at.get("mode").and_then(|m| r.word(&m, &words));
    Some(Port {
        target,
        published,
        host_ip,
        protocol: protocol.unwrap_or("tcp").into(),
        mode: mode.unwrap_or("ingress").into(),
        name: r.text_at(at, "name"),
        app_protocol: r.text_at(at, "app_protocol"),
    })
}

fn mounts(r: &mut Reader<'_>, at: &At<'_>, around: &Around<'_>) -> Vec<Mount> {
    let home = around.environment.get("HOME").map(String::as_str);
    let mut out: Vec<Mount> = Vec::new();
    for item in r.list(at) {
        let mount = if matches!(item.node.data, Data::Map(_)) {
            long_mount(r, &item, around, home)
        } else {
            let Some(spec) = r.text(&item) else { continue };
            match short::mount(&spec, around.working_dir, home) {
                Ok(mount) => Some(mount),
                Err(wrong) => {
                    r.error(&item, format!("`{}`: {wrong}", item.path))
                        .expected("[SOURCE:]TARGET[:OPTIONS], such as \"data:/var/lib/data\"");
                    None
                }
            }
        };
        let Some(mount) = mount else { continue };
        if out.iter().any(|m| m.target == mount.target) {
            r.error(
                &item,
                format!(
                    "`{}`: something is mounted at {} already",
                    item.path, mount.target
                ),
            );
            continue;
        }
        out.push(mount);
    }
    out
}

fn long_mount(
    r: &mut Reader<'_>,
    at: &At<'_>,
    around: &Around<'_>,
    home: Option<&str>,
) -> Option<Mount> {
    r.keys(at, &keys::MOUNT);
    let Some(kind) = at.get("type") else {
        r.error(at, format!("`{}` has no `type`", at.path))
            .expected("volume, bind or tmpfs");
        return None;
    };
    let word = r.text(&kind)?;
    if matches!(word.as_str(), "image" | "npipe" | "cluster") {
        r.unsupported(kind.span(), &format!("a mount of type {word}"));
        return None;
    }
    let kind = r.word(&kind, &[("volume", 'v'), ("bind", 'b'), ("tmpfs", 't')])?;
    let target = r.text_at(at, "target").unwrap_or_default();
    if !target.starts_with('/') {
        r.error(at, format!("`{}.target` is {target:?}", at.path))
            .expected("an absolute path in the container");
        return None;
    }
    for (option, of) in [("volume", 'v'), ("bind", 'b'), ("tmpfs", 't')] {
        if let Some(foreign) = at.get(option).filter(|_| of != kind) {
            r.error(
                &foreign,
                format!("`{}` is for mounts of type {option}", foreign.path),
            );
        }
    }
    let mut source = r.text_at(at, "source").unwrap_or_default();
    let kind = match kind {
        'v' => {
            let options = at.get("volume").filter(|o| r.keys(o, &keys::MOUNT_VOLUME));
            MountKind::Volume {
                nocopy: options
                    .as_ref()
                    .and_then(|o| r.boolean_at(o, "nocopy"))
                    .unwrap_or(false),
                written: options.is_some(),
            }
        }
        'b' => {
            if source.is_empty() {
                r.error(
                    at,
                    format!("`{}` has no `source`, a path of the host", at.path),
                );
                return None;
            }
            match short::host_path(&source, around.working_dir, home) {
                Ok(path) => source = path,
                Err(wrong) => {
                    r.error(at, format!("`{}.source`: {wrong}", at.path));
                }
            }
            bind_options(r, at)
        }
        _ => {
            let options = at.get("tmpfs").filter(|o| r.keys(o, &keys::MOUNT_TMPFS));
            let mode = options.as_ref().and_then(|o| o.get("mode"));
            MountKind::Tmpfs {
                size: options.as_ref().and_then(|o| r.bytes_at(o, "size")),
                mode: mode.and_then(|m| r.integer(&m, "permission bits, such as 0o1777")),
            }
        }
    };
    Some(Mount {
        kind,
        source,
        target: devenv_model::clean_path(&target),
        read_only: r.boolean_at(at, "read_only").unwrap_or(false),
    })
}

fn bind_options(r: &mut Reader<'_>, at: &At<'_>) -> MountKind {
    let options = at.get("bind").filter(|o| r.keys(o, &keys::MOUNT_BIND));
    let mut kind = MountKind::Bind {
        create_host_path: None,
        selinux: None,
        propagation: None,
        written: options.is_some(),
    };
    if let (
        Some(o),
        MountKind::Bind {
            create_host_path,
            selinux,
            propagation,
            ..
        },
    ) = (options, &mut kind)
    {
        *create_host_path = r.boolean_at(&o, "create_host_path");
        let words = [("z", "z"), ("Z", "Z")];
        *selinux = o
            .get("selinux")
            .and_then(|s| r.word(&s, &words))
            .map(Into::into);
        let words = short::PROPAGATION.map(|word| (word, word));
        *propagation = o
            .get("propagation")
            .and_then(|p| r.word(&p, &words))
            .map(Into::into);
    }
    kind
}

fn networks(r: &mut Reader<'_>, at: &At<'_>) -> BTreeMap<String, Option<Attachment>> {
    let mut out = BTreeMap::new();
    if let Some(at) = at.get("networks") {
        if matches!(at.node.data, Data::Map(_)) {
            for (name, inner) in at.all() {
                let attachment = if inner.node.is_null() {
                    None
                } else {
                    r.keys(&inner, &keys::ATTACHMENT);
                    Some(Attachment {
                        aliases: r.texts_at(&inner, "aliases"),
                        ipv4_address: r.text_at(&inner, "ipv4_address"),
                        ipv6_address: r.text_at(&inner, "ipv6_address"),
                    })
                };
                out.insert(name.to_owned(), attachment);
            }
        } else {
            for item in r.list(&at) {
                out.extend(r.text(&item).map(|name| (name, None)));
            }
        }
    }
    if out.is_empty() {
        out.insert("default".into(), None);
    }
    out
}

fn healthcheck(r: &mut Reader<'_>, at: &At<'_>) -> Healthcheck {
    if !r.keys(at, &keys::HEALTHCHECK) {
        return Healthcheck::default();
    }
    let test = match at.get("test") {
        None => Vec::new(),
        Some(test) if test.node.as_str().is_some() => {
            let line = r.text(&test).unwrap_or_default();
            vec!["CMD-SHELL".into(), line]
        }
        Some(test) => {
            let words = r.texts_at(at, "test");
            let how = words.first().map(String::as_str);
            if !matches!(how, Some("CMD" | "CMD-SHELL" | "NONE")) {
                r.error(&test, format!("`{}` does not say how it is run", test.path))
                    .expected(
                        "a string, or a list that begins with \"CMD\", \"CMD-SHELL\" or \"NONE\"",
                    );
            }
            words
        }
    };
    let retries = at.get("retries");
    Healthcheck {
        test,
        interval: r.duration_at(at, "interval"),
        timeout: r.duration_at(at, "timeout"),
        retries: retries.and_then(|n| r.integer::<u32>(&n, "a whole number from 0").map(u64::from)),
        start_period: r.duration_at(at, "start_period"),
        start_interval: r.duration_at(at, "start_interval"),
        disable: r.boolean_at(at, "disable").unwrap_or(false),
    }
}

fn depends_on(r: &mut Reader<'_>, at: &At<'_>) -> BTreeMap<String, Dependency> {
    let started = Dependency {
        condition: Condition::Started,
        restart: false,
        required: true,
    };
    if !matches!(at.node.data, Data::Map(_)) {
        let items = r.list(at);
        let names = items.iter().filter_map(|item| r.text(item));
        return names.map(|name| (name, started)).collect();
    }
    let words = [
        Condition::Started,
        Condition::Healthy,
        Condition::CompletedSuccessfully,
    ]
    .map(|condition| (condition.as_str(), condition));
    let mut out = BTreeMap::new();
    for (name, inner) in at.all() {
        r.keys(&inner, &keys::DEPENDENCY);
        let condition = inner.get("condition").and_then(|c| r.word(&c, &words));
        out.insert(
            name.to_owned(),
            Dependency {
                condition: condition.unwrap_or(Condition::Started),
                restart: r.boolean_at(&inner, "restart").unwrap_or(false),
                required: r.boolean_at(&inner, "required").unwrap_or(true),
            },
        );
    }
    out
}

fn restart(r: &mut Reader<'_>, at: &At<'_>) -> Option<Restart> {
    // An unquoted `no` is text here, but `false` is what some tools make of it.
    let text = match at.node.as_bool() {
        Some(false) => "no".into(),
        _ => r.scalar(at)?,
    };
    if let Some(limit) = text.strip_prefix("on-failure") {
        let read = match limit.strip_prefix(':') {
            None => limit.is_empty().then_some(None),
            Some(n) => n.parse().ok().map(Some),
        };
        if let Some(limit) = read {
            return Some(Restart::OnFailure(limit));
        }
    }
    match text.as_str() {
        "no" => Some(Restart::No),
        "always" => Some(Restart::Always),
        "unless-stopped" => Some(Restart::UnlessStopped),
        _ => {
            r.error(at, format!("`{}` is {text:?}", at.path))
                .expected("no, always, unless-stopped, on-failure or on-failure:TIMES")
                .did_you_mean(&text, ["no", "always", "unless-stopped", "on-failure"]);
            None
        }
    }
}

fn limits(r: &mut Reader<'_>, deploy: &At<'_>) -> Option<Limits> {
    r.keys(deploy, &keys::DEPLOY);
    let resources = deploy.get("resources")?;
    r.keys(&resources, &keys::RESOURCES);
    let limits = resources.get("limits")?;
    r.keys(&limits, &keys::LIMITS);
    let (cpus, pids) = (limits.get("cpus"), limits.get("pids"));
    Some(Limits {
        cpus: cpus.and_then(|c| r.number(&c)),
        memory: r.bytes_at(&limits, "memory"),
        pids: pids.and_then(|p| r.integer(&p, "a whole number")),
    })
}

fn extra_hosts(r: &mut Reader<'_>, at: &At<'_>) -> BTreeMap<String, Vec<String>> {
    let bare = |ip: &str| {
        ip.strip_prefix('[')
            .and_then(|ip| ip.strip_suffix(']'))
            .unwrap_or(ip)
            .to_owned()
    };
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if matches!(at.node.data, Data::Map(_)) {
        for (host, inner) in at.all() {
            let ips = match inner.node.data {
                Data::Seq(_) => {
                    let items = r.list(&inner);
                    items.iter().filter_map(|item| r.text(item)).collect()
                }
                _ => Vec::from_iter(r.text(&inner)),
            };
            out.insert(host.to_owned(), ips.iter().map(|ip| bare(ip)).collect());
        }
        return out;
    }
    for item in r.list(at) {
        let Some(text) = r.text(&item) else { continue };
        match text.split_once('=').or_else(|| text.split_once(':')) {
            Some((host, ips)) if !host.is_empty() => {
                let known = out.entry(host.to_owned()).or_default();
                known.extend(ips.split(',').map(bare));
            }
            _ => {
                r.error(&item, format!("`{}` is {text:?}", item.path))
                    .expected("HOST=ADDRESS");
            }
        }
    }
    out
}

fn ulimits(r: &mut Reader<'_>, at: &At<'_>) -> BTreeMap<String, Ulimit> {
    let mut out = BTreeMap::new();
    if !r.mapping(at) {
        return out;
    }
    for (name, inner) in at.all() {
        let number = "an integer; -1 is without limit";
        let read = if matches!(inner.node.data, Data::Map(_)) {
            r.keys(&inner, &keys::ULIMIT);
            let soft = inner.get("soft").and_then(|n| r.integer(&n, number));
            let hard = inner.get("hard").and_then(|n| r.integer(&n, number));
            if inner.get("soft").is_none() || inner.get("hard").is_none() {
                r.error(
                    &inner,
                    format!("`{}` needs both `soft` and `hard`", inner.path),
                );
            }
            soft.zip(hard)
                .map(|(soft, hard)| Ulimit::Range { soft, hard })
        } else {
            r.integer(&inner, number).map(Ulimit::Single)
        };
        out.extend(read.map(|limit| (name.to_owned(), limit)));
    }
    out
}
