//! Suites: files of `tests/e2e` and sections of `devenv.toml`, read into types, with every
//! problem and its place.

mod actions;
mod check;
mod find;
mod schema;
pub mod spec;
pub mod value;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use devenv_model::{Problem, document::Document};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::outcome::Place;
pub use find::{FOLDER, FindError, Found, Known, load};
pub use schema::schema;
use spec::{
    BrowserSpec, CompareSpec, ExecSpec, Expect, FaultSpec, HttpSpec, HurlSpec, KubectlSpec,
    LoadSpec, Poll, SocketioSpec, SplitSpec, SqlSpec,
};
use value::Time;

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A suite.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The file's name without its ending; in `devenv.toml` the one it is given.
    pub name: String,
    /// The file, relative to the project's folder.
    pub file: PathBuf,
    /// The project's folder.
    pub root: PathBuf,
    /// What it proves.
    pub description: String,
    /// The workloads that it concerns; empty: all.
    pub workloads: Vec<String>,
    /// Whether it may run beside others, in an environment of its own.
    pub parallel: bool,
    /// The targets that it is for; empty: all.
    pub targets: Vec<String>,
    /// The profiles that it is for; empty: all. `default` is the one without a name.
    pub profiles: Vec<String>,
    /// The longest that each test may take.
    pub timeout: Duration,
    /// Its variables, as written.
    pub vars: BTreeMap<String, Value>,
    /// What each profile lays over them.
    pub profile_vars: BTreeMap<String, BTreeMap<String, Value>>,
    /// How answers to its requests are compared.
    pub compare: CompareSpec,
    /// Its tests, in the file's order.
    pub tests: Vec<Test>,
    /// All that it says, to tell whether it has changed.
    pub written: Value,
}

impl Suite {
    /// Whether it is for this profile.
    pub fn is_for_profile(&self, profile: Option<&str>) -> bool {
        is_for_profile(&self.profiles, profile)
    }
}

fn is_for_profile(wanted: &[String], profile: Option<&str>) -> bool {
    let profile = profile.unwrap_or("default");
    wanted.is_empty() || wanted.iter().any(|wanted| wanted == profile)
}

/// A test: steps in order, up to the first that fails.
#[derive(Clone, Debug)]
pub struct Test {
    /// Its name, unique in the suite.
    pub name: String,
    /// Where it begins.
    pub place: Place,
    /// How many more attempts it has; nothing: as the run says.
    pub retries: Option<u32>,
    /// Its steps.
    pub steps: Vec<Step>,
}

/// A step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The name that it was given.
    pub name: Option<String>,
    /// Where it stands.
    pub place: Place,
    /// What it does.
    pub action: Action,
    /// What must come of it.
    pub expect: Expect,
    /// Variables to set, and where their values are found.
    pub capture: BTreeMap<String, String>,
    /// Whether it is asked again until it is as expected.
    pub poll: Option<Poll>,
}

/// What a step does.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is described by its type")]
pub enum Action {
    Http(HttpSpec),
    Hurl(HurlSpec),
    Sql(SqlSpec),
    Socketio(SocketioSpec),
    Split(SplitSpec),
    Browser(BrowserSpec),
    Load(LoadSpec),
    Fault(FaultSpec),
    Kubectl(KubectlSpec),
    Exec(ExecSpec),
}

impl Action {
    /// The key under which it stands.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::Http(_) => "http",
            Action::Hurl(_) => "hurl",
            Action::Sql(_) => "sql",
            Action::Socketio(_) => "socketio",
            Action::Split(_) => "split",
            Action::Browser(_) => "browser",
            Action::Load(_) => "load",
            Action::Fault(_) => "fault",
            Action::Kubectl(_) => "kubectl",
            Action::Exec(_) => "exec",
        }
    }
}

/// A suite as written.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "devenv end-to-end suite", deny_unknown_fields)]
struct RawSuite {
    /// In `devenv.toml`: its name. A file's is that of the file.
    #[schemars(skip)]
    name: String,
    /// What it proves.
    description: String,
    /// The workloads that it concerns, for `devenv test watch`; default: all.
    workloads: Vec<String>,
    /// Whether it may run beside others, in an environment of its own.
    parallel: bool,
    /// The targets that it is for: `local`, `kind`, `kube` or `kube:CONTEXT`; default: all.
    targets: Vec<String>,
    /// The profiles that it is for (`default` names the one without a profile); default: all.
    profiles: Vec<String>,
    /// The longest that each test may take; default 60s.
    timeout: Option<Time>,
    /// Variables: `${name}` in every string of the file.
    vars: BTreeMap<String, Value>,
    /// What profiles lay over it.
    profile: BTreeMap<String, RawProfile>,
    /// How answers to its requests are compared by `devenv test e2e --compare`.
    compare: CompareSpec,
    /// Its tests, in order.
    test: Vec<RawTest>,
}

