//! Paths and their rewrites, as far as a route can say them.

use serde_json::{Value, json};

use super::{Dialect, Findings, Options, PREFIX, model::Location};

/// What a location's path and rewrite come to.
pub(super) struct Place {
    pub path: String,
    pub exact: bool,
    pub rewrite: Option<Value>,
    /// A prefix is replaced where there is one match only.
    pub alone: bool,
}

/// Whether it puts its whole host into ingress-nginx's regex mode.
pub(super) fn is_regex(location: &Location) -> bool {
    location.settings.regex || effective_rewrite(location).is_some()
}

/// A target that equals the path, as ingress-nginx writes that, is none.
fn effective_rewrite(location: &Location) -> Option<&str> {
    let target = location.settings.rewrite.as_deref()?;
    let normalized = if location.exact || location.path.ends_with('/') {
        location.path.clone()
    } else {
        format!("{}/", location.path)
    };
    (target != normalized).then_some(target)
}

/// Nothing, where it can't be said.
pub(super) fn place(
    location: &Location,
    regex_mode: bool,
    options: &Options,
    findings: &mut Findings,
) -> Option<Place> {
    let target = effective_rewrite(location);
    if let Some(prefix) = location.path.strip_suffix("(/|$)(.*)")
        && let Some(replacement) = target.and_then(|target| target.strip_suffix("/$2"))
        && location.settings.regex
        && is_literal(prefix)
        && is_literal(replacement)
    {
        // The well-known way to say "replace the prefix".
        note_regex(location, prefix, findings);
        let path = if prefix.is_empty() { "/" } else { prefix };
        let replacement = if replacement.is_empty() {
            "/"
        } else {
            replacement
        };
        return Some(Place {
            path: path.to_owned(),
            exact: false,
            rewrite: Some(json!({
                "type": "ReplacePrefixMatch",
                "replacePrefixMatch": replacement,
            })),
            alone: true,
        });
    }
    if !location.path.starts_with('/') || !is_literal(&location.path) {
        let (problem, instead) = if regex_mode {
            (
                format!("the path {} is a regular expression", location.path),
                "name the paths; NAME(/|$)(.*) with rewrite-target TARGET/$2 is the one form that \
                 a route can say",
            )
        } else {
            (
                format!(
                    "the path {} has characters that a route's path can't have",
                    location.path
                ),
                "write it from / on, without //, # and blanks",
            )
        };
        findings.problem(
            &location.object,
            regex_mode.then_some("use-regex"),
            problem,
            instead,
        );
        return None;
    }
    if regex_mode {
        note_regex(location, &location.path, findings);
    }
    let rewrite = match target {
        None => None,
        Some(target) if target.contains('$') || !target.starts_with('/') => {
            findings.problem(
                &location.object,
                Some("rewrite-target"),
                format!("{target:?} is more than a path that replaces another"),
                "write a path; NAME(/|$)(.*) with TARGET/$2 replaces a prefix",
            );
            return None;
        }
        Some(target) if options.dialect == Dialect::Gke => {
            findings.problem(
                &location.object,
                Some("rewrite-target"),
                format!(
                    "{target:?} replaces the whole path of all requests below {}, which GKE's \
                     Gateways don't do (HTTPRoutePathRewrite is not among their features)",
                    location.path
                ),
                format!(
                    "let the service answer there; if the prefix alone was meant to be replaced, \
                     write the path {}(/|$)(.*), {PREFIX}use-regex: \"true\" and the target {}/$2",
                    location.path.trim_end_matches('/'),
                    target.trim_end_matches('/')
                ),
            );
            return None;
        }
        Some(target) => Some(json!({ "type": "ReplaceFullPath", "replaceFullPath": target })),
    };
    Some(Place {
        path: location.path.clone(),
        exact: location.exact,
        rewrite,
        alone: false,
    })
}

fn note_regex(location: &Location, path: &str, findings: &mut Findings) {
    findings.note(
        &location.object,
        None,
        format!(
            "its host is in ingress-nginx's regex mode, where {path} is also matched in other \
             cases of letters and by what goes on without a slash; the route matches it exactly \
             or with what is below"
        ),
    );
}

/// Characters of HTTPRoute's paths that mean themselves in a regular expression, but for
/// the dot, which hardly ever is meant to be one.
fn is_literal(path: &str) -> bool {
    !path.contains("//")
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/-._~%@:=,;!&'".contains(&b))
}
