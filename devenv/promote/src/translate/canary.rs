//! What makes an Ingress a canary, and which requests it gets.

use std::collections::BTreeMap;

use super::{Findings, PREFIX};

/// Which requests a canary gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// The header's name and what is looked for in it.
    pub header: Option<(String, HeaderIs)>,
    /// Of what is left: so many of so many.
    pub share: (u32, u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeaderIs {
    /// This value: canary; any other says nothing.
    Value(String),
    /// `always`: canary, `never`: main; any other says nothing.
    AlwaysOrNever,
}

/// The canary's policy; nothing: an ordinary Ingress.
pub(super) fn policy(
    object: &str,
    ours: &BTreeMap<&str, &str>,
    findings: &mut Findings,
) -> Option<Policy> {
    let enabled = match ours.get("canary").copied() {
        None => None,
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Some(true),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Some(false),
        Some(other) => {
            findings.problem(
                object,
                Some("canary"),
                format!("is {other:?}, which ingress-nginx takes as false: an ordinary Ingress"),
                "write \"true\", or remove it",
            );
            return None;
        }
    };
    if enabled != Some(true) {
        if ours.keys().any(|name| name.starts_with("canary-")) {
            findings.problem(
                object,
                Some("canary"),
                "is not \"true\", so ingress-nginx drops all canary-* annotations and takes the \
                 object as an ordinary Ingress",
                "set it to \"true\", or remove the canary-* annotations",
            );
        }
        if enabled == Some(false) {
            findings.note(object, Some("canary"), "is false, which says nothing");
        }
        return None;
    }
    if ours.contains_key("canary-by-cookie") {
        findings.problem(
            object,
            Some("canary-by-cookie"),
            "an HTTPRoute can't match one cookie among others",
            "let the client send a header, and use canary-by-header",
        );
    }
    Some(Policy {
        header: header(object, ours, findings),
        share: share(object, ours, findings),
    })
}

fn header(
    object: &str,
    ours: &BTreeMap<&str, &str>,
    findings: &mut Findings,
) -> Option<(String, HeaderIs)> {
    let name = ours.get("canary-by-header").copied().unwrap_or_default();
    let value = ours
        .get("canary-by-header-value")
        .copied()
        .unwrap_or_default();
    let pattern = ours.contains_key("canary-by-header-pattern");
    if name.is_empty() {
        for dependent in ["canary-by-header-value", "canary-by-header-pattern"] {
            if ours.contains_key(dependent) {
                findings.note(
                    object,
                    Some(dependent),
                    format!("does nothing without {PREFIX}canary-by-header"),
                );
            }
        }
        return None;
    }
    // `-` and `_` are one in nginx's variables, and nginx drops names with other
    // characters from every request.
    let name = name.replace('_', "-");
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        findings.problem(
            object,
            Some("canary-by-header"),
            format!("is {name:?}, a name that no request carries as far as nginx lets through"),
            "use letters, digits and dashes",
        );
        return None;
    }
    if !value.is_empty() {
        if pattern {
            findings.note(
                object,
                Some("canary-by-header-pattern"),
                format!("does nothing beside {PREFIX}canary-by-header-value"),
            );
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~/:".contains(c);
        if !value.chars().all(allowed) {
            findings.problem(
                object,
                Some("canary-by-header-value"),
                format!("is {value:?}, which ingress-nginx refuses, so always and never count"),
                "use letters, digits and -._~/: only",
            );
            return None;
        }
        return Some((name, HeaderIs::Value(value.to_owned())));
    }
    if pattern {
        findings.problem(
            object,
            Some("canary-by-header-pattern"),
            "regular expressions in header matches are not part of what GKE's Gateways support",
            format!("name the values, each by {PREFIX}canary-by-header-value"),
        );
        return None;
    }
    Some((name, HeaderIs::AlwaysOrNever))
}

fn share(object: &str, ours: &BTreeMap<&str, &str>, findings: &mut Findings) -> (u32, u32) {
    let mut number = |name: &str, default: i64| match ours.get(name) {
        None => default,
        Some(text) => text.parse::<i64>().unwrap_or_else(|_| {
            findings.problem(
                object,
                Some(name),
                format!("is {text:?}, which ingress-nginx can't read and takes as {default}"),
                "write a whole number without a sign of percent",
            );
            default
        }),
    };
    let weight = number("canary-weight", 0);
    let total = number("canary-weight-total", 100);
    if total <= 100 && ours.contains_key("canary-weight-total") && total != 100 {
        findings.note(
            object,
            Some("canary-weight-total"),
            "ingress-nginx takes 100 for every total up to 100, and so does the translation",
        );
    }
    let total = u32::try_from(total.max(100)).unwrap_or(u32::MAX);
    let weight = u32::try_from(weight.max(0)).unwrap_or(u32::MAX).min(total);
    (weight, total)
}
