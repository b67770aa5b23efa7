//! A load in the background, open loop: requests go out at their times whether or not
//! earlier ones have been answered, and what was acknowledged must be found afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::{
    task::{JoinError, JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, Session, StepResult,
    http::{Body, Request, TIMEOUT, chain, method, sort_of},
    sql,
};
use crate::{
    capture::{Answer, Source},
    matcher::shortened,
    outcome::Mismatch,
    suite::spec::{HttpSpec, LoadSpec},
    vars::Vars,
};

const RATE: f64 = 50.0;
const RETRIED_FOR: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
/// Ids in one query.
const BATCH: usize = 500;

/// Starts a load, or stops one and looks at what came of it. `written` has its variables
/// still: each request has its own put in.
pub async fn run(written: &LoadSpec, context: &mut Context) -> StepResult {
    match (&written.start, &written.stop) {
        (Some(name), _) => start(name.as_str(), written, context),
        (None, Some(name)) => stop(name.as_str(), written, context).await,
        (None, None) => StepResult::failed("load", "start or stop", "neither"),
    }
}

fn start(name: &str, written: &LoadSpec, context: &mut Context) -> StepResult {
    if context.sessions.get::<Load>(name).is_some() {
        return StepResult::failed("start", "a name of its own", format!("{name} runs already"));
    }
    let plan = match Plan::new(written, context) {
        Ok(plan) => Arc::new(plan),
        Err(why) => return StepResult::failed("load", "one that can be sent", why),
    };
    // One that can't be made is said now, not a thousand times later.
    if let Err(why) = plan.request() {
        return StepResult::failed("request", "one that can be sent", why);
    }
    let stop = CancellationToken::new();
    let task = tokio::spawn(drive(plan, stop.clone()));
    context
        .sessions
        .insert(name, Load::Running(Running { stop, task }));
    StepResult {
        seen: Some(format!(
            "{} requests a second",
            written.rate.unwrap_or(RATE)
        )),
        ..StepResult::default()
    }
}

async fn stop(name: &str, written: &LoadSpec, context: &mut Context) -> StepResult {
    let Some(load) = context.sessions.get::<Load>(name) else {
        return StepResult::failed("stop", format!("a load named {name}"), "none of that name");
    };
    let totals = match load.finish().await {
        Ok(totals) => totals,
        Err(error) => return StepResult::failed("load", "its end", error.to_string()),
    };
    let ids: Vec<Value> = totals.ids.clone();
    let mut mismatches = Vec::new();
    let mut counts = [None, None];
    for (i, query) in [&written.lost, &written.doubled].into_iter().enumerate() {
        let Some(query) = query else { continue };
        let Some(url) = context.environment.database.clone() else {
            return StepResult::unsupported(
                "this environment has no database that can be reached from here",
            );
        };
        let found = match look_up(&url, query.as_str(), &ids, &context.vars).await {
            Ok(found) => found,
            Err(why) => return StepResult::failed("query", "an answer", why),
        };
        let wrong: Vec<&Value> = ids
            .iter()
            .filter(|id| found.contains(&text(id)) == (i == 1))
            .collect();
        let (what, words) = if i == 0 {
            ("lost", "are not there")
        } else {
            ("doubled", "are there twice")
        };
        if !wrong.is_empty() {
            let some: Vec<String> = wrong.iter().take(10).map(|id| text(id)).collect();
            mismatches.push(Mismatch {
                what: what.into(),
                expected: format!("none of {} acknowledged", ids.len()),
                got: format!(
                    "{} {words}: {}",
                    wrong.len(),
                    shortened(&some.join(", "), 200)
                ),
            });
        }
        if let Some(count) = counts.get_mut(i) {
            *count = Some(wrong.len());
        }
    }
    let [lost, doubled] = counts;
    let json = totals.json(lost, doubled);
    StepResult {
        seen: Some(json.to_string()),
        mismatches,
        split: (!totals.by.is_empty()).then(|| totals.by.clone()),
        answer: Answer {
            json: Some(json),
            ..Answer::default()
        },
        ..StepResult::default()
    }
}

