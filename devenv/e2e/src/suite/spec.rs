//! What each kind of step can be told. Variables are put in just before a step runs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::value::{Program, Text, Time};

/// One HTTP request.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct HttpSpec {
    /// `GET` if it isn't said and nothing is sent, else `POST`.
    pub method: Option<Text>,
    /// Where to.
    pub url: Text,
    /// By name.
    pub headers: BTreeMap<String, Text>,
    /// Sent as JSON, with its content type.
    pub json: Option<Value>,
    /// Sent as it is.
    pub body: Option<Text>,
    /// A file to send, relative to the suite's folder.
    pub body_file: Option<Text>,
    /// For the whole answer; default 10s.
    pub timeout: Option<Time>,
    /// Whether redirects are followed; default false.
    pub redirects: bool,
}

/// Hurl files, run with the `hurl` program.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct HurlSpec {
    /// Relative to the suite's folder.
    pub files: Vec<Text>,
    /// For all of them; default: the test's.
    pub timeout: Option<Time>,
}

/// A statement for the environment's database.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct SqlSpec {
    /// One statement, with `?` for each argument.
    pub query: Text,
    /// The arguments, in order.
    pub args: Vec<Value>,
}

/// A Socket.IO session: `open` begins one, `on` names the one that is meant.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct SocketioSpec {
    /// Opens a session of this name.
    pub open: Option<Text>,
    /// With `open`: where to.
    pub url: Option<Text>,
    /// With `open`; default `websocket`.
    pub transport: Option<Transport>,
    /// The session that is meant.
    pub on: Option<Text>,
    /// Sends an event of this name.
    pub emit: Option<Text>,
    /// With `emit`: its argument.
    pub data: Option<Value>,
    /// With `emit`: waits for the acknowledgement.
    pub ack: bool,
    /// Waits for an event of this name.
    pub event: Option<Text>,
    /// Closes the session.
    pub close: bool,
    /// Waits until the server has closed it.
    pub disconnected: bool,
    /// How long to wait; default 10s.
    pub within: Option<Time>,
}

/// How Engine.IO speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A WebSocket from the start.
    #[default]
    Websocket,
    /// HTTP long polling only.
    Polling,
}

/// Many requests, counted by who answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct SplitSpec {
    /// How many; default 100.
    pub requests: Option<u32>,
    /// At a time; default 8.
    pub concurrency: Option<u32>,
    /// As in `http`.
    pub method: Option<Text>,
    /// Where to.
    pub url: Text,
    /// By name. `${uuid}` is a new one for each request.
    pub headers: BTreeMap<String, Text>,
    /// Sent as JSON.
    pub json: Option<Value>,
    /// Where the answer says who gave it: a JSON path, or `header:NAME`.
    pub by: Text,
    /// Of each request; default 10s.
    pub timeout: Option<Time>,
}

/// A step in the test's browser; one key says what.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct BrowserSpec {
    /// Opens this address.
    pub open: Option<Text>,
    /// With `open`: width and height in CSS pixels; default 1280 by 900.
    pub window: Option<[u32; 2]>,
    /// With the first `open`: the browser's language, such as `es`.
    pub language: Option<Text>,
    /// Clicks what this CSS selector finds.
    pub click: Option<Text>,
    /// Types text.
    #[serde(rename = "type")]
    pub type_: Option<TypeSpec>,
    /// Waits until this text is seen.
    pub see: Option<Text>,
    /// Waits until this text is not seen.
    pub gone: Option<Text>,
    /// With `see` and `gone`: only in what this CSS selector finds.
    pub within: Option<Text>,
    /// Counts what this CSS selector finds.
    pub count: Option<Text>,
    /// Takes a picture of this name.
    pub screenshot: Option<Text>,
    /// Runs this script; its value is what `return` gives.
    pub script: Option<Text>,
    /// Error messages of the console that are no failure: regular expressions.
    pub allow_console: Vec<Text>,
    /// How long to wait; default 10s.
    #[serde(rename = "for")]
    pub for_: Option<Time>,
}

/// Text for an element.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct TypeSpec {
    /// A CSS selector.
    pub into: Text,
    /// What to type.
    pub text: Text,
}

/// A load in the background, open loop: `start` begins it, `stop` ends it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct LoadSpec {
    /// Starts a load of this name.
    pub start: Option<Text>,
    /// Stops the load of this name and waits for what is under way.
    pub stop: Option<Text>,
    /// As in `http`.
    pub method: Option<Text>,
    /// With `start`: where to.
    pub url: Option<Text>,
    /// By name.
    pub headers: BTreeMap<String, Text>,
    /// Sent as JSON.
    pub json: Option<Value>,
    /// Requests a second; default 50.
    pub rate: Option<f64>,
    /// Whether each request has an `Idempotency-Key` of its own.
    pub idempotency: bool,
    /// Whether a failed request is sent again until it is acknowledged, for at most 30 s.
    pub retry: bool,
    /// What counts as acknowledged; default: status 201.
    pub acknowledged: Option<AcknowledgedSpec>,
    /// Where the answer says who gave it: a JSON path, or `header:NAME`.
    pub by: Option<Text>,
    /// Of each request; default 10s.
    pub timeout: Option<Time>,
    /// With `stop`: a query that answers those of `${ids}` that are there.
    pub lost: Option<Text>,
    /// With `stop`: a query that answers those of `${ids}` that are there twice.
    pub doubled: Option<Text>,
}

