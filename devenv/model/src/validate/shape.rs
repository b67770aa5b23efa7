//! The shape of an object: types, unknown fields, required fields.

use super::Found;
use crate::de::Mismatch;
use crate::kinds::POD_REQUIRED;
use crate::names::{did_you_mean, listed};
use crate::node::{At, Data, Step};
use crate::problem::Draft;
use crate::reading::Reading;

pub(super) fn check(reading: &Reading, object: &Found, out: &mut Vec<Draft>) {
    let checked = (object.kind.check)(&object.node);
    for m in &checked.mismatches {
        let draft = m.draft("manifest::wrong-type", &object.title(), &reading.sources);
        out.push(match secret_value(object, m) {
            Some(path) => unquoted_secret(draft, &path, m),
            None => draft,
        });
    }
    for u in &checked.unknown {
        out.push(
            Draft::warning(
                "manifest::unknown-field",
                u.span,
                format!(
                    "{} has no field `{}`; Kubernetes would ignore it",
                    object.kind.title(),
                    u.path
                ),
            )
            .help(
                did_you_mean(&u.key, u.known.iter().copied())
                    .unwrap_or_else(|| format!("known here: {}", listed(u.known.iter().copied()))),
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

/// The path of a Secret's value, if the mismatch is one.
fn secret_value(object: &Found, m: &Mismatch) -> Option<String> {
    let field = m.path.0.first()?;
    let is_value = ["data", "stringData"]
        .map(|f| Step::Key(f.into()))
        .contains(field);
    (object.is("v1", "Secret") && is_value).then(|| m.path.to_string())
}

/// Messages travel into logs: a Secret's value is never repeated in one.
fn unquoted_secret(draft: Draft, path: &str, m: &Mismatch) -> Draft {
    if m.message.is_some() {
        return Draft::error(draft.code, draft.span, format!("`{path}` is not base64"))
            .expected("a value in base64")
            .help("plain text belongs into `stringData`");
    }
    let sort = ["number", "boolean", "list", "mapping", "string"]
        .into_iter()
        .find(|sort| m.found.contains(sort))
        .unwrap_or("value of another type");
    Draft::error(draft.code, draft.span, format!("`{path}` is a {sort}"))
        .expected("a string")
        .help("put it in quotes")
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
