//! Sends the traffic to both sides and gathers what they answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Client;
use tokio::time::Instant;

use super::{
    Comparison, Difference, Options, Requests, Side,
    diff::{self, Rules, Seen},
    latency::{Latency, Verdict},
    tally::Tally,
    traffic::{Request, Scenario, Traffic},
};
use crate::{
    capture::Answer,
    plan::PlannedSuite,
    redact::Redactor,
    step::http,
    suite::Suite,
    vars::{VarError, Vars},
};

/// A request that neither side answers is not sent again after so many times: each may
/// take its whole time-out.
const PATIENCE: u32 = 3;

/// Sends what the suites send to both sides, and tells what differs.
///
/// # Errors
/// When no client for requests can be made.
pub async fn compare(
    planned: &[PlannedSuite],
    left: &Side,
    right: &Side,
    options: &Options,
) -> Result<Comparison, reqwest::Error> {
    let traffic = Traffic::of(planned);
    let rules = traffic
        .suites
        .iter()
        .map(|suite| Rules::new(&suite.compare));
    let mut replay = Replay {
        sides: [Ends::new(left)?, Ends::new(right)?],
        rules: rules.collect(),
        options,
        seen: traffic.scenarios.iter().map(Gathered::for_all).collect(),
        turn: 0,
    };
    for _ in 0..options.rounds {
        for (i, scenario) in traffic.scenarios.iter().enumerate() {
            let suite = traffic.suites.get(scenario.suite);
            let Some(suite) = suite else { continue };
            replay.scenario(i, scenario, suite).await;
        }
    }
    Ok(replay.ended(&traffic, left, right))
}

/// How one side is asked.
struct Ends<'s> {
    side: &'s Side,
    plain: Client,
    redirected: Client,
}

impl<'s> Ends<'s> {
    fn new(side: &'s Side) -> Result<Self, reqwest::Error> {
        Ok(Self {
            side,
            plain: http::client(false)?,
            redirected: http::client(true)?,
        })
    }

    async fn ask(&self, request: &Request, vars: &Vars, folder: &Path) -> Got {
        let spec = match vars.fill(&request.spec) {
            Ok(spec) => spec,
            Err(error) => return Got::NotSent(error),
        };
        let client = if spec.redirects {
            &self.redirected
        } else {
            &self.plain
        };
        let request = match http::prepare(&spec, folder).await {
            Ok(request) => request,
            Err(why) => return Got::Failed(why),
        };
        let start = Instant::now();
        match request.send(client).await {
            Ok(answer) => Got::Answer(answer, start.elapsed()),
            // The address is another one on each side.
            Err(error) => Got::Failed(http::sort_of(&error).to_owned()),
        }
    }
}

/// What one side had to say.
enum Got {
    Answer(Answer, Duration),
    Failed(String),
    NotSent(VarError),
}

/// What was seen of one request.
#[derive(Default)]
struct Gathered {
    places: BTreeMap<String, Tally>,
    /// In the order in which they were met.
    order: Vec<String>,
    pairs: u64,
    times: Vec<(Duration, Duration)>,
    /// How often in a row neither side answered, and what came instead.
    unanswered: u32,
    instead: Option<String>,
    not_sent: Option<VarError>,
}

impl Gathered {
    fn for_all(scenario: &Scenario) -> Vec<Self> {
        scenario.requests.iter().map(|_| Self::default()).collect()
    }

    fn add(&mut self, seen: Seen) {
        if !self.places.contains_key(&seen.place) {
            self.order.push(seen.place.clone());
        }
        self.places.entry(seen.place.clone()).or_default().add(seen);
    }

    fn pair(&mut self, left: Got, right: Got, rules: &mut Rules) -> Option<[Answer; 2]> {
        if let (Got::NotSent(error), Got::NotSent(_)) = (&left, &right) {
            self.not_sent = Some(error.clone());
            return None;
        }
        self.pairs += 1;
        if let (Got::Failed(why), Got::Failed(_)) = (&left, &right) {
            self.unanswered += 1;
            self.instead = Some(why.clone());
        } else {
            self.unanswered = 0;
        }
        let words = |got: &Got| match got {
            Got::Answer(..) => "an answer".to_owned(),
            Got::Failed(why) => why.clone(),
            Got::NotSent(error) => format!("not sent: {error}"),
        };
        self.add(Seen::at("answer", words(&left), words(&right)));
        let (Got::Answer(left, left_took), Got::Answer(right, right_took)) = (left, right) else {
            return None;
        };
        if left.status == right.status {
            self.times.push((left_took, right_took));
        }
        for seen in diff::answers(&left, &right, rules) {
            self.add(seen);
        }
        Some([left, right])
    }

    fn differences(&self, request: &Request) -> Vec<Difference> {
        let judge = |place: &String| self.places.get(place)?.judge(&request.name, place);
        let mut found: Vec<Difference> = self.order.iter().filter_map(judge).collect();
        if let (true, Some(why)) = (self.unanswered >= self.patience(), &self.instead) {
            found.push(Difference {
                request: request.name.clone(),
                place: "answer".into(),
                left: why.clone(),
                right: why.clone(),
                count: u64::from(self.unanswered),
                of: self.pairs,
                note: Some("neither side answers, so nothing is compared".into()),
                steps: Vec::new(),
            });
        }
        for difference in &mut found {
            difference.steps.push(request.place.clone());
        }
        found
    }

    /// Fewer rounds have less of it.
    fn patience(&self) -> u32 {
        PATIENCE
            .min(u32::try_from(self.pairs).unwrap_or(PATIENCE))
            .max(1)
    }
}

/// The requests of one method and path, whichever step sent them.
struct Pooled {
    request: String,
    pairs: u64,
    times: Vec<(Duration, Duration)>,
}