/// What an acknowledgement looks like.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct AcknowledgedSpec {
    /// The status; default 201.
    pub status: Option<u16>,
    /// The JSON path of the ids that were taken.
    pub ids: Option<Text>,
}

/// A disturbance. `for` lifts it after a while (and the step waits for it), `until`
/// leaves it under a name until it is lifted; the test's end lifts it in any case.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct FaultSpec {
    /// Deletes one pod of this workload: `deployment/NAME`.
    pub delete_pod: Option<Text>,
    /// Stops the processes of this workload's pods.
    pub pause: Option<Text>,
    /// Stops the database.
    pub stop_database: bool,
    /// Drops what goes from one to the other.
    pub cut: Option<BetweenSpec>,
    /// Delays what goes from one to the other.
    pub delay: Option<DelaySpec>,
    /// Leaves no room where this workload's pods write.
    pub fill_disk: Option<Text>,
    /// How long.
    #[serde(rename = "for")]
    pub for_: Option<Time>,
    /// The name under which it stays.
    pub until: Option<Text>,
    /// Lifts what stayed under this name.
    pub lift: Option<Text>,
}

/// Two ends of a connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct BetweenSpec {
    /// The workload that connects: `deployment/NAME`.
    pub from: Text,
    /// Whom it connects to: `service/NAME`.
    pub to: Text,
}

/// Two ends of a connection, and how much slower it gets.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DelaySpec {
    /// The workload that connects: `deployment/NAME`.
    pub from: Text,
    /// Whom it connects to: `service/NAME`.
    pub to: Text,
    /// How much later each packet arrives.
    pub by: Time,
}

/// kubectl, with the environment's kubeconfig.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct KubectlSpec {
    /// Its arguments.
    pub args: Vec<Text>,
    /// What it reads.
    pub stdin: Option<Text>,
    /// Default: the test's.
    pub timeout: Option<Time>,
}

/// A program.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct ExecSpec {
    /// A list of program and arguments, or a string for `sh -c`.
    pub command: Program,
    /// Where, relative to the project's folder; default: that folder.
    pub dir: Option<Text>,
    /// More variables for it.
    pub env: BTreeMap<String, Text>,
    /// What it reads; default: nothing.
    pub stdin: Option<Text>,
    /// Default: the test's.
    pub timeout: Option<Time>,
    /// The command that installs the program where it is missing.
    pub missing: Option<Text>,
}

/// What a step must come to. A plain value means equal; a table with operators is a
/// matcher.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Expect {
    /// The HTTP status.
    pub status: Option<Value>,
    /// Headers of the answer, by name.
    pub headers: BTreeMap<String, Value>,
    /// By RFC 9535 path.
    pub json: BTreeMap<String, Value>,
    /// The body as text.
    pub body: Option<Value>,
    /// A JSON Schema that the body fits, a file relative to the suite's folder.
    pub schema: Option<Text>,
    /// The longest it may take.
    pub within: Option<Time>,
    /// Rows of a query, each with the columns that matter.
    pub rows: Option<Vec<BTreeMap<String, Value>>>,
    /// How many rows.
    pub row_count: Option<Value>,
    /// How many rows a statement changed.
    pub affected: Option<Value>,
    /// The share of each backend, from 0 to 1.
    pub shares: BTreeMap<String, f64>,
    /// How many requests a backend may be off from its share, where the split is exact.
    pub block: Option<f64>,
    /// The exit code of a program; default 0.
    pub exit: Option<Value>,
    /// What a program printed.
    pub stdout: Option<Value>,
    /// What a program printed as errors.
    pub stderr: Option<Value>,
}

/// How answers are compared by `devenv test e2e --compare`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct CompareSpec {
    /// What differs by its nature: JSON paths, `header:NAME`, `body`, `status`.
    pub ignore: Vec<String>,
    /// The headers that are compared; default: `content-type`.
    pub headers: Vec<String>,
}

impl Default for CompareSpec {
    fn default() -> Self {
        Self {
            ignore: Vec::new(),
            headers: vec!["content-type".to_owned()],
        }
    }
}

/// Asking again.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Poll {
    /// For how long; default 10s.
    pub within: Time,
    /// How often; default 100ms.
    pub every: Time,
}

impl Default for Poll {
    fn default() -> Self {
        Self {
            within: Time(std::time::Duration::from_secs(10)),
            every: Time(std::time::Duration::from_millis(100)),
        }
    }
}
