//! A runtime without processes, for tests on paused time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::probes::{Action, Prober, Target};
use super::runtime::{
    Ended, Meter, PodRuntime, PodSandbox, Reading, RuntimeError, SandboxEvent, SandboxSpec,
    StartSpec, Started,
};

/// How one run of a container goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// Ends by itself after this time.
    pub(crate) ends: Option<(Duration, i32)>,
    /// Takes this long to end after SIGTERM; for ever when `None`.
    pub(crate) stops_after: Option<Duration>,
    /// Cannot be started at all.
    pub(crate) fails: bool,
    /// It loses a process for want of memory.
    pub(crate) out_of_memory: bool,
    /// Its end by itself is a SIGKILL.
    pub(crate) killed: bool,
}

impl Run {
    /// Runs until it is asked to end, and then ends at once.
    pub(crate) fn good() -> Run {
        Run {
            stops_after: Some(Duration::ZERO),
            ..Run::default()
        }
    }
    /// Ends by itself.
    pub(crate) fn ends(after: Duration, code: i32) -> Run {
        Run {
            ends: Some((after, code)),
            ..Run::good()
        }
    }
}

/// The fake: remembers what happened and when, in milliseconds since it was made.
#[derive(Debug)]
pub(crate) struct FakeRuntime {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    begin: Instant,
    log: Mutex<Vec<(u128, String)>>,
    /// Runs by container; the last one repeats.
    scripts: Mutex<HashMap<String, VecDeque<Run>>>,
    refusals: Mutex<u32>,
    inbound: Mutex<usize>,
    sandboxes: Mutex<Vec<std::sync::Weak<FakeSandbox>>>,
    limits_missing: Mutex<Option<String>>,
    warnings: Mutex<Vec<String>>,
}

impl State {
    fn note(&self, what: String) {
        self.log
            .lock()
            .expect("not poisoned")
            .push((self.begin.elapsed().as_millis(), what));
    }
}

impl FakeRuntime {
    pub(crate) fn new() -> Arc<FakeRuntime> {
        let state = State {
            begin: Instant::now(),
            log: Mutex::default(),
            scripts: Mutex::default(),
            refusals: Mutex::default(),
            inbound: Mutex::default(),
            sandboxes: Mutex::default(),
            limits_missing: Mutex::default(),
            warnings: Mutex::default(),
        };
        Arc::new(FakeRuntime {
            state: Arc::new(state),
        })
    }
    pub(crate) fn script(&self, container: &str, runs: Vec<Run>) {
        self.state
            .scripts
            .lock()
            .expect("not poisoned")
            .insert(container.into(), runs.into());
    }
    /// The next so many sandboxes cannot be made.
    pub(crate) fn refuse(&self, times: u32) {
        *self.state.refusals.lock().expect("not poisoned") = times;
    }
    /// Every pod holds so many connections.
    pub(crate) fn inbound(&self, count: usize) {
        *self.state.inbound.lock().expect("not poisoned") = count;
    }
    /// Limits are not enforced, for this reason.
    pub(crate) fn no_limits(&self, why: &str) {
        *self.state.limits_missing.lock().expect("not poisoned") = Some(why.into());
    }
    /// Every container has to do without something.
    pub(crate) fn warn(&self, of: &str) {
        self.state
            .warnings
            .lock()
            .expect("not poisoned")
            .push(of.into());
    }
    /// When it was made: the log counts from there.
    pub(crate) fn begin(&self) -> Instant {
        self.state.begin
    }
    pub(crate) fn log(&self) -> Vec<(u128, String)> {
        self.state.log.lock().expect("not poisoned").clone()
    }
    /// Seconds at which something happened.
    pub(crate) fn seconds(&self, what: &str) -> Vec<u64> {
        let at = |ms: u128| u64::try_from(ms / 1000).expect("small");
        self.log()
            .into_iter()
            .filter(|(_, w)| w == what)
            .map(|(ms, _)| at(ms))
            .collect()
    }
    /// The kernel takes a pod away.
    pub(crate) fn lose_sandboxes(&self) {
        for sandbox in self.state.sandboxes.lock().expect("not poisoned").drain(..) {
            if let Some(sandbox) = sandbox.upgrade() {
                sandbox.kill();
            }
        }
    }
}

#[async_trait]
impl PodRuntime for FakeRuntime {
    async fn create(&self, spec: SandboxSpec) -> Result<Arc<dyn PodSandbox>, RuntimeError> {
        {
            let mut refusals = self.state.refusals.lock().expect("not poisoned");
            if *refusals > 0 {
                *refusals -= 1;
                self.state.note("refused".into());
                return Err(RuntimeError::Other("no room".into()));
            }
        }
        self.state.note(format!("create {}", spec.hostname));
        let (events_tx, events_rx) = mpsc::unbounded_channel();
        let sandbox = Arc::new(FakeSandbox {
            state: self.state.clone(),
            running: Arc::default(),
            events_tx,
            events_rx: tokio::sync::Mutex::new(events_rx),
        });
        self.state
            .sandboxes
            .lock()
            .expect("not poisoned")
            .push(Arc::downgrade(&sandbox));
        Ok(sandbox)
    }

