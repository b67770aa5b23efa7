//! Checks of values that need no file system and no manifests.

use std::net::Ipv4Addr;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::{Command, Located, RawCloudSql, RawImage, Step};
use crate::names::NameRule;
use crate::node::shortened;
use crate::problem::Draft;

/// What public keys begin with.
const PUBLIC_KEY_PREFIX: &str = "devenv-ed25519:";

/// Checks what needs no file system and no manifests.
pub(crate) fn check_values(located: &Located, problems: &mut Vec<Draft>) {
    let config = &located.config;
    if config.project.manifests.is_empty() && located.tree.at(&["project", "manifests"]).is_none() {
        problems.push(
            Draft::error(
                "config::missing-key",
                located.span(&["project"]),
                "`project.manifests` is missing: devenv does not know what to run",
            )
            .expected("a list of manifest files, folders or kustomize folders")
            .help("manifests = [\"kind/base\"]"),
        );
    }
    if config.ingress.http_port == 0 {
        problems.push(
            Draft::error(
                "config::illegal-value",
                located.span(&["ingress", "http_port"]),
                "`ingress.http_port` is 0",
            )
            .expected("a port from 1 to 65535"),
        );
    }
    for (name, image) in &config.image {
        check_image(located, name, image, problems);
    }
    if let Some(sql) = &config.cloudsql {
        check_cloud_sql(located, sql, problems);
    }
    for (i, key) in config.gate.trusted_keys.iter().flatten().enumerate() {
        let bytes = key
            .strip_prefix(PUBLIC_KEY_PREFIX)
            .and_then(|text| BASE64_STANDARD.decode(text).ok());
        if bytes.is_none_or(|bytes| bytes.len() != 32) {
            problems.push(
                Draft::error(
                    "config::illegal-value",
                    located.item_span(&["gate", "trusted_keys"], i),
                    format!(
                        "`gate.trusted_keys[{i}]` is no public key: {}",
                        shortened(key)
                    ),
                )
                .expected(format!("{PUBLIC_KEY_PREFIX} and 32 bytes in base64"))
                .help("`devenv verdict --key` prints your own"),
            );
        }
    }
}

fn check_image(located: &Located, name: &str, image: &RawImage, problems: &mut Vec<Draft>) {
    // A value of the wrong type has been reported already.
    if image.source.is_none() && located.tree.at(&["image", name, "source"]).is_none() {
        problems.push(
            Draft::error(
                "config::missing-key",
                located.span(&["image", name]),
                format!("`image.{name}` has no `source`"),
            )
            .help(format!("source = \"services/{name}\"")),
        );
    }
    for (key, command) in [
        ("install", image.install.as_ref().and_then(Step::command)),
        ("build", image.build.as_ref().and_then(Step::command)),
        ("run", image.run.as_ref()),
        ("debug", image.debug.as_ref()),
    ] {
        if command.is_some_and(Command::is_empty) {
            problems.push(
                Draft::error(
                    "config::illegal-value",
                    located.span(&["image", name, key]),
                    format!("`image.{name}.{key}` names no program"),
                )
                .expected("a list of program and arguments, or a string for sh -c"),
            );
        }
    }
    for (i, pattern) in image.ignore.iter().enumerate() {
        if let Err(error) = ignore::gitignore::GitignoreBuilder::new("").add_line(None, pattern) {
            problems.push(
                Draft::error(
                    "config::illegal-value",
                    located.item_span(&["image", name, "ignore"], i),
                    format!("`image.{name}.ignore[{i}]` is no pattern: {error}"),
                )
                .expected("a pattern as in .gitignore, such as \"*.log\" or \"/data/\""),
            );
        }
    }
    for key in image.env.keys() {
        let legal = !key.is_empty() && !key.contains(['=', '\0']);
        if !legal {
            problems.push(
                Draft::error(
                    "config::illegal-name",
                    located.span(&["image", name, "env", key]),
                    format!("`{key}` can't be the name of an environment variable"),
                )
                .expected("at least one character, and no \"=\""),
            );
        }
    }
}

fn check_cloud_sql(located: &Located, sql: &RawCloudSql, problems: &mut Vec<Draft>) {
    let version_ok = sql.version.strip_prefix("mysql:").is_some_and(|v| {
        let parts: Vec<&str> = v.split('.').collect();
        parts.len() <= 3
            && parts
                .iter()
                .all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()))
    });
    if !version_ok {
        problems.push(
            Draft::error(
                "config::illegal-value",
                located.span(&["cloudsql", "version"]),
                format!("`cloudsql.version` is {:?}", sql.version),
            )
            .expected("the MySQL version that production runs, such as \"mysql:8.4\"")
            .help("PostgreSQL and SQL Server are not emulated yet"),
        );
    }
    // These become SQL identifiers and account names: MySQL's own limits, without the
    // characters that would need quoting.
    for (key, value, max) in [("database", &sql.database, 64), ("user", &sql.user, 32)] {
        let legal = !value.is_empty()
            && value.len() <= max
            && value
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$'));
        if !legal {
            problems.push(
                Draft::error(
                    "config::illegal-name",
                    located.span(&["cloudsql", key]),
                    format!("`cloudsql.{key}` is {value:?}"),
                )
                .expected(format!("1 to {max} letters, digits, \"_\", \"-\" or \"$\"")),
            );
        }
    }
    for (i, written) in sql.also_at.iter().enumerate() {
        let refused = match written.parse::<Ipv4Addr>() {
            Ok(address) => match unreachable(address) {
                Some(why) => format!("{address} is {why}"),
                None => continue,
            },
            Err(_) => format!("{} is no IPv4 address", shortened(written)),
        };
        problems.push(
            Draft::error(
                "config::illegal-value",
                located.item_span(&["cloudsql", "also_at"], i),
                format!("`cloudsql.also_at[{i}]`: {refused}"),
            )
            .expected("the address of the database as the programs have it, such as \"34.66.1.2\""),
        );
    }
    for (key, value, rule) in [
        ("service", &sql.service, NameRule::Label1035),
        ("secret", &sql.secret, NameRule::Subdomain),
    ] {
        if !rule.accepts(value) {
            problems.push(
                Draft::error(
                    "config::illegal-name",
                    located.span(&["cloudsql", key]),
                    format!("`cloudsql.{key}` is {value:?}, which Kubernetes rejects"),
                )
                .expected(rule.text())
                .maybe_help(rule.nearest(value).map(|n| format!("write \"{n}\""))),
            );
        }
    }
}

/// Why connections to an address can't be led to the database, if they can't: they never
/// leave the pod, or the cluster has its own use for it.
fn unreachable(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some("no address to connect to"),
        [127, ..] => Some("the pod itself: connections to it never leave the pod"),
        [10, 244, ..] => Some("in the range of the pods (10.244.0.0/16)"),
        [10, 96, ..] => Some("in the range of the Services (10.96.0.0/16)"),
        [169, 254, ..] => Some("a link-local address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("reserved or the broadcast address"),
        _ => None,
    }
}