impl Pooled {
    fn judge(self) -> Requests {
        let latency = Latency::of(&self.times);
        Requests {
            request: self.request,
            pairs: self.pairs,
            verdict: latency.as_ref().map_or(Verdict::Unknown, Latency::verdict),
            latency,
        }
    }
}

struct Replay<'s> {
    sides: [Ends<'s>; 2],
    /// A suite's, each.
    rules: Vec<Rules>,
    options: &'s Options,
    /// By scenario, by request.
    seen: Vec<Vec<Gathered>>,
    turn: u64,
}

impl Replay<'_> {
    async fn scenario(&mut self, number: usize, scenario: &Scenario, suite: &Suite) {
        let [mut left, mut right] = [&self.sides[0], &self.sides[1]].map(|end| {
            let Options { run, run_dir, .. } = self.options;
            Vars::new(suite, &end.side.environment, run, run_dir)
        });
        let folder = folder(suite);
        for (i, request) in scenario.requests.iter().enumerate() {
            let gathered = self.seen.get_mut(number).and_then(|seen| seen.get_mut(i));
            let (Some(gathered), Some(rules)) = (gathered, self.rules.get_mut(scenario.suite))
            else {
                continue;
            };
            if gathered.unanswered >= PATIENCE {
                continue;
            }
            let seed = rand::random();
            left.seed_uuids(seed);
            right.seed_uuids(seed);
            self.turn += 1;
            let [left_end, right_end] = &self.sides;
            let (left_got, right_got) = if self.turn.is_multiple_of(2) {
                let got = left_end.ask(request, &left, &folder).await;
                (got, right_end.ask(request, &right, &folder).await)
            } else {
                let got = right_end.ask(request, &right, &folder).await;
                (left_end.ask(request, &left, &folder).await, got)
            };
            let Some(answers) = gathered.pair(left_got, right_got, rules) else {
                continue;
            };
            for (vars, answer) in [&mut left, &mut right].into_iter().zip(&answers) {
                for (name, source) in &request.capture {
                    if let Some(value) = source.find(answer) {
                        vars.set(name.clone(), value);
                    }
                }
            }
        }
    }

    fn ended(self, traffic: &Traffic, left: &Side, right: &Side) -> Comparison {
        let mut differences = Vec::new();
        let mut pooled: Vec<Pooled> = Vec::new();
        let mut not_sent = BTreeSet::new();
        let all = traffic.scenarios.iter().zip(&self.seen);
        let all = all.flat_map(|(scenario, seen)| scenario.requests.iter().zip(seen));
        for (request, gathered) in all {
            for found in gathered.differences(request) {
                join(&mut differences, found);
            }
            if let Some(error) = &gathered.not_sent {
                not_sent.insert(format!("{} was not sent: {error}", request.place));
            }
            if gathered.pairs == 0 {
                continue;
            }
            match pooled.iter_mut().find(|p| p.request == request.name) {
                Some(known) => {
                    known.pairs += gathered.pairs;
                    known.times.extend(&gathered.times);
                }
                None => pooled.push(Pooled {
                    request: request.name.clone(),
                    pairs: gathered.pairs,
                    times: gathered.times.clone(),
                }),
            }
        }
        let requests: Vec<Requests> = pooled.into_iter().map(Pooled::judge).collect();
        let mut comparison = Comparison {
            left: left.label.clone(),
            right: right.label.clone(),
            rounds: self.options.rounds,
            pairs: requests.iter().map(|r| r.pairs).sum(),
            differences,
            requests,
            notes: notes(traffic, &self.rules, not_sent),
        };
        for side in [left, right] {
            redact(&mut comparison, side);
        }
        comparison
    }
}

/// Where a suite's files are.
fn folder(suite: &Suite) -> PathBuf {
    suite
        .root
        .join(suite.file.parent().unwrap_or(Path::new("")))
}

/// The same at the same place of the same request is one difference, whichever step sent
/// it. Of values that vary, one example is enough.
fn join(all: &mut Vec<Difference>, found: Difference) {
    let same = |known: &&mut Difference| {
        let values = |d: &Difference| (d.left.clone(), d.right.clone());
        known.request == found.request
            && known.place == found.place
            && known.note == found.note
            && (found.note.is_some() || values(known) == values(&found))
    };
    match all.iter_mut().find(same) {
        Some(known) => {
            known.count += found.count;
            known.of += found.of;
            known.steps.extend(found.steps);
        }
        None => all.push(found),
    }
}

fn notes(traffic: &Traffic, rules: &[Rules], not_sent: BTreeSet<String>) -> Vec<String> {
    let mut notes = Vec::new();
    if !traffic.left_out.is_empty() {
        let kinds = traffic.left_out.iter();
        let kinds: Vec<String> = kinds.map(|(kind, n)| format!("{n} {kind}")).collect();
        notes.push(format!("steps that are not replayed: {}", kinds.join(", ")));
    }
    notes.extend(not_sent);
    for (suite, rules) in traffic.suites.iter().zip(rules) {
        for rule in rules.unused() {
            notes.push(format!(
                "{}: nothing is there that `ignore` names with {rule:?}",
                suite.file.display()
            ));
        }
    }
    notes
}

/// Takes the database's password out of everything that is shown.
fn redact(comparison: &mut Comparison, side: &Side) {
    let redactor = Redactor::of_database(side.environment.database.as_deref());
    for difference in &mut comparison.differences {
        redactor.apply(&mut difference.left);
        redactor.apply(&mut difference.right);
    }
    for note in &mut comparison.notes {
        redactor.apply(note);
    }
}

#[cfg(test)]
mod tests;