    fn limits_missing(&self) -> Option<String> {
        self.state
            .limits_missing
            .lock()
            .expect("not poisoned")
            .clone()
    }
}

#[derive(Debug)]
struct FakeSandbox {
    state: Arc<State>,
    /// Running containers by name, with their run's number.
    running: Arc<Mutex<HashMap<String, (u64, Run)>>>,
    events_tx: mpsc::UnboundedSender<SandboxEvent>,
    events_rx: tokio::sync::Mutex<mpsc::UnboundedReceiver<SandboxEvent>>,
}

impl FakeSandbox {
    fn end_later(&self, name: &str, run: u64, after: Duration, ended: Ended) {
        let out_of_memory = self.running.lock().expect("not poisoned")[name]
            .1
            .out_of_memory;
        let (running, events_tx, state) = (
            self.running.clone(),
            self.events_tx.clone(),
            self.state.clone(),
        );
        let name = name.to_owned();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let mut running = running.lock().expect("not poisoned");
            if running.get(&name).is_some_and(|(r, _)| *r == run) {
                running.remove(&name);
                state.note(format!("end {name}"));
                let _ = events_tx.send(SandboxEvent::Exited {
                    container: name,
                    ended,
                    out_of_memory,
                });
            }
        });
    }
}

/// Of what does not exist: nothing is known of it.
#[derive(Debug)]
pub(crate) struct FakeMeter;

#[async_trait]
impl Meter for FakeMeter {
    async fn read(&self) -> Result<Reading, RuntimeError> {
        Err(RuntimeError::Other("nothing runs".into()))
    }
}

static RUNS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[async_trait]
impl PodSandbox for FakeSandbox {
    async fn start(&self, spec: StartSpec) -> Result<Started, RuntimeError> {
        let run = {
            let mut scripts = self.state.scripts.lock().expect("not poisoned");
            match scripts.get_mut(&spec.name) {
                Some(runs) if runs.len() > 1 => runs.pop_front(),
                Some(runs) => runs.front().cloned(),
                None => None,
            }
            .unwrap_or_else(Run::good)
        };
        if run.fails {
            self.state.note(format!("fail {}", spec.name));
            return Err(RuntimeError::Other("cannot execute it".into()));
        }
        self.state.note(format!("start {}", spec.name));
        let number = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.running
            .lock()
            .expect("not poisoned")
            .insert(spec.name.clone(), (number, run.clone()));
        if let Some((after, code)) = run.ends {
            let ended = if run.killed {
                Ended::Signal(9)
            } else {
                Ended::Code(code)
            };
            self.end_later(&spec.name, number, after, ended);
        }
        Ok(Started {
            pid: 1,
            stdout: Box::new(tokio::io::empty()),
            stderr: Box::new(tokio::io::empty()),
            warnings: self.state.warnings.lock().expect("not poisoned").clone(),
            meter: Arc::new(FakeMeter),
        })
    }

    async fn exec(&self, spec: StartSpec) -> Result<Ended, RuntimeError> {
        self.state.note(format!("exec {}", spec.argv.join(" ")));
        Ok(Ended::Code(0))
    }

    async fn fill_disk(&self, full: bool) -> Result<(), RuntimeError> {
        self.state.note(format!("full {full}"));
        Ok(())
    }

    async fn signal(&self, container: &str, signal: i32) -> Result<(), RuntimeError> {
        self.state.note(format!("signal {signal} {container}"));
        let running = self
            .running
            .lock()
            .expect("not poisoned")
            .get(container)
            .cloned();
        if let Some((number, run)) = running {
            match (signal, run.stops_after) {
                (9, _) => self.end_later(container, number, Duration::ZERO, Ended::Signal(9)),
                (_, Some(after)) => self.end_later(container, number, after, Ended::Code(0)),
                _ => {}
            }
        }
        Ok(())
    }

    async fn next_event(&self) -> SandboxEvent {
        self.events_rx
            .lock()
            .await
            .recv()
            .await
            .unwrap_or(SandboxEvent::Gone)
    }

    async fn inbound(&self) -> usize {
        *self.state.inbound.lock().expect("not poisoned")
    }

    fn kill(&self) {
        self.state.note("kill".into());
        // Its PID 1 tells nothing of the others: it is dead itself.
        self.running.lock().expect("not poisoned").clear();
        let _ = self.events_tx.send(SandboxEvent::Gone);
    }
}

/// Answers every question as it was last told to.
#[derive(Debug, Default)]
pub(crate) struct FakeProber {
    pub(crate) bad: std::sync::atomic::AtomicBool,
    /// How long a command takes.
    pub(crate) takes: Mutex<Duration>,
}

#[async_trait]
impl Prober for FakeProber {
    async fn check(&self, action: &Action, _: &Target) -> Result<(), String> {
        if matches!(action, Action::Exec(_)) {
            let time = *self.takes.lock().expect("not poisoned");
            tokio::time::sleep(time).await;
        }
        if self.bad.load(std::sync::atomic::Ordering::Relaxed) {
            Err("no".into())
        } else {
            Ok(())
        }
    }
}
