//! `[kind.nginx]`: where the manifest of ingress-nginx is, and what it must be.

use super::existing;
use crate::config::{Located, RawNginx};
use crate::node::shortened;
use crate::problem::Draft;
use crate::reading::Reading;
use crate::topology::{NginxManifest, NginxSource};

const SCHEME: &str = "https://";
/// What a manifest may be.
const EXPECTED: &str = "an https URL, or the path of a file of the project";

/// What the section says; nothing if there is none, or it can't be used.
pub(super) fn load(reading: &mut Reading, located: &Located) -> Option<NginxSource> {
    let raw = located.config.kind.nginx.as_ref()?;
    let sha256 = sha256(reading, located, raw);
    let manifest = manifest(reading, located, raw)?;
    Some(NginxSource {
        manifest,
        sha256,
        origin: reading.sources.origin(located.span(&["kind", "nginx"])),
    })
}

fn manifest(reading: &mut Reading, located: &Located, raw: &RawNginx) -> Option<NginxManifest> {
    let span = located.span(&["kind", "nginx", "manifest"]);
    let Some(written) = &raw.manifest else {
        // A value of the wrong type has been reported already.
        if located.tree.at(&["kind", "nginx", "manifest"]).is_none() {
            reading.problems.push(
                Draft::error(
                    "config::missing-key",
                    span,
                    "`kind.nginx` has no `manifest`: where ingress-nginx comes from",
                )
                .expected(EXPECTED)
                .help("manifest = \"kind/ingress-nginx.yaml\""),
            );
        }
        return None;
    };
    if let Some((scheme, rest)) = written.split_once("://") {
        let is_url = scheme.eq_ignore_ascii_case("https")
            && !rest.is_empty()
            && !rest.starts_with('/')
            && !written.contains(|c: char| c.is_whitespace() || c.is_control());
        if !is_url {
            let what = format!("`kind.nginx.manifest` is {}", shortened(written));
            reading
                .problems
                .push(Draft::error("config::illegal-value", span, what).expected(EXPECTED));
            return None;
        }
        let url = format!("{SCHEME}{rest}");
        if located.tree.at(&["kind", "nginx", "sha256"]).is_none() {
            reading.problems.push(
                Draft::error(
                    "config::missing-key",
                    located.span(&["kind", "nginx"]),
                    "`kind.nginx.sha256` is missing: what comes from a URL is only run if it is \
                     what was looked at",
                )
                .expected("the SHA-256 of the manifest, 64 hexadecimal digits")
                .help(format!("curl -fsSL {url} | sha256sum")),
            );
            return None;
        }
        return Some(NginxManifest::Url(url));
    }
    let path = existing(reading, written, span)?;
    if path.is_file() {
        // Another text is another controller.
        reading.asked(&path);
        return Some(NginxManifest::File(path));
    }
    reading.problems.push(
        Draft::error(
            "file::not-a-file",
            span,
            format!("{written} is no regular file"),
        )
        .expected(EXPECTED),
    );
    None
}

fn sha256(reading: &mut Reading, located: &Located, raw: &RawNginx) -> Option<String> {
    let written = raw.sha256.as_ref()?;
    if written.len() == 64 && written.chars().all(|c| c.is_ascii_hexdigit()) {
        return Some(written.to_ascii_lowercase());
    }
    reading.problems.push(
        Draft::error(
            "config::illegal-value",
            located.span(&["kind", "nginx", "sha256"]),
            format!("`kind.nginx.sha256` is {}", shortened(written)),
        )
        .expected("64 hexadecimal digits, as `sha256sum FILE` prints them"),
    );
    None
}
