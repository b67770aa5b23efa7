//! Kubernetes' error answers: the `Status` object, in exactly its forms.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::body::{self, ApiBody};
use crate::{kinds::KindRef, store::StoreError};

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Kubernetes' name of the kind of mistake, such as `FieldValueRequired`.
    pub reason: &'static str,
    /// What is wrong, without the field.
    pub message: String,
    /// The field, such as `spec.template.spec.containers[0].image`.
    pub field: String,
}

impl Cause {
    /// A field that must be there is not; `detail` may be empty.
    pub fn required(field: impl Into<String>, detail: &str) -> Cause {
        let message = if detail.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {detail}")
        };
        Cause {
            reason: "FieldValueRequired",
            message,
            field: field.into(),
        }
    }

    /// A field has a value that it may not have; `shown` is the value as Go prints it.
    pub fn invalid(field: impl Into<String>, shown: &str, detail: &str) -> Cause {
        let message = format!("Invalid value: {shown}: {detail}");
        Cause {
            reason: "FieldValueInvalid",
            message,
            field: field.into(),
        }
    }

    /// A value that is not among the few that are allowed.
    pub fn not_supported(field: impl Into<String>, value: &str, allowed: &[&str]) -> Cause {
        let allowed: Vec<String> = allowed.iter().map(|v| format!("{v:?}")).collect();
        let message = format!(
            "Unsupported value: {value:?}: supported values: {}",
            allowed.join(", ")
        );
        Cause {
            reason: "FieldValueNotSupported",
            message,
            field: field.into(),
        }
    }

    /// The same value twice where it must be unique.
    pub fn duplicate(field: impl Into<String>, shown: &str) -> Cause {
        Cause {
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {shown}"),
            field: field.into(),
        }
    }

    /// A field that may not be set or changed.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
        Cause {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {detail}"),
            field: field.into(),
        }
    }

    /// A reference to something that is not there.
    pub fn not_found(field: impl Into<String>, value: &str) -> Cause {
        Cause {
            reason: "FieldValueNotFound",
            message: format!("Not found: {value:?}"),
            field: field.into(),
        }
    }

    fn value(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

/// A request that was refused: becomes a `Status` with `status: Failure`.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// HTTP status.
    pub code: u16,
    /// Kubernetes' machine-readable reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The `details` member; `None` leaves it out. Boxed: a failure is returned by value
    /// everywhere, and most of it would be this.
    pub details: Option<Box<Value>>,
    /// A token to go on with after an expired list.
    pub continue_token: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// `{"name", "group", "kind"}`, without the empty ones.
fn details(name: &str, group: &str, kind: &str) -> Map<String, Value> {
    [("name", name), ("group", group), ("kind", kind)]
        .into_iter()
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| (k.to_owned(), Value::String(v.to_owned())))
        .collect()
}

fn of(kind: KindRef, name: &str) -> Option<Value> {
    Some(Value::Object(details(name, kind.group, kind.plural)))
}

impl Failure {
    fn new(
        code: u16,
        reason: &'static str,
        message: impl Into<String>,
        details: Option<Value>,
    ) -> Failure {
        Failure {
            code,
            reason,
            message: message.into(),
            details: details.map(Box::new),
            continue_token: None,
        }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Failure {
        Failure::new(400, "BadRequest", message, None)
    }

    /// 401.
    pub fn unauthorized() -> Failure {
        Failure::new(401, "Unauthorized", "Unauthorized", None)
    }

    /// 403 for one object.
    pub fn forbidden(kind: KindRef, name: &str, why: &str, cause: Option<Cause>) -> Failure {
        let mut details = details(name, kind.group, kind.plural);
        if let Some(cause) = cause {
            details.insert("causes".to_owned(), json!([cause.value()]));
        }
        let message = format!("{} \"{name}\" is forbidden: {why}", kind.group_resource());
        Failure::new(403, "Forbidden", message, Some(Value::Object(details)))
    }

    /// 404 for one object.
    pub fn not_found(kind: KindRef, name: &str) -> Failure {
        let message = format!("{} \"{name}\" not found", kind.group_resource());
        Failure::new(404, "NotFound", message, of(kind, name))
    }

    /// 404 for a resource that is not served.
    pub fn no_such_resource() -> Failure {
        Failure::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
            Some(json!({})),
        )
    }

