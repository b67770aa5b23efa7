//! How requests are shared among backends.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::{
    Context, StepResult,
    http::{Body, Request, TIMEOUT, chain, method},
};
use crate::{
    capture::{Answer, Source},
    matcher::{mismatches, shortened},
    outcome::Mismatch,
    statistics::binomial,
    suite::spec::{Expect, HttpSpec, SplitSpec},
    vars::{VarError, Vars},
};

/// A split that is right looks wrong once in a thousand times.
const LEAST: f64 = 0.001;
const REQUESTS: u32 = 100;
const CONCURRENCY: u32 = 8;

/// Sends the requests; each has the variables of its own put in.
pub async fn run(written: &SplitSpec, expect: &Expect, context: &mut Context) -> StepResult {
    let by = match Source::parse(written.by.as_str()) {
        Ok(by) => by,
        Err(why) => return StepResult::failed("by", "a place in the answer", why),
    };
    let requests = written.requests.unwrap_or(REQUESTS);
    let concurrency = written.concurrency.unwrap_or(CONCURRENCY).max(1) as usize;
    let shared = Arc::new((written.clone(), context.vars.clone()));
    let client = context.http.clone();
    let mut answers = stream::iter(0..requests)
        .map(move |_| {
            let (shared, client) = (shared.clone(), client.clone());
            async move {
                let request = request(&shared.0, &shared.1)?;
                request.send(&client).await.map_err(|e| chain(&e))
            }
        })
        .buffer_unordered(concurrency);
    let mut tally = Tally::default();
    while let Some(answer) = answers.next().await {
        tally.add(answer, &by, written.by.as_str(), expect);
    }
    drop(answers);
    let mut result = tally.result(requests);
    if result.mismatches.is_empty() || !tally.counts.is_empty() {
        let verdicts = judge(&tally.counts, expect, context.environment.exact_split);
        let mut seen = result.seen.take().unwrap_or_default();
        for verdict in verdicts {
            let _ = write!(seen, "\n{}", verdict.words);
            result.mismatches.extend(verdict.mismatch);
        }
        result.seen = Some(seen.trim_start().to_owned());
    }
    result
}

fn request(written: &SplitSpec, vars: &Vars) -> Result<Request, String> {
    let filled: Result<SplitSpec, VarError> = vars.fill(written);
    let spec = filled.map_err(|e| e.to_string())?;
    let method = method(&HttpSpec {
        method: spec.method.clone(),
        json: spec.json.clone(),
        ..HttpSpec::default()
    });
    let body = spec.json.map_or(Body::None, Body::Json);
    let timeout = spec.timeout.map_or(TIMEOUT, Duration::from);
    Request::new(&method, spec.url.as_str(), &spec.headers, body, timeout)
}

/// What came of all requests.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<String, u64>,
    /// What was wrong, how often.
    wrong: BTreeMap<(String, String, String), u64>,
}

impl Tally {
    fn add(&mut self, answer: Result<Answer, String>, by: &Source, place: &str, expect: &Expect) {
        let mut wrong = |what: &str, expected: String, got: String| {
            *self
                .wrong
                .entry((what.to_owned(), expected, got))
                .or_default() += 1;
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => return wrong("answer", "one".into(), why),
        };
        let status = answer.status.map(Value::from);
        let found = match &expect.status {
            Some(written) => mismatches(written, "status", status.as_ref()),
            None if answer.status.is_some_and(|status| status < 400) => Vec::new(),
            None => vec![Mismatch {
                what: "status".into(),
                expected: "less than 400".into(),
                got: status.map_or_else(String::new, |status| status.to_string()),
            }],
        };
        if !found.is_empty() {
            for mismatch in found {
                wrong(&mismatch.what, mismatch.expected, mismatch.got);
            }
            return;
        }
        match by.find(&answer) {
            Some(Value::String(name)) => *self.counts.entry(name).or_default() += 1,
            Some(other) => *self.counts.entry(other.to_string()).or_default() += 1,
            None => wrong(place, "who answered".into(), "nothing there".into()),
        }
    }

    fn result(&self, requests: u32) -> StepResult {
        let mismatches = self
            .wrong
            .iter()
            .map(|((what, expected, got), n)| Mismatch {
                what: what.clone(),
                expected: format!("{expected}, {requests} times"),
                got: format!("{}, {n} times", shortened(got, 200)),
            });
        let counts = &self.counts;
        StepResult {
            mismatches: mismatches.collect(),
            split: Some(counts.clone()),
            seen: Some(String::new()),
            answer: Answer {
                json: Some(json!({ "requests": requests, "counts": counts })),
                ..Answer::default()
            },
            ..StepResult::default()
        }
    }
}

