//! The short forms of ports and mounts.

use std::ops::RangeInclusive;
use std::path::Path;

use devenv_model::clean_path;

use crate::project::{Mount, MountKind, Port};

/// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, with ranges; sorted as Compose does.
pub(super) fn ports(spec: &str) -> Result<Vec<Port>, String> {
    let (addresses, protocol) = match spec.split_once('/') {
        Some((addresses, protocol)) => (addresses, protocol.to_ascii_lowercase()),
        None => (spec, "tcp".into()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("{protocol:?} is no protocol: tcp, udp or sctp"));
    }
    // From the right: an IPv6 address has colons of its own.
    let (rest, target) = match addresses.rsplit_once(':') {
        Some((rest, target)) => (Some(rest), target),
        None => (None, addresses),
    };
    let (host_ip, published) = match rest {
        None => ("", ""),
        Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
    };
    let host_ip = host_ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(host_ip);
    address(host_ip)?;
    let targets = range(target).ok_or_else(|| format!("{target:?} is no port of a container"))?;
    let hosts = match published {
        "" => None,
        _ => Some(range(published).ok_or_else(|| format!("{published:?} is no port of the host"))?),
    };
    let count = targets.clone().count();
    let same = hosts.as_ref().is_none_or(|h| h.clone().count() == count);
    if !same && count > 1 {
        return Err(format!(
            "{published:?} and {target:?} are not equally many ports"
        ));
    }
    let mut out: Vec<Port> = targets
        .enumerate()
        .map(|(i, target)| Port {
            target,
            published: match &hosts {
                None => String::new(),
                // Any of several for one.
                Some(_) if !same => published.to_owned(),
                Some(hosts) => (usize::from(*hosts.start()) + i).to_string(),
            },
            host_ip: host_ip.to_owned(),
            protocol: protocol.clone(),
            mode: "ingress".into(),
            name: None,
            app_protocol: None,
        })
        .collect();
    out.sort_by_key(|port| port.target.to_string());
    Ok(out)
}

/// A host's address, or nothing.
pub(super) fn address(ip: &str) -> Result<(), String> {
    match ip.is_empty() || ip.parse::<std::net::IpAddr>().is_ok() {
        true => Ok(()),
        false => Err(format!("{ip:?} is no IP address")),
    }
}

/// `80` or `80-90`.
pub(super) fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0);
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
pub(super) fn mount(spec: &str, working_dir: &Path, home: Option<&str>) -> Result<Mount, String> {
    let parts: Vec<&str> = spec.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err("nothing stands between two colons, or at an end".into());
    }
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err("too many colons".into()),
    };
    if !target.starts_with('/') {
        return Err(format!("{target:?} is no absolute path in the container"));
    }
    let mut mount = Mount {
        kind: MountKind::Volume {
            nocopy: false,
            written: true,
        },
        source: source.into(),
        target: clean_path(target),
        read_only: false,
    };
    if source.starts_with(['.', '/', '~']) {
        mount.source = host_path(source, working_dir, home)?;
        mount.kind = MountKind::Bind {
            create_host_path: Some(true),
            selinux: None,
            propagation: None,
            written: true,
        };
    }
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match (option, &mut mount.kind) {
            ("ro", _) => mount.read_only = true,
            ("rw", _) => mount.read_only = false,
            ("nocopy", MountKind::Volume { nocopy, .. }) => *nocopy = true,
            ("z" | "Z", MountKind::Bind { selinux, .. }) => *selinux = Some(option.into()),
            (word, MountKind::Bind { propagation, .. }) if PROPAGATION.contains(&word) => {
                *propagation = Some(word.into());
            }
            _ => return Err(format!("{option:?} is no option of it")),
        }
    }
    Ok(mount)
}

/// How mounts below a bind mount reach the other side.
pub(super) const PROPAGATION: [&str; 6] = [
    "rprivate", "private", "rshared", "shared", "rslave", "slave",
];

/// A path of the host, absolute.
pub(super) fn host_path(
    path: &str,
    working_dir: &Path,
    home: Option<&str>,
) -> Result<String, String> {
    if let Some(rest) = path.strip_prefix('~') {
        if !(rest.is_empty() || rest.starts_with('/')) {
            return Err("only one's own home is known as `~`".into());
        }
        let home = home.ok_or("HOME has no value, so `~` is nowhere")?;
        return Ok(clean_path(&format!("{home}{rest}")));
    }
    let joined = working_dir.join(path);
    let text = joined.to_str().ok_or("the path is not UTF-8")?;
    Ok(clean_path(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("80", &["||80/tcp"])]
    #[case("8080:80", &["|8080|80/tcp"])]
    #[case("127.0.0.1:8080:80/udp", &["127.0.0.1|8080|80/udp"])]
    #[case("127.0.0.1::80", &["127.0.0.1||80/tcp"])]
    #[case("[::1]:8080:80", &["::1|8080|80/tcp"])]
    #[case("9-11:9-11", &["|10|10/tcp", "|11|11/tcp", "|9|9/tcp"])]
    #[case("8000-8010:80", &["|8000-8010|80/tcp"])]
    fn reads_ports(#[case] spec: &str, #[case] want: &[&str]) {
        let got: Vec<String> = ports(spec)
            .unwrap()
            .iter()
            .map(|p| format!("{}|{}|{}/{}", p.host_ip, p.published, p.target, p.protocol))
            .collect();
        assert_eq!(got, want);
    }

    #[rstest]
    #[case("", "\"\" is no port of a container")]
    #[case("0", "\"0\" is no port of a container")]
    #[case("70000:80", "\"70000\" is no port of the host")]
    #[case("80/http", "\"http\" is no protocol: tcp, udp or sctp")]
    #[case("local:80:80", "\"local\" is no IP address")]
    #[case("1-2:1-3", "\"1-2\" and \"1-3\" are not equally many ports")]
    #[case("9-8", "\"9-8\" is no port of a container")]
    fn refuses_ports(#[case] spec: &str, #[case] want: &str) {
        assert_eq!(ports(spec), Err(want.into()));
    }

    #[rstest]
    #[case("/var/lib/x/", "volume  /var/lib/x rw")]
    #[case("data:/data:ro", "volume data /data ro")]
    #[case("./a/../b:/b", "bind /w/b /b rw")]
    #[case("~/c:/c:ro,z", "bind /home/c /c ro")]
    #[case("/abs:/x:rshared", "bind /abs /x rw")]
    fn reads_mounts(#[case] spec: &str, #[case] want: &str) {
        let mount = mount(spec, Path::new("/w"), Some("/home")).unwrap();
        let kind = match mount.kind {
            MountKind::Volume { .. } => "volume",
            MountKind::Bind { .. } => "bind",
            MountKind::Tmpfs { .. } => "tmpfs",
        };
        let access = if mount.read_only { "ro" } else { "rw" };
        assert_eq!(
            format!("{kind} {} {} {access}", mount.source, mount.target),
            want
        );
    }

    #[rstest]
    #[case("data:data", "\"data\" is no absolute path in the container")]
    #[case("a::/b", "nothing stands between two colons, or at an end")]
    #[case("a:/b:ro:x", "too many colons")]
    #[case("a:/b:z", "\"z\" is no option of it")]
    #[case("~x:/b", "only one's own home is known as `~`")]
    fn refuses_mounts(#[case] spec: &str, #[case] want: &str) {
        assert_eq!(
            mount(spec, Path::new("/w"), Some("/home")),
            Err(want.into())
        );
    }
}