    /// 405.
    pub fn method_not_allowed() -> Failure {
        Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
            Some(json!({})),
        )
    }

    /// 406.
    pub fn not_acceptable() -> Failure {
        Failure::new(406, "NotAcceptable", "406: Not Acceptable", Some(json!({})))
    }

    /// 409: there already.
    pub fn already_exists(kind: KindRef, name: &str) -> Failure {
        let message = format!("{} \"{name}\" already exists", kind.group_resource());
        Failure::new(409, "AlreadyExists", message, of(kind, name))
    }

    /// 409: changed since it was read.
    pub fn conflict(kind: KindRef, name: &str) -> Failure {
        Failure::conflict_because(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 with another reason in words.
    pub fn conflict_because(kind: KindRef, name: &str, why: &str) -> Failure {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            kind.group_resource()
        );
        Failure::new(409, "Conflict", message, of(kind, name))
    }

    /// 409: a deletion's precondition does not hold.
    pub fn precondition(kind: KindRef, name: &str, why: &str) -> Failure {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            kind.kind
        );
        let details = details(name, "", kind.kind);
        Failure::new(409, "Conflict", message, Some(Value::Object(details)))
    }

    /// 409: fields belong to other managers; `(manager as shown, field)`.
    pub fn apply_conflict(conflicts: &[(String, String)]) -> Failure {
        let count = conflicts.len();
        let noun = if count == 1 { "conflict" } else { "conflicts" };
        let mut message = format!("Apply failed with {count} {noun}: ");
        if let [(manager, field)] = conflicts {
            message.push_str(&format!("conflict with {manager}: {field}"));
        } else {
            let mut lines: Vec<String> = Vec::new();
            let mut last = "";
            for (manager, field) in conflicts {
                if manager != last {
                    lines.push(format!("conflicts with {manager}:"));
                    last = manager;
                }
                lines.push(format!("- {field}"));
            }
            message.push_str(&lines.join("\n"));
        }
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(manager, field)| {
                json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with {manager}"),
                    "field": field,
                })
            })
            .collect();
        Failure::new(409, "Conflict", message, Some(json!({"causes": causes})))
    }

    /// 410 with Kubernetes' wording for `what` (`watch` or `list`).
    pub fn expired(what: &str) -> Failure {
        let message = format!("The resourceVersion for the provided {what} is too old.");
        Failure::new(410, "Expired", message, None)
    }

    /// 410 for a continue token; `next` goes on with what is there now.
    pub fn continue_expired(next: String) -> Failure {
        let mut failure = Failure::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
            None,
        );
        failure.continue_token = Some(next);
        failure
    }

    /// 413.
    pub fn too_large(limit: usize) -> Failure {
        let message = format!("Request entity too large: limit is {limit}");
        Failure::new(413, "RequestEntityTooLarge", message, None)
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Failure {
        Failure::new(415, "UnsupportedMediaType", message, Some(json!({})))
    }

    /// 422 for an object.
    pub fn invalid(kind: KindRef, name: &str, causes: &[Cause]) -> Failure {
        Failure::invalid_as(&kind.group_kind(), kind.group, kind.kind, name, causes)
    }

    /// 422 for something that is not a served object, such as the options of a request.
    pub fn invalid_as(
        group_kind: &str,
        group: &str,
        kind: &str,
        name: &str,
        causes: &[Cause],
    ) -> Failure {
        let all: Vec<String> = causes
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        let what = if all.len() == 1 {
            all.concat()
        } else {
            format!("[{}]", all.join(", "))
        };
        let mut details = details(name, group, kind);
        let causes: Vec<Value> = causes.iter().map(Cause::value).collect();
        details.insert("causes".to_owned(), Value::Array(causes));
        let message = format!("{group_kind} \"{name}\" is invalid: {what}");
        Failure::new(422, "Invalid", message, Some(Value::Object(details)))
    }

    /// 422: a JSON patch that does not fit.
    pub fn patch_does_not_fit() -> Failure {
        Failure::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
            Some(json!({})),
        )
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Failure {
        Failure::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
            Some(json!({"causes": [{"message": message.to_string()}]})),
        )
    }

    /// 501: Kubernetes can, this server cannot (yet).
    pub fn not_implemented(message: impl Into<String>) -> Failure {
        Failure::new(501, "NotImplemented", message, Some(json!({})))
    }

    /// 503: shutting down.
    pub fn shutting_down() -> Failure {
        Failure::new(
            503,
            "ServiceUnavailable",
            "devenv is shutting down",
            Some(json!({})),
        )
    }

    /// 504: a resourceVersion from the future.
    pub fn too_large_version(asked: u64, current: u64) -> Failure {
        Failure::new(
            504,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
            Some(json!({
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            })),
        )
    }

    /// The `Status` object.
    pub fn value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = (**details).clone();
        }
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = json!(token);
        }
        status
    }

    pub(super) fn into_response(self) -> Response<ApiBody> {
        let code = StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        body::json(code, &self.value())
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Failure {
        match e {
            StoreError::NotFound { kind, name } => Failure::not_found(kind, &name),
            StoreError::AlreadyExists { kind, name } => Failure::already_exists(kind, &name),
            StoreError::Conflict { kind, name } => Failure::conflict(kind, &name),
            StoreError::Invalid { .. } | StoreError::Shape { .. } => {
                Failure::bad_request(with_source(&e))
            }
            StoreError::Gone { .. } => Failure::expired("watch"),
            StoreError::Closed => Failure::shutting_down(),
            other => Failure::internal(with_source(&other)),
        }
    }
}

