//! Probes: what to ask a container, how often, and what the answers mean.
//!
//! Kubernetes asks once in `periodSeconds`. Here a container that was never
//! ready is asked every few milliseconds first, because a developer waits for
//! it; a failure then counts at most once per period, so thresholds keep their
//! meaning in seconds. Source: kubelet's `prober` package.

mod check;

pub use check::{NetProber, Prober};

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::env::expand;

/// The pace of the first questions: a share of the time since the start, so that a program
/// is found ready at most that share later than it was, be it quick or slow …
const FAST_SHARE: u32 = 20;
/// … but not below this …
const FAST_FIRST: Duration = Duration::from_millis(2);
/// … nor above this …
const FAST_LAST: Duration = Duration::from_millis(50);
/// … for so long; a container that is still not ready then is asked once a period.
const FAST_FOR: Duration = Duration::from_secs(30);

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Until it passes, the other two wait; should it fail, the container is restarted.
    Startup,
    /// Whether the pod gets traffic.
    Readiness,
    /// Should it fail, the container is restarted.
    Liveness,
}

impl Kind {
    /// As the kubelet's events name it.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A GET that must answer 200 to 399.
    Http {
        /// Host other than the pod's own address.
        host: Option<String>,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Request headers.
        headers: Vec<(String, String)>,
    },
    /// A connection that must be accepted.
    Tcp {
        /// Host other than the pod's own address.
        host: Option<String>,
        /// Port.
        port: u16,
    },
    /// A command that must return 0.
    Exec(Vec<String>),
    /// Something that cannot be asked here; the sentence says so in the pod's events.
    Unsupported(String),
}

/// One probe of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which.
    pub kind: Kind,
    /// What to ask.
    pub action: Action,
    /// Wait before the first question (liveness only).
    pub initial_delay: Duration,
    /// Between questions.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many successes in a row change the verdict.
    pub success_threshold: u32,
    /// So many failures in a row change the verdict.
    pub failure_threshold: u32,
    /// Grace period of a container that this probe kills, seconds.
    pub grace: Option<i64>,
}

/// The probes of a container.
pub fn plans(container: &Container, env: &[(String, String)]) -> Vec<Plan> {
    [
        (Kind::Startup, &container.startup_probe),
        (Kind::Readiness, &container.readiness_probe),
        (Kind::Liveness, &container.liveness_probe),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| {
        probe
            .as_ref()
            .map(|probe| plan(kind, probe, container, env))
    })
    .collect()
}

fn plan(kind: Kind, probe: &Probe, container: &Container, env: &[(String, String)]) -> Plan {
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(
            value
                .filter(|v| *v > 0)
                .and_then(|v| u64::try_from(v).ok())
                .unwrap_or(default),
        )
    };
    let count = |value: Option<i32>, default: u32| {
        value
            .filter(|v| *v > 0)
            .and_then(|v| u32::try_from(v).ok())
            .unwrap_or(default)
    };
    Plan {
        kind,
        action: action(probe, container, env),
        initial_delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        success_threshold: if kind == Kind::Readiness {
            count(probe.success_threshold, 1)
        } else {
            1
        },
        failure_threshold: count(probe.failure_threshold, 3),
        grace: probe.termination_grace_period_seconds,
    }
}

fn action(probe: &Probe, container: &Container, env: &[(String, String)]) -> Action {
    if let Some(http) = &probe.http_get {
        return http_action(http, container);
    }
    if let Some(tcp) = &probe.tcp_socket {
        return match port(&tcp.port, container) {
            Ok(port) => Action::Tcp {
                host: tcp.host.clone().filter(|h| !h.is_empty()),
                port,
            },
            Err(why) => Action::Unsupported(why),
        };
    }
    if let Some(exec) = &probe.exec {
        let find = |name: &str| {
            env.iter()
                .rev()
                .find(|(k, _)| k == name)
                .map(|(_, v)| v.clone())
        };
        return Action::Exec(
            exec.command
                .iter()
                .flatten()
                .map(|word| expand(word, &find))
                .collect(),
        );
    }
    let what = if probe.grpc.is_some() {
        "grpc probes are"
    } else {
        "this kind of probe is"
    };
    Action::Unsupported(format!(
        "{what} not supported here: use httpGet, tcpSocket or exec"
    ))
}

/// A GET, of a probe or of a hook.
pub(super) fn http_action(http: &HTTPGetAction, container: &Container) -> Action {
    if http
        .scheme
        .as_deref()
        .is_some_and(|s| s.eq_ignore_ascii_case("https"))
    {
        return Action::Unsupported(
            "httpGet with scheme HTTPS is not supported here: use HTTP or tcpSocket".to_owned(),
        );
    }
    match port(&http.port, container) {
        Ok(port) => Action::Http {
            host: http.host.clone().filter(|h| !h.is_empty()),
            port,
            path: http.path.clone().filter(|p| !p.is_empty()).map_or_else(
                || "/".to_owned(),
                |p| {
                    if p.starts_with('/') {
                        p
                    } else {
                        format!("/{p}")
                    }
                },
            ),
            headers: http
                .http_headers
                .iter()
                .flatten()
                .map(|h| (h.name.clone(), h.value.clone()))
                .collect(),
        },
        Err(why) => Action::Unsupported(why),
    }
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("the probe's port {port:?} is neither a port number nor the name of a port of container {:?}", container.name))
}

