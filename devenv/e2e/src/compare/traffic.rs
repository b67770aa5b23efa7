//! What suites send, one request for each step that sends any.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    capture::Source,
    outcome::Place,
    plan::PlannedSuite,
    step::{http, short_url},
    suite::{
        Action, Step, Suite,
        spec::{HttpSpec, LoadSpec, SplitSpec},
    },
};

/// The requests of a test, in order.
pub(super) struct Scenario {
    /// Which suite it is of, counted among those that are planned.
    pub suite: usize,
    pub requests: Vec<Request>,
}

/// A request, its variables still to be put in.
pub(super) struct Request {
    /// `POST /api`.
    pub name: String,
    pub place: Place,
    pub spec: HttpSpec,
    pub capture: Vec<(String, Source)>,
}

/// What is sent, and what isn't.
#[derive(Default)]
pub(super) struct Traffic {
    pub suites: Vec<Arc<Suite>>,
    pub scenarios: Vec<Scenario>,
    /// How many steps of each kind are left out.
    pub left_out: BTreeMap<&'static str, usize>,
}

impl Traffic {
    pub(super) fn of(planned: &[PlannedSuite]) -> Self {
        let mut out = Self::default();
        for planned in planned.iter().filter(|planned| planned.skipped.is_none()) {
            let suite = out.suites.len();
            out.suites.push(Arc::new(planned.suite.clone()));
            for test in planned
                .tests
                .iter()
                .filter_map(|&i| planned.suite.tests.get(i))
            {
                let mut requests = Vec::new();
                for step in &test.steps {
                    match request(step) {
                        Some(request) => requests.push(request),
                        None => *out.left_out.entry(kind(step)).or_default() += 1,
                    }
                }
                if !requests.is_empty() {
                    out.scenarios.push(Scenario { suite, requests });
                }
            }
        }
        out
    }
}

fn kind(step: &Step) -> &'static str {
    match step.action {
        // When it is answered as expected is a matter of time, not of the tree.
        Action::Http(_) => "polling http",
        _ => step.action.kind(),
    }
}

fn request(step: &Step) -> Option<Request> {
    let spec = match &step.action {
        Action::Http(spec) if step.poll.is_none() => spec.clone(),
        Action::Split(spec) => of_split(spec),
        Action::Load(spec) if spec.start.is_some() => of_load(spec),
        _ => return None,
    };
    let capture = step.capture.iter().filter_map(|(name, written)| {
        // What a step of many requests captures is about all of them.
        matches!(step.action, Action::Http(_)).then_some(())?;
        Some((name.clone(), Source::parse(written).ok()?))
    });
    Some(Request {
        name: format!("{} {}", http::method(&spec), short_url(spec.url.as_str())),
        place: step.place.clone(),
        capture: capture.collect(),
        spec,
    })
}

fn of_split(spec: &SplitSpec) -> HttpSpec {
    HttpSpec {
        method: spec.method.clone(),
        url: spec.url.clone(),
        headers: spec.headers.clone(),
        json: spec.json.clone(),
        timeout: spec.timeout,
        ..HttpSpec::default()
    }
}

fn of_load(spec: &LoadSpec) -> HttpSpec {
    let mut headers = spec.headers.clone();
    if spec.idempotency {
        let key = headers.entry("Idempotency-Key".to_owned());
        key.or_insert_with(|| "${uuid}".into());
    }
    HttpSpec {
        method: spec.method.clone(),
        url: spec.url.clone().unwrap_or_default(),
        headers,
        json: spec.json.clone(),
        timeout: spec.timeout,
        ..HttpSpec::default()
    }
}