/// What a profile lays over a suite.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
struct RawProfile {
    /// Variables with other values.
    vars: BTreeMap<String, Value>,
}

/// A test: steps in order, up to the first that fails.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
struct RawTest {
    /// Unique in the suite.
    name: String,
    /// How many more attempts it has; default: `--retries`.
    retries: Option<u32>,
    /// Its steps, in order.
    step: Vec<RawStep>,
}

/// A step: exactly one of its kinds, and what is expected of it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
struct RawStep {
    /// For people.
    name: Option<String>,
    /// One HTTP request.
    http: Option<HttpSpec>,
    /// Hurl files.
    hurl: Option<HurlSpec>,
    /// A statement for the environment's database.
    sql: Option<SqlSpec>,
    /// A Socket.IO session.
    socketio: Option<SocketioSpec>,
    /// Many requests, counted by who answered.
    split: Option<SplitSpec>,
    /// A step in the test's browser.
    browser: Option<BrowserSpec>,
    /// A load in the background.
    load: Option<LoadSpec>,
    /// A disturbance.
    fault: Option<FaultSpec>,
    /// kubectl.
    kubectl: Option<KubectlSpec>,
    /// A program.
    exec: Option<ExecSpec>,
    /// What must come of it.
    expect: Expect,
    /// Variables to set: a JSON path, `header:NAME`, `body` or `status`.
    capture: BTreeMap<String, String>,
    /// Ask again until it is as expected, or the time is up.
    poll: Option<Poll>,
}

/// The kinds of steps: each is a key of a step.
const KINDS: [&str; 10] = [
    "http", "hurl", "sql", "socketio", "split", "browser", "load", "fault", "kubectl", "exec",
];

/// Reads one suite. `file` is relative to `root`, the project's folder.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(root: &Path, file: &Path, text: String) -> Result<Suite, Vec<Problem>> {
    let mut document = Document::parse(&file.display().to_string(), text);
    match read(&mut document, root, file, None) {
        Some(suite) => sound(document, suite),
        None => Err(document.problems()),
    }
}

/// The suite that `document` says, a file of its own or a part of one. What is wrong with
/// it is noted there; nothing if it is no suite at all.
fn read(document: &mut Document, root: &Path, file: &Path, known: Option<&Known>) -> Option<Suite> {
    let raw = document.read::<RawSuite>("a suite")?;
    let folder = root.join(file.parent().unwrap_or(Path::new("")));
    check::check(document, &raw, &folder, known);
    let place = |path: &str| Place {
        file: file.to_owned(),
        line: document.origin(path).line,
    };
    let tests = raw
        .test
        .into_iter()
        .enumerate()
        .map(|(t, test)| Test {
            place: place(&format!("test[{t}]")),
            steps: test
                .step
                .into_iter()
                .enumerate()
                .filter_map(|(s, step)| step.typed(place(&format!("test[{t}].step[{s}]"))))
                .collect(),
            name: test.name,
            retries: test.retries,
        })
        .collect();
    Some(Suite {
        name: if raw.name.is_empty() {
            let stem = file.file_stem().unwrap_or_default();
            stem.to_string_lossy().into_owned()
        } else {
            raw.name
        },
        file: file.to_owned(),
        root: root.to_owned(),
        description: raw.description,
        workloads: raw.workloads,
        parallel: raw.parallel,
        targets: raw.targets,
        profiles: raw.profiles,
        timeout: raw.timeout.map_or(TEST_TIMEOUT, Duration::from),
        vars: raw.vars,
        profile_vars: raw.profile.into_iter().map(|(k, v)| (k, v.vars)).collect(),
        compare: raw.compare,
        tests,
        written: document.value("").unwrap_or_default(),
    })
}

/// The suite, if nothing is wrong with it.
fn sound(document: Document, suite: Suite) -> Result<Suite, Vec<Problem>> {
    let problems = document.problems();
    if problems.is_empty() {
        Ok(suite)
    } else {
        Err(problems)
    }
}

impl RawStep {
    /// Nothing if it does nothing: that has been reported.
    fn typed(self, place: Place) -> Option<Step> {
        let action = None
            .or(self.http.map(Action::Http))
            .or(self.hurl.map(Action::Hurl))
            .or(self.sql.map(Action::Sql))
            .or(self.socketio.map(Action::Socketio))
            .or(self.split.map(Action::Split))
            .or(self.browser.map(Action::Browser))
            .or(self.load.map(Action::Load))
            .or(self.fault.map(Action::Fault))
            .or(self.kubectl.map(Action::Kubectl))
            .or(self.exec.map(Action::Exec))?;
        Some(Step {
            name: self.name,
            place,
            action,
            expect: self.expect,
            capture: self.capture,
            poll: self.poll,
        })
    }
}

#[cfg(test)]
mod tests;
