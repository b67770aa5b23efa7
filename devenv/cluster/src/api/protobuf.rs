//! Kubernetes' protobuf form of the objects that `kubectl create KIND NAME` makes.
//!
//! kubectl from 1.32 on sends those, and no others, in this form: Namespaces, ConfigMaps, Secrets,
//! Deployments, Services and Ingresses with the few fields that its options fill. Field numbers are
//! those of `generated.proto` in k8s.io/api and k8s.io/apimachinery. What has a value and no line in
//! the tables below makes the whole body one that is not read: nothing is dropped in silence.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

/// What every such body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtobufError {
    /// It is not of this form, or cut off.
    #[error("the body is not protobuf as Kubernetes writes it")]
    Malformed,
    /// A kind or field without a line in the tables.
    #[error("the body has something that is not read in protobuf")]
    Unknown,
}

/// How a field is written and what it is in JSON.
#[derive(Clone, Copy)]
enum Form {
    Text,
    /// A pointer in Go: 0 is a value, not its absence.
    OptionalNumber,
    Number,
    Flag,
    Texts,
    /// `map<string, string>`.
    Labels,
    /// `map<string, bytes>`, base64 in JSON.
    Data,
    IntOrString,
    One(&'static [Field]),
    Many(&'static [Field]),
    /// A message whose fields stand in the JSON of the one around it.
    Inline(&'static [Field]),
    /// The server's own to say.
    Ignored,
}

type Field = (u64, &'static str, Form);

const METADATA: &[Field] = &[
    (1, "name", Form::Text),
    (2, "generateName", Form::Text),
    (3, "namespace", Form::Text),
    // Written although it is not set.
    (8, "creationTimestamp", Form::Ignored),
    (11, "labels", Form::Labels),
    (12, "annotations", Form::Labels),
    (14, "finalizers", Form::Texts),
];
const NAMESPACE: &[Field] = &[
    (1, "metadata", Form::One(METADATA)),
    (2, "spec", Form::One(&[(1, "finalizers", Form::Texts)])),
    (3, "status", Form::Ignored),
];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Form::One(METADATA)),
    (2, "data", Form::Labels),
    (3, "binaryData", Form::Data),
    (4, "immutable", Form::Flag),
];
const SECRET: &[Field] = &[
    (1, "metadata", Form::One(METADATA)),
    (2, "data", Form::Data),
    (3, "type", Form::Text),
    (4, "stringData", Form::Labels),
    (5, "immutable", Form::Flag),
];
const SELECTOR: &[Field] = &[(1, "matchLabels", Form::Labels)];
const CONTAINER_PORT: &[Field] = &[
    (1, "name", Form::Text),
    (2, "hostPort", Form::Number),
    (3, "containerPort", Form::Number),
    (4, "protocol", Form::Text),
    (5, "hostIP", Form::Text),
];
const CONTAINER: &[Field] = &[
    (1, "name", Form::Text),
    (2, "image", Form::Text),
    (3, "command", Form::Texts),
    (4, "args", Form::Texts),
    (5, "workingDir", Form::Text),
    (6, "ports", Form::Many(CONTAINER_PORT)),
    (13, "terminationMessagePath", Form::Text),
    (14, "imagePullPolicy", Form::Text),
    (16, "stdin", Form::Flag),
    (17, "stdinOnce", Form::Flag),
    (18, "tty", Form::Flag),
    (20, "terminationMessagePolicy", Form::Text),
];
const POD: &[Field] = &[
    (2, "containers", Form::Many(CONTAINER)),
    (3, "restartPolicy", Form::Text),
    (4, "terminationGracePeriodSeconds", Form::OptionalNumber),
];
const TEMPLATE: &[Field] = &[
    (1, "metadata", Form::One(METADATA)),
    (2, "spec", Form::One(POD)),
];
const DEPLOYMENT_SPEC: &[Field] = &[
    (1, "replicas", Form::OptionalNumber),
    (2, "selector", Form::One(SELECTOR)),
    (3, "template", Form::One(TEMPLATE)),
    (4, "strategy", Form::One(&[(1, "type", Form::Text)])),
    (5, "minReadySeconds", Form::Number),
    (6, "revisionHistoryLimit", Form::OptionalNumber),
    (7, "paused", Form::Flag),
    (9, "progressDeadlineSeconds", Form::OptionalNumber),
];
const DEPLOYMENT: &[Field] = &[
    (1, "metadata", Form::One(METADATA)),
    (2, "spec", Form::One(DEPLOYMENT_SPEC)),
    (3, "status", Form::Ignored),
];
const SERVICE_PORT: &[Field] = &[
    (1, "name", Form::Text),
    (2, "protocol", Form::Text),
    (3, "port", Form::Number),
    (4, "targetPort", Form::IntOrString),
    (5, "nodePort", Form::Number),
    (6, "appProtocol", Form::Text),
];
const SERVICE_SPEC: &[Field] = &[
    (1, "ports", Form::Many(SERVICE_PORT)),
    (2, "selector", Form::Labels),
    (3, "clusterIP", Form::Text),
    (4, "type", Form::Text),
    (7, "sessionAffinity", Form::Text),
    (10, "externalName", Form::Text),
];
const SERVICE: &[Field] = &[
    (1, "metadata", Form::One(METADATA)),
    (2, "spec", Form::One(SERVICE_SPEC)),
    (3, "status", Form::Ignored),
];
const BACKEND_PORT: &[Field] = &[(1, "name", Form::Text), (2, "number", Form::Number)];
const BACKEND_SERVICE: &[Field] = &[
    (1, "name", Form::Text),
    (2, "port", Form::One(BACKEND_PORT)),
];
const BACKEND: &[Field] = &[(4, "service", Form::One(BACKEND_SERVICE))];
const PATH: &[Field] = &[
    (1, "path", Form::Text),
    (2, "backend", Form::One(BACKEND)),
    (3, "pathType", Form::Text),
];
const HTTP: &[Field] = &[(1, "paths", Form::Many(PATH))];
const RULE: &[Field] = &[
    (1, "host", Form::Text),
    (2, "", Form::Inline(&[(1, "http", Form::One(HTTP))])),
];
const TLS: &[Field] = &[(1, "hosts", Form::Texts), (2, "secretName", Form::Text)];
const INGRESS_SPEC: &[Field] = &[
    (1, "defaultBackend", Form::One(BACKEND)),
    (2, "tls", Form::Many(TLS)),
    (3, "rules", Form::Many(RULE)),
    (4, "ingressClassName", Form::Text),
];
const INGRESS: &[Field] = &[
    (1, "metadata", Form::One(METADATA)),
    (2, "spec", Form::One(INGRESS_SPEC)),
    (3, "status", Form::Ignored),
];

/// The object in a body, as JSON.
pub(super) fn object(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Malformed)?;
    // runtime.Unknown: type, the object, its encoding and content type.
    let (mut identity, mut raw) = (Map::new(), &[][..]);
    for part in parts(envelope) {
        match part? {
            (1, Wire::Bytes(bytes)) => {
                let type_meta = &[(1, "apiVersion", Form::Text), (2, "kind", Form::Text)];
                message(bytes, type_meta, &mut identity)?;
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (_, wire) if wire.is_zero() => {}
            _ => return Err(ProtobufError::Unknown),
        }
    }
    let text = |name: &str| identity.get(name).and_then(Value::as_str);
    let fields = match (text("apiVersion"), text("kind")) {
        (Some("v1"), Some("Namespace")) => NAMESPACE,
        (Some("v1"), Some("ConfigMap")) => CONFIG_MAP,
        (Some("v1"), Some("Secret")) => SECRET,
        (Some("v1"), Some("Service")) => SERVICE,
        (Some("apps/v1"), Some("Deployment")) => DEPLOYMENT,
        (Some("networking.k8s.io/v1"), Some("Ingress")) => INGRESS,
        _ => return Err(ProtobufError::Unknown),
    };
    message(raw, fields, &mut identity)?;
    Ok(Value::Object(identity))
}

/// Adds the fields of a message to `out`. Empty values are absent ones, as in Kubernetes' JSON.
fn message(
    bytes: &[u8],
    fields: &[Field],
    out: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    for part in parts(bytes) {
        let (number, wire) = part?;
        match fields.iter().find(|(n, ..)| *n == number) {
            Some((_, name, form)) => field(name, *form, wire, out)?,
            None if wire.is_zero() => {}
            None => return Err(ProtobufError::Unknown),
        }
    }
    Ok(())
}

fn field(
    name: &str,
    form: Form,
    wire: Wire<'_>,
    out: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    let mut append = |name: &str, value: Value| {
        let list = out.entry(name).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(value);
        }
    };
    match (form, wire) {
        (Form::Ignored, _) => {}
        (Form::Text, Wire::Bytes([])) => {}
        (Form::Text, Wire::Bytes(bytes)) => {
            out.insert(name.to_owned(), text(bytes)?.into());
        }
        (Form::Texts, Wire::Bytes(bytes)) => append(name, text(bytes)?.into()),
        (Form::Number, Wire::Number(0)) | (Form::Flag, Wire::Number(0)) => {}
        (Form::Number | Form::OptionalNumber, Wire::Number(number)) => {
            out.insert(name.to_owned(), number.cast_signed().into());
        }
        (Form::Flag, Wire::Number(_)) => {
            out.insert(name.to_owned(), true.into());
        }
        (Form::Labels | Form::Data, Wire::Bytes(bytes)) => {
            let (key, value) = entry(bytes)?;
            let value = match form {
                Form::Data => BASE64_STANDARD.encode(value),
                _ => text(value)?.to_owned(),
            };
            let map = out.entry(name).or_insert_with(|| json!({}));
            map[key] = value.into();
        }
        (Form::IntOrString, Wire::Bytes(bytes)) => {
            let either = &[
                (1, "is_text", Form::Flag),
                (2, "number", Form::OptionalNumber),
                (3, "text", Form::Text),
            ];
            let mut read = Map::new();
            message(bytes, either, &mut read)?;
            let wanted = if read.contains_key("is_text") {
                "text"
            } else {
                "number"
            };
            // Number 0 stands for nothing, as text "" does.
            let value = read.remove(wanted).filter(|v| *v != json!(0));
            out.extend(value.map(|value| (name.to_owned(), value)));
        }
        (Form::One(fields), Wire::Bytes(bytes)) => {
            let mut one = Map::new();
            message(bytes, fields, &mut one)?;
            if !one.is_empty() {
                out.insert(name.to_owned(), one.into());
            }
        }
        (Form::Many(fields), Wire::Bytes(bytes)) => {
            let mut one = Map::new();
            message(bytes, fields, &mut one)?;
            append(name, one.into());
        }
        (Form::Inline(fields), Wire::Bytes(bytes)) => message(bytes, fields, out)?,
        _ => return Err(ProtobufError::Malformed),
    }
    Ok(())
}

/// An entry of a map.
fn entry(bytes: &[u8]) -> Result<(&str, &[u8]), ProtobufError> {
    let (mut key, mut value) = (&[][..], &[][..]);
    for part in parts(bytes) {
        match part? {
            (1, Wire::Bytes(bytes)) => key = bytes,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => return Err(ProtobufError::Malformed),
        }
    }
    Ok((text(key)?, value))
}

fn text(bytes: &[u8]) -> Result<&str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Malformed)
}

