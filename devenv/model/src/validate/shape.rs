//! The shape of an object: types, unknown fields, required fields.

use super::Found;
use crate::kinds::POD_REQUIRED;
use crate::names::{did_you_mean, listed};
use crate::node::{At, Data};
use crate::problem::Draft;
use crate::reading::Reading;

pub(super) fn check(reading: &Reading, object: &Found, out: &mut Vec<Draft>) {
    let checked = (object.kind.check)(&object.node);
    for m in &checked.mismatches {
        let what = if m.is_root() {
            object.title()
        } else {
            format!("`{}`", m.path)
        };
        let mut message = format!("{what} is {}", m.found);
        if let Some(said) = &m.message {
            message = format!("{what} can't be read: {said}");
        }
        let mut draft = Draft::error("manifest::wrong-type", m.span, message);
        if !m.expected.is_empty() {
            draft = draft.expected(m.expected.clone());
        }
        // `yes` and `010` look like text: say how they were read.
        let written = reading.sources.text(m.span);
        let help = match m.help() {
            Some(_) if m.found == format!("the boolean {}", reads_as_bool(written)) => {
                Some(format!(
                    "Kubernetes reads the unquoted {written} as a boolean; quote it: \"{written}\""
                ))
            }
            // The quotes go around what was written (`010`), not around what it means (8).
            Some(help) if help.starts_with("quote it") && is_word(written) => {
                Some(format!("quote it: \"{written}\""))
            }
            help => help,
        };
        let help = help.or_else(|| missing_dash(m.last_key(), &m.expected, &m.found));
        out.push(draft.maybe_help(help));
    }
    for u in &checked.unknown {
        out.push(
            Draft::warning(
                "manifest::unknown-field",
                u.span,
                format!(
                    "{} has no field `{}`; Kubernetes would ignore it",
                    object.kind.kind, u.path
                ),
            )
            .help(
                did_you_mean(&u.key, u.known.iter().copied()).unwrap_or_else(|| {
                    format!("known here: {}", listed(u.known.iter().copied()))
                }),
            ),
        );
    }
    for pattern in object.kind.required {
        required(&object.root(), pattern, out);
    }
    if let Some(spec) = object.pod_spec() {
        for pattern in POD_REQUIRED {
            required(&spec, pattern, out);
        }
        // Cloud Run names the container itself.
        if object.kind.api_version != "serving.knative.dev/v1" {
            required(&spec, "containers[].name", out);
        }
    }
}

fn reads_as_bool(written: &str) -> &'static str {
    match written.to_ascii_lowercase().as_str() {
        "y" | "yes" | "on" => "true",
        "n" | "no" | "off" => "false",
        // Written plainly: nothing to explain.
        _ => "?",
    }
}

fn is_word(written: &str) -> bool {
    !written.is_empty() && !written.contains(['"', '\'', '\n', '\\'])
}

/// A mapping where a list belongs is most often a forgotten dash.
fn missing_dash(key: Option<&str>, expected: &str, found: &str) -> Option<String> {
    let key = key?;
    match (expected, found) {
        ("a list", "a mapping") => Some(format!("begin each element of `{key}` with \"- \"")),
        ("a mapping", "a list") => Some(format!("`{key}` is a single mapping: remove the \"- \"")),
        _ => None,
    }
}

/// Reports where a pattern such as `spec.rules[].http.paths` ends in nothing. Only the
/// last part is missed: absent parents have patterns of their own.
fn required(at: &At<'_>, pattern: &str, out: &mut Vec<Draft>) {
    let (head, rest) = match pattern.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (pattern, None),
    };
    let (key, each) = match head.strip_suffix("[]") {
        Some(key) => (key, true),
        None => (head, false),
    };
    let child = at.get(key);
    match (rest, child) {
        (Some(rest), Some(child)) if each => {
            for item in child.items() {
                required(&item, rest, out);
            }
        }
        (Some(rest), Some(child)) => required(&child, rest, out),
        (Some(_), None) => {}
        (None, Some(child)) => {
            let empty = match &child.node.data {
                Data::Seq(items) => items.is_empty(),
                Data::String(s) => s.is_empty(),
                _ => false,
            };
            if empty {
                out.push(
                    Draft::error(
                        "manifest::missing-field",
                        child.span(),
                        format!("`{}` is empty", child.path),
                    )
                    .maybe_help(example(key)),
                );
            }
        }
        (None, None) => out.push(
            Draft::error(
                "manifest::missing-field",
                at.span(),
                format!("`{}` is missing", at.path.key(key)),
            )
            .maybe_help(example(key)),
        ),
    }
}

fn example(key: &str) -> Option<String> {
    Some(
        match key {
            "pathType" => "pathType: Prefix (this path and all below it), or Exact",
            "image" => "image: NAME:TAG",
            "containers" => "containers:\n- name: NAME\n  image: NAME:TAG",
            "selector" => "selector:\n  matchLabels:\n    app: NAME",
            "labels" => "labels:\n  app: NAME, as the selector says",
            "containerPort" => "containerPort: 8080",
            "port" => "port: 80",
            _ => return None,
        }
        .to_owned(),
    )
}
