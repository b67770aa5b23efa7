//! Requests without a pause through one of the cluster's listeners, each reply judged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::http::Client;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two requests of one client, so that the machine has time for what is tested.
const THINK: Duration = Duration::from_millis(8);
/// So many replies of one version without another among them: the older ones are out of the way.
const STREAK: u64 = 40;

/// A server on port 5000 (or `PORT`) that answers with `VERSION`. What SIGTERM does to it is
/// `MODE`'s: `exit` at once, `ignore`, or `slow` (it takes a while over its end, still serving).
pub const SERVER: &str = r#"
import http.server, os, signal, sys, threading, time
version, mode = os.environ["VERSION"], os.environ.get("MODE", "exit")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = version.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *a): pass
def slow(*_):
    threading.Timer(0.7, lambda: os._exit(0)).start()
signal.signal(signal.SIGTERM, {"exit": lambda *_: os._exit(0), "ignore": signal.SIG_IGN, "slow": slow}[mode])
time.sleep(float(os.environ.get("DELAY", "0")))
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("", int(os.environ.get("PORT", "5000"))), Handler).serve_forever()
"#;

/// A container of [`SERVER`].
pub fn server(version: u32, mode: &str) -> Value {
    json!({
        "name": "c", "image": "web", "command": ["python3", "-c", SERVER],
        "env": [{"name": "VERSION", "value": version.to_string()}, {"name": "MODE", "value": mode}],
        "readinessProbe": {"tcpSocket": {"port": 5000}},
    })
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Good replies by version.
    pub versions: BTreeMap<u32, u64>,
    /// Everything else.
    pub bad: Vec<String>,
    /// The longest wait for a reply.
    pub slowest: Duration,
}

impl Report {
    fn add(&mut self, other: Report) {
        for (version, count) in other.versions {
            *self.versions.entry(version).or_default() += count;
        }
        self.bad.extend(other.bad);
        self.slowest = self.slowest.max(other.slowest);
    }

    pub fn good(&self) -> u64 {
        self.versions.values().sum()
    }

    /// Every request got its reply within `bound`, from each version up to `last`.
    pub fn check(&self, what: &str, last: u32, bound: Duration) {
        println!(
            "{what}: {} requests, slowest {:?}",
            self.good(),
            self.slowest
        );
        assert!(self.bad.is_empty(), "{what}: {:#?}", self.bad);
        assert!(self.slowest < bound, "{what}: {:?}", self.slowest);
        let seen: Vec<u32> = self.versions.keys().copied().collect();
        assert_eq!(seen, (1..=last).collect::<Vec<_>>(), "{what}");
    }
}

#[derive(Debug, Default)]
struct Seen {
    stop: AtomicBool,
    replies: AtomicU64,
    /// The newest version that may serve.
    newest: AtomicU32,
    /// The version of the last reply, and how many of it came without another among them.
    last: Mutex<(u32, u64)>,
}

impl Seen {
    fn reply(&self, version: u32) {
        let mut last = self.last.lock().expect("not poisoned");
        *last = if last.0 == version {
            (version, last.1 + 1)
        } else {
            (version, 1)
        };
    }
}

/// Clients at work: half of them keep their connection, half make one for each request; GET
/// and POST in turn.
pub struct Load {
    seen: Arc<Seen>,
    clients: Vec<JoinHandle<Report>>,
}

impl Load {
    pub fn start(addr: SocketAddr, clients: usize) -> Load {
        Load::of(addr, clients, &["GET", "POST"])
    }

    /// With these methods in turn.
    pub fn of(addr: SocketAddr, clients: usize, methods: &'static [&'static str]) -> Load {
        let seen = Arc::new(Seen::default());
        seen.newest.store(1, Ordering::SeqCst);
        let clients = (0..clients)
            .map(|n| {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut report = Report::default();
                    let mut kept = None;
                    for turn in n.. {
                        if seen.stop.load(Ordering::SeqCst) {
                            break;
                        }
                        let method = methods[turn % methods.len()];
                        let oldest = seen.newest.load(Ordering::SeqCst).saturating_sub(1);
                        let begin = Instant::now();
                        let reply = one(addr, method, &mut kept).await;
                        report.slowest = report.slowest.max(begin.elapsed());
                        let newest = seen.newest.load(Ordering::SeqCst);
                        match reply {
                            Ok((200, body)) => match body.parse::<u32>() {
                                Ok(version) if (oldest..=newest).contains(&version) => {
                                    seen.reply(version);
                                    *report.versions.entry(version).or_default() += 1;
                                }
                                _ => report
                                    .bad
                                    .push(format!("version {body:?}, not {oldest} to {newest}")),
                            },
                            other => {
                                kept = None;
                                let took = begin.elapsed();
                                report
                                    .bad
                                    .push(format!("{method} {other:?} after {took:?}"));
                            }
                        }
                        if n % 2 == 1 {
                            kept = None;
                        }
                        seen.replies.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(THINK).await;
                    }
                    report
                })
            })
            .collect();
        Load { seen, clients }
    }

    /// From now on this version may serve, and besides it only its predecessor.
    pub fn begins(&self, version: u32) {
        self.seen.newest.store(version, Ordering::SeqCst);
    }

    /// Until this version alone serves.
    pub async fn is_alone(&self, version: u32) {
        self.until("its version alone", |seen| {
            let (last, streak) = *seen.last.lock().expect("not poisoned");
            last == version && streak >= STREAK
        })
        .await;
    }

    /// Until so many more replies have come.
    pub async fn replies(&self, more: u64) {
        let target = self.seen.replies.load(Ordering::SeqCst) + more;
        self.until("more replies", |seen| {
            seen.replies.load(Ordering::SeqCst) >= target
        })
        .await;
    }

    async fn until(&self, what: &str, is: impl Fn(&Seen) -> bool) {
        let wait = async {
            while !is(&self.seen) {
                tokio::time::sleep(THINK).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("never saw {what}: {:?}", self.seen);
        }
    }

    pub async fn stop(self) -> Report {
        self.seen.stop.store(true, Ordering::SeqCst);
        let mut report = Report::default();
        for client in self.clients {
            report.add(client.await.expect("no panic"));
        }
        report
    }
}

async fn one(
    addr: SocketAddr,
    method: &str,
    kept: &mut Option<Client>,
) -> Result<(u16, String), String> {
    let client = match kept {
        Some(client) => client,
        None => {
            let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
            kept.insert(Client::over(stream, "test.local").await?)
        }
    };
    client.send(method, "/").await
}