/// The first column of what a query finds of the ids.
async fn look_up(
    url: &str,
    query: &str,
    ids: &[Value],
    vars: &Vars,
) -> Result<BTreeSet<String>, String> {
    let mut out = BTreeSet::new();
    for batch in ids.chunks(BATCH) {
        let mut vars = vars.clone();
        vars.set("ids", Value::String(vec!["?"; batch.len()].join(", ")));
        let query = vars.text(query).map_err(|e| e.to_string())?;
        // Each use of ${ids} wants all of them.
        let uses = query.matches('?').count() / batch.len();
        let args: Vec<Value> = std::iter::repeat_n(batch, uses.max(1))
            .flatten()
            .cloned()
            .collect();
        let came = sql::ask(url, &query, &args).await.map_err(|e| chain(&e))?;
        for row in came.rows {
            let columns = row.as_object().map_or(0, |columns| columns.len());
            if columns != 1 {
                return Err(format!(
                    "the query gives {columns} columns, and must give the id alone"
                ));
            }
            out.extend(
                row.as_object()
                    .into_iter()
                    .flat_map(|row| row.values())
                    .map(text),
            );
        }
    }
    Ok(out)
}

fn text(id: &Value) -> String {
    match id {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What to send, and how to read the answers.
struct Plan {
    spec: LoadSpec,
    vars: Vars,
    client: reqwest::Client,
    status: u16,
    ids: Option<Source>,
    by: Option<Source>,
    every: Duration,
}

impl Plan {
    fn new(written: &LoadSpec, context: &Context) -> Result<Self, String> {
        let acknowledged = written.acknowledged.clone().unwrap_or_default();
        let source = |text: &Option<crate::suite::value::Text>| {
            text.as_ref()
                .map(|text| Source::parse(text.as_str()))
                .transpose()
        };
        Ok(Self {
            ids: source(&acknowledged.ids)?,
            by: source(&written.by)?,
            status: acknowledged.status.unwrap_or(201),
            every: Duration::try_from_secs_f64(1.0 / written.rate.unwrap_or(RATE))
                .map_err(|_| "the rate is too low".to_owned())?
                .max(Duration::from_micros(10)),
            spec: written.clone(),
            vars: context.vars.clone(),
            client: context.http.clone(),
        })
    }

    fn request(&self) -> Result<Request, String> {
        let mut written = self.spec.clone();
        // They hold ${ids}, which is nobody's yet.
        (written.lost, written.doubled) = (None, None);
        let mut spec: LoadSpec = self.vars.fill(&written).map_err(|e| e.to_string())?;
        if spec.idempotency {
            let key = uuid::Uuid::new_v4().to_string();
            spec.headers
                .entry("Idempotency-Key".into())
                .or_insert_with(|| key.as_str().into());
        }
        let method = method(&HttpSpec {
            method: spec.method.clone(),
            json: spec.json.clone(),
            ..HttpSpec::default()
        });
        let url = spec.url.map_or_else(String::new, |url| url.0);
        let body = spec.json.map_or(Body::None, Body::Json);
        let timeout = spec.timeout.map_or(TIMEOUT, Duration::from);
        Request::new(&method, &url, &spec.headers, body, timeout)
    }
}

/// What came of one request, with all its repetitions.
#[derive(Default)]
struct One {
    acknowledged: bool,
    statuses: Vec<String>,
    ids: Vec<Value>,
    by: Option<String>,
    ms: u64,
}

/// What came of all.
#[derive(Clone, Default)]
struct Totals {
    sent: u64,
    acknowledged: u64,
    failed: u64,
    statuses: BTreeMap<String, u64>,
    by: BTreeMap<String, u64>,
    ids: Vec<Value>,
    /// From a request's time to its acknowledgement, or to the end of its patience.
    latency: Option<Histogram<u64>>,
}

impl Totals {
    fn add(&mut self, one: One) {
        self.sent += 1;
        if one.acknowledged {
            self.acknowledged += 1;
        } else {
            self.failed += 1;
        }
        for status in one.statuses {
            *self.statuses.entry(status).or_default() += 1;
        }
        if let Some(by) = one.by {
            *self.by.entry(by).or_default() += 1;
        }
        self.ids.extend(one.ids);
        if self.latency.is_none() {
            self.latency = Histogram::new(3).ok();
        }
        if let Some(latency) = &mut self.latency {
            latency.saturating_record(one.ms);
        }
    }

    fn json(&self, lost: Option<usize>, doubled: Option<usize>) -> Value {
        let at = |quantile: f64| {
            self.latency
                .as_ref()
                .map_or(0, |all| all.value_at_quantile(quantile))
        };
        json!({
            "sent": self.sent, "acknowledged": self.acknowledged, "failed": self.failed,
            "by": self.by, "statuses": self.statuses,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0),
            "lost": lost, "doubled": doubled,
        })
    }
}

/// Sends until it is stopped, then waits for what is under way.
async fn drive(plan: Arc<Plan>, stop: CancellationToken) -> Totals {
    let mut totals = Totals::default();
    let mut under_way = JoinSet::new();
    let mut times = interval(plan.every);
    // Open loop: what was missed is sent at once.
    times.set_missed_tick_behavior(MissedTickBehavior::Burst);
    // However soon it is stopped, there was a load.
    let first = times.tick().await;
    under_way.spawn(send(plan.clone(), first));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = under_way.join_next() => count(&mut totals, done),
            due = times.tick() => {
                under_way.spawn(send(plan.clone(), due));
            }
        }
    }
    while let Some(done) = under_way.join_next().await {
        count(&mut totals, done);
    }
    totals
}