/// What a probe reports to the pod's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which container.
    pub container: String,
    /// Which of its runs: reports of an earlier one are stale.
    pub run: u64,
    /// Which probe.
    pub kind: Kind,
    /// What is new.
    pub news: News,
}

/// What is new about a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The verdict became good.
    Passed,
    /// The verdict became bad (readiness), or the container must be restarted; why.
    Failed(String),
    /// One failure that changes nothing yet; why. Not sent while asking fast.
    Missed(String),
}

/// The verdict of one probe over time. Pure.
#[derive(Debug)]
struct Judge {
    plan: Plan,
    started: Instant,
    verdict: Option<bool>,
    ever_passed: bool,
    successes: u32,
    failures: u32,
    counted: Option<Instant>,
}

impl Judge {
    fn new(plan: Plan, started: Instant) -> Judge {
        // Until told otherwise a container is alive, and not ready.
        let verdict = (plan.kind == Kind::Liveness).then_some(true);
        Judge {
            plan,
            started,
            verdict,
            ever_passed: false,
            successes: 0,
            failures: 0,
            counted: None,
        }
    }

    fn is_fast(&self, now: Instant) -> bool {
        self.plan.kind != Kind::Liveness && !self.ever_passed && now - self.started < FAST_FOR
    }

    /// Takes an answer; says what is new.
    fn take(&mut self, answer: Result<(), String>, now: Instant) -> Option<News> {
        match answer {
            Ok(()) => {
                self.failures = 0;
                self.counted = None;
                self.successes += 1;
                if self.successes >= self.plan.success_threshold && self.verdict != Some(true) {
                    self.verdict = Some(true);
                    self.ever_passed = true;
                    return Some(News::Passed);
                }
                None
            }
            Err(why) => {
                let fast = self.is_fast(now);
                self.successes = 0;
                // Asked fast, a failure counts once a period.
                if self.counted.is_none_or(|at| now - at >= self.plan.period) {
                    self.counted = Some(now);
                    self.failures += 1;
                }
                let over = self.failures >= self.plan.failure_threshold;
                let news = match self.plan.kind {
                    Kind::Readiness => over && self.verdict == Some(true),
                    Kind::Startup | Kind::Liveness => over && self.startup_is_over(now),
                };
                if news {
                    self.verdict = Some(false);
                    self.failures = 0;
                    return Some(News::Failed(why));
                }
                (!fast).then_some(News::Missed(why))
            }
        }
    }

    /// A startup probe leaves the container its whole time, `initialDelaySeconds` included.
    fn startup_is_over(&self, now: Instant) -> bool {
        let budget = self.plan.initial_delay + self.plan.period * (self.plan.failure_threshold - 1);
        self.plan.kind != Kind::Startup || now - self.started >= budget
    }

    /// How long until the next question.
    fn pause(&self, now: Instant) -> Duration {
        if !self.is_fast(now) {
            return self.plan.period;
        }
        let share = (now - self.started) / FAST_SHARE;
        share.clamp(FAST_FIRST, FAST_LAST).min(self.plan.period)
    }
}

/// Asks until the receiver is gone, or until a startup probe passed.
pub async fn run(
    plan: Plan,
    container: String,
    run: u64,
    prober: std::sync::Arc<dyn Prober>,
    target: check::Target,
    report_tx: mpsc::Sender<Report>,
) {
    let kind = plan.kind;
    let report = |news| Report {
        container: container.clone(),
        run,
        kind,
        news,
    };
    if let Action::Unsupported(why) = &plan.action {
        // Honest: such a container never passes. A liveness probe that cannot be asked kills nothing.
        let _ = report_tx.send(report(News::Missed(why.clone()))).await;
        return;
    }
    if kind == Kind::Liveness {
        tokio::time::sleep(plan.initial_delay).await;
    }
    let timeout = plan.timeout;
    let action = plan.action.clone();
    let mut judge = Judge::new(plan, Instant::now());
    loop {
        let answer = match tokio::time::timeout(timeout, prober.check(&action, &target)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
        };
        if let Some(news) = judge.take(answer, Instant::now()) {
            let last = kind == Kind::Startup && news == News::Passed;
            if report_tx.send(report(news)).await.is_err() || last {
                return;
            }
        }
        tokio::time::sleep(judge.pause(Instant::now())).await;
    }
}

pub use check::Target;

#[cfg(test)]
mod tests;