/// An error and what caused it, in one line.
pub(super) fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The answer to a deletion that was done.
pub(super) fn deleted(kind: KindRef, name: &str, uid: &str) -> Value {
    let mut details = details(name, kind.group, kind.plural);
    details.insert("uid".to_owned(), json!(uid));
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{CONFIG_MAP, DEPLOYMENT};

    #[test]
    fn the_forms_of_a_real_server() {
        assert_eq!(
            Failure::not_found(&DEPLOYMENT, "web").value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "deployments.apps \"web\" not found", "reason": "NotFound",
                "details": {"name": "web", "group": "apps", "kind": "deployments"}, "code": 404})
        );
        assert_eq!(
            Failure::apply_conflict(&[("\"m1\"".to_owned(), ".data.k".to_owned())]).value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "Apply failed with 1 conflict: conflict with \"m1\": .data.k",
                "reason": "Conflict",
                "details": {"causes": [{"reason": "FieldManagerConflict",
                    "message": "conflict with \"m1\"", "field": ".data.k"}]}, "code": 409})
        );
        let two = [
            Cause::required("spec.a", ""),
            Cause::invalid("spec.b", "-1", "too small"),
        ];
        let failure = Failure::invalid(&CONFIG_MAP, "c", &two);
        assert_eq!(
            failure.message,
            "ConfigMap \"c\" is invalid: [spec.a: Required value, spec.b: Invalid value: -1: too small]"
        );
        let many = [
            ("\"a\"".to_owned(), ".x".to_owned()),
            ("\"a\"".to_owned(), ".y".to_owned()),
            ("\"b\"".to_owned(), ".z".to_owned()),
        ];
        assert_eq!(
            Failure::apply_conflict(&many).message,
            "Apply failed with 3 conflicts: conflicts with \"a\":\n- .x\n- .y\nconflicts with \"b\":\n- .z"
        );
    }
}