/// A value as it is written; Kubernetes uses no other forms in these objects.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Wire<'_> {
    fn is_zero(self) -> bool {
        match self {
            Wire::Number(number) => number == 0,
            Wire::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

/// The fields of a message in their order; ends after the first that is malformed.
fn parts(mut rest: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>), ProtobufError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let part = part(&mut rest).ok_or(ProtobufError::Malformed);
        if part.is_err() {
            rest = &[];
        }
        Some(part)
    })
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let tag = varint(rest)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(rest)?),
        2 => {
            let len = usize::try_from(varint(rest)?).ok()?;
            let (bytes, tail) = rest.split_at_checked(len)?;
            *rest = tail;
            Wire::Bytes(bytes)
        }
        _ => return None,
    };
    Some((tag >> 3, wire))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn sent(number: u8, bytes: &[u8]) -> Vec<u8> {
        let len = u8::try_from(bytes.len()).expect("short");
        assert!(len < 128);
        [&[number << 3 | 2, len], bytes].concat()
    }

    fn body(kind: &str, object: &[u8]) -> Vec<u8> {
        let identity = [sent(1, b"v1"), sent(2, kind.as_bytes())].concat();
        [
            MAGIC.to_vec(),
            sent(1, &identity),
            sent(2, object),
            sent(3, b""),
        ]
        .concat()
    }

    #[test]
    fn a_secret_with_what_go_writes_for_nothing() {
        let metadata = [sent(1, b"s"), sent(2, b""), sent(8, b""), vec![7 << 3, 0]].concat();
        let data = [sent(1, b"k"), sent(2, b"\xff\0")].concat();
        let secret = [sent(1, &metadata), sent(2, &data), sent(3, b"Opaque")].concat();
        assert_eq!(
            object(&body("Secret", &secret)),
            Ok(
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
                "data": {"k": "/wA="}, "type": "Opaque"})
            )
        );
    }

    #[rstest]
    #[case::no_magic(b"{}".to_vec(), ProtobufError::Malformed)]
    #[case::cut_off(body("Secret", &[0x0a, 9, 1]), ProtobufError::Malformed)]
    #[case::endless_number(body("Secret", &[0xff; 11]), ProtobufError::Malformed)]
    #[case::huge_length(body("Secret", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), ProtobufError::Malformed)]
    #[case::wrong_form(body("Secret", &[1 << 3, 1]), ProtobufError::Malformed)]
    #[case::fixed_width(body("Secret", &[1 << 3 | 5, 0, 0, 0, 0]), ProtobufError::Malformed)]
    #[case::not_text(body("ConfigMap", &sent(1, &sent(1, b"\xff"))), ProtobufError::Malformed)]
    #[case::other_kind(body("Pod", b""), ProtobufError::Unknown)]
    #[case::other_field(body("Secret", &sent(9, b"x")), ProtobufError::Unknown)]
    #[case::other_field_deeper(body("Secret", &sent(1, &sent(5, b"uid"))), ProtobufError::Unknown)]
    fn what_is_not_read(#[case] body: Vec<u8>, #[case] why: ProtobufError) {
        assert_eq!(object(&body), Err(why));
    }
}