/// What is to be said of one backend.
struct Verdict {
    words: String,
    mismatch: Option<Mismatch>,
}

fn judge(counts: &BTreeMap<String, u64>, expect: &Expect, exact: bool) -> Vec<Verdict> {
    let n: u64 = counts.values().sum();
    let block = expect.block.unwrap_or_else(|| whole(&expect.shares));
    let mut out = Vec::new();
    for (name, &share) in &expect.shares {
        let got = counts.get(name).copied().unwrap_or_default();
        let wanted = share * n as f64;
        let (holds, how) = if exact || expect.block.is_some() {
            let off = (got as f64 - wanted).abs();
            (off <= block + 1e-9, format!("{wanted} ± {block}"))
        } else {
            let p = binomial(got, n, share);
            let how = format!("about {wanted:.0}, as chance has it (p ≥ {LEAST}; p = {p:.2e})");
            (p >= LEAST, how)
        };
        let words = format!("{name}: {got} of {n}, expected {how}");
        let mismatch = (!holds).then(|| Mismatch {
            what: format!("share of {name}"),
            expected: format!("{how} of {n}"),
            got: got.to_string(),
        });
        out.push(Verdict { words, mismatch });
    }
    for (name, got) in counts
        .iter()
        .filter(|(name, _)| !expect.shares.contains_key(*name))
    {
        let named: Vec<&str> = expect.shares.keys().map(String::as_str).collect();
        out.push(Verdict {
            words: format!("{name}: {got} of {n}, expected none"),
            mismatch: Some(Mismatch {
                what: format!("share of {name}"),
                expected: format!("answers of {} only", named.join(" and ")),
                got: got.to_string(),
            }),
        });
    }
    out
}

/// How many requests it takes until shares can be whole: 2 for halves, 10 for 0.7.
fn whole(shares: &BTreeMap<String, f64>) -> f64 {
    const MOST: u32 = 1000;
    (1..=MOST)
        .map(f64::from)
        .find(|n| {
            shares
                .values()
                .all(|share| (share * n - (share * n).round()).abs() < 1e-5)
        })
        .unwrap_or(f64::from(MOST))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn of(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
    }

    #[rstest]
    #[case(&[("a", 0.5), ("b", 0.5)], 2.0)]
    #[case(&[("a", 0.7), ("b", 0.3)], 10.0)]
    #[case(&[("a", 1.0)], 1.0)]
    #[case(&[("a", 0.25), ("b", 0.75)], 4.0)]
    #[case(&[("a", 0.333333), ("b", 0.666667)], 3.0)]
    fn wholes(#[case] shares: &[(&str, f64)], #[case] want: f64) {
        assert_eq!(whole(&of(shares)), want);
    }

    #[rstest]
    #[case(true, None, &[("a", 500), ("b", 500)], &[])]
    #[case(true, None, &[("a", 502), ("b", 498)], &[])]
    #[case(true, None, &[("a", 503), ("b", 497)], &["a", "b"])]
    #[case(true, Some(5.0), &[("a", 503), ("b", 497)], &[])]
    #[case(false, None, &[("a", 540), ("b", 460)], &[])]
    #[case(false, None, &[("a", 600), ("b", 400)], &["a", "b"])]
    #[case(false, None, &[("a", 1000)], &["a", "b"])]
    #[case(true, None, &[("a", 499), ("b", 499), ("c", 2)], &["c"])]
    fn verdicts(
        #[case] exact: bool,
        #[case] block: Option<f64>,
        #[case] counts: &[(&str, u64)],
        #[case] wrong: &[&str],
    ) {
        let expect = Expect {
            shares: of(&[("a", 0.5), ("b", 0.5)]),
            block,
            ..Expect::default()
        };
        let counts = counts.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let found: Vec<String> = judge(&counts, &expect, exact)
            .into_iter()
            .filter_map(|verdict| Some(verdict.mismatch?.what))
            .collect();
        let wrong: Vec<String> = wrong
            .iter()
            .map(|name| format!("share of {name}"))
            .collect();
        assert_eq!(found, wrong);
    }
}