fn count(totals: &mut Totals, done: Result<One, JoinError>) {
    totals.add(done.unwrap_or_else(|error| One {
        statuses: vec![error.to_string()],
        ..One::default()
    }));
}

async fn send(plan: Arc<Plan>, due: Instant) -> One {
    let mut one = One::default();
    let request = match plan.request() {
        Ok(request) => request,
        Err(why) => {
            one.statuses.push(why);
            return one;
        }
    };
    loop {
        match request.send(&plan.client).await {
            Ok(answer) => {
                one.statuses
                    .push(answer.status.unwrap_or_default().to_string());
                if answer.status == Some(plan.status) {
                    one.acknowledged = true;
                    one.by = plan
                        .by
                        .as_ref()
                        .and_then(|by| by.find(&answer))
                        .map(|v| text(&v));
                    one.ids = match plan.ids.as_ref().and_then(|ids| ids.find(&answer)) {
                        Some(Value::Array(ids)) => ids,
                        Some(id) => vec![id],
                        None => Vec::new(),
                    };
                    break;
                }
            }
            Err(error) => one.statuses.push(sort_of(&error).into()),
        }
        if !plan.spec.retry || due.elapsed() + PAUSE > RETRIED_FOR {
            break;
        }
        sleep(PAUSE).await;
    }
    one.ms = u64::try_from(due.elapsed().as_millis()).unwrap_or(u64::MAX);
    one
}

/// A load of a test.
enum Load {
    Running(Running),
    Done(Totals),
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<Totals>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    /// Stops it and waits for what is under way; the totals stay for whoever asks again.
    async fn finish(&mut self) -> Result<Totals, JoinError> {
        let totals = match self {
            Load::Done(totals) => return Ok(totals.clone()),
            Load::Running(running) => {
                running.stop.cancel();
                (&mut running.task).await?
            }
        };
        *self = Load::Done(totals.clone());
        Ok(totals)
    }
}

#[async_trait]
impl Session for Load {
    /// What nobody asked for is dropped with its requests.
    async fn close(self: Box<Self>) {}
}
