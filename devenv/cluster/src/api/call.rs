//! One request for objects, and what it carries.

use http::{HeaderMap, header};
use hyper::body::Bytes;
use serde_json::Value;

use super::{
    managed::Manager,
    protobuf,
    route::{Form, Query, Target},
    status::{Cause, Failure},
};
use crate::{kinds::KindRef, store};

/// A request for a resource, read and sorted.
pub(super) struct Call {
    pub target: Target,
    pub query: Query,
    pub form: Form,
    pub content_type: String,
    pub user_agent: String,
    pub body: Bytes,
}

impl Call {
    pub fn new(target: Target, query: Query, form: Form, headers: &HeaderMap, body: Bytes) -> Call {
        let text = |name| {
            headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let content_type: String = text(header::CONTENT_TYPE);
        let content_type = content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        Call {
            target,
            query,
            form,
            content_type,
            user_agent: text(header::USER_AGENT),
            body,
        }
    }

    pub fn kind(&self) -> KindRef {
        self.target.kind
    }

    pub fn namespace(&self) -> &str {
        &self.target.namespace
    }

    /// The object's name; only asked for where the route has one.
    pub fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    /// The object in the body, as JSON; what it says of its kind and place must agree with the URL.
    pub fn object(&self) -> Result<Value, Failure> {
        let value = match self.content_type.as_str() {
            "" | "application/json" => self.json()?,
            "application/yaml" => self.yaml()?,
            "application/vnd.kubernetes.protobuf" => {
                protobuf::object(&self.body).map_err(|_| not_in_protobuf())?
            }
            _ => {
                return Err(Failure::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
                ));
            }
        };
        self.check_identity(&value)?;
        Ok(value)
    }

    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let start: String = String::from_utf8_lossy(&self.body).chars().take(120).collect();
            Failure::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {e} ({start})",
                self.kind().kind
            ))
        })
    }

    /// JSON is YAML, but much faster to read as what it is.
    pub fn yaml(&self) -> Result<Value, Failure> {
        if let Ok(value) = serde_json::from_slice(&self.body) {
            return Ok(value);
        }
        let text = std::str::from_utf8(&self.body)
            .map_err(|e| Failure::bad_request(format!("error decoding YAML: {e}")))?;
        serde_saphyr::from_str(text)
            .map_err(|e| Failure::bad_request(format!("error decoding YAML: {e}")))
    }

    /// Kind, namespace and name in a body against those of the URL.
    pub fn check_identity(&self, value: &Value) -> Result<(), Failure> {
        let kind = self.kind();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (given_kind, given_version) = (text(&value["kind"]), text(&value["apiVersion"]));
        let version = kind.api_version();
        if !given_kind.is_empty() && given_kind != kind.kind
            || !given_version.is_empty() && given_version != version
        {
            let shown = given_version.rsplit('/').next().unwrap_or_default();
            let group = if kind.group.is_empty() {
                "core"
            } else {
                kind.group
            };
            let ours = kind.kind;
            return Err(Failure::bad_request(format!(
                "{given_kind} in version {shown:?} cannot be handled as a {ours}: converting ({shown}.{given_kind}) to ({group}.{ours}): unknown conversion"
            )));
        }
        let namespace = text(&value["metadata"]["namespace"]);
        if !namespace.is_empty() && namespace != self.namespace() {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let name = text(&value["metadata"]["name"]);
        if let Some(wanted) = &self.target.name
            && name != *wanted
            && !name.is_empty()
        {
            return Err(Failure::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({wanted})"
            )));
        }
        Ok(())
    }

    /// Whether the written version is the one that is there.
    pub fn check_version(&self, old: &Value, new: &Value) -> Result<(), Failure> {
        let differs = |field: &str| {
            let given = new["metadata"][field].as_str().unwrap_or_default();
            !given.is_empty() && given != "0" && Some(given) != old["metadata"][field].as_str()
        };
        if differs("uid") {
            let why = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                new["metadata"]["uid"].as_str().unwrap_or_default(),
                old["metadata"]["uid"].as_str().unwrap_or_default()
            );
            return Err(Failure::conflict_because(self.kind(), self.name(), &why));
        }
        if differs("resourceVersion") {
            return Err(Failure::conflict(self.kind(), self.name()));
        }
        Ok(())
    }

    /// Who writes: `fieldManager`, or what the User-Agent calls itself.
    pub fn manager(&self) -> Manager {
        let agent = self.user_agent.split('/').next().unwrap_or_default();
        let name = self
            .query
            .get("fieldManager")
            .unwrap_or(if agent.is_empty() { "unknown" } else { agent });
        Manager {
            name: name.to_owned(),
            subresource: self.target.subresource.clone().unwrap_or_default(),
            time: store::timestamp(jiff::Timestamp::now()),
        }
    }

    /// The manager of an apply, which must be named.
    pub fn apply_manager(&self) -> Result<Manager, Failure> {
        if self.query.get("fieldManager").is_none() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Failure::invalid_as(
                "PatchOptions.meta.k8s.io",
                "meta.k8s.io",
                "PatchOptions",
                "",
                &[cause],
            ));
        }
        Ok(self.manager())
    }

    /// Refuses or reports fields that the type does not have, as `fieldValidation` wants it.
    pub fn unknown_fields(&self, unknown: Vec<String>) -> Result<Vec<String>, Failure> {
        let mut warnings: Vec<String> = unknown
            .into_iter()
            .map(|f| format!("unknown field {f:?}"))
            .collect();
        match self.query.get("fieldValidation") {
            Some("Strict") if !warnings.is_empty() => {
                let kind = self.kind().kind;
                Err(Failure::bad_request(format!(
                    "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
                    self.kind().version,
                    warnings.join(", ")
                )))
            }
            Some("Ignore") => Ok(Vec::new()),
            _ => {
                // Bounded: it travels in headers.
                warnings.truncate(10);
                Ok(warnings)
            }
        }
    }
}

/// Newer kubectl sends its `create` commands in a form that this server reads in part only.
fn not_in_protobuf() -> Failure {
    Failure::unsupported_media_type(
        "devenv's API server does not read this object in protobuf, which kubectl 1.32 and later sends for `kubectl create …`: use `kubectl apply -f FILE`, or put `--dry-run=client -o yaml | kubectl apply -f -` behind the command",
    )
}
