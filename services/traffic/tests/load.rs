//! The sender against a real HTTP server in this process.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use traffic::{Idempotency, Options, Pace, Report, Source, Stop, TrafficError};

/// What the server saw, for assertions that do not take the report's word.
#[derive(Default)]
struct Seen {
    connections: AtomicU64,
    posts: AtomicU64,
    options: AtomicU64,
    keys: Mutex<HashMap<String, u64>>,
    bodies: Mutex<BTreeMap<String, u64>>,
    arrivals: Mutex<Vec<Instant>>,
    concurrent: AtomicU64,
    most_concurrent: AtomicU64,
}

/// How the server answers the n-th POST (from 0).
#[derive(Clone, Copy)]
enum Reply {
    Taken,
    Status(u16),
    After(Duration),
    /// Close the connection without an answer.
    Hang,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Server {
    async fn start(reply: impl Fn(u64) -> Reply + Send + Sync + 'static) -> Server {
        Server::with(reply, 200, false).await
    }

    async fn with(
        reply: impl Fn(u64) -> Reply + Send + Sync + 'static,
        preflight: u16,
        close: bool,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (reply, seen_by) = (Arc::new(reply), Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                seen_by.connections.fetch_add(1, Ordering::SeqCst);
                let (reply, seen) = (Arc::clone(&reply), Arc::clone(&seen_by));
                let service = service_fn(move |request| {
                    answer(
                        request,
                        Arc::clone(&seen),
                        Arc::clone(&reply),
                        preflight,
                        close,
                    )
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Server { address, seen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn posts(&self) -> u64 {
        self.seen.posts.load(Ordering::SeqCst)
    }
}

async fn answer<F: Fn(u64) -> Reply>(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    reply: Arc<F>,
    preflight: u16,
    close: bool,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    assert_eq!(request.uri().path(), "/api");
    if request.method() == Method::OPTIONS {
        seen.options.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.headers()["access-control-request-method"], "POST");
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::from_u16(preflight).unwrap();
        return Ok(response);
    }
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.headers()["content-type"], "application/json");
    let n = seen.posts.fetch_add(1, Ordering::SeqCst);
    seen.arrivals.lock().unwrap().push(Instant::now());
    let now = seen.concurrent.fetch_add(1, Ordering::SeqCst) + 1;
    seen.most_concurrent.fetch_max(now, Ordering::SeqCst);
    if let Some(key) = request.headers().get("idempotency-key") {
        *seen
            .keys
            .lock()
            .unwrap()
            .entry(key.to_str().unwrap().to_owned())
            .or_default() += 1;
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    *seen
        .bodies
        .lock()
        .unwrap()
        .entry(String::from_utf8(body.to_vec()).unwrap())
        .or_default() += 1;
    let status = match reply(n) {
        Reply::Taken => 201,
        Reply::Status(status) => status,
        Reply::After(time) => {
            tokio::time::sleep(time).await;
            201
        }
        Reply::Hang => return Err(std::io::Error::other("hang up")),
    };
    seen.concurrent.fetch_sub(1, Ordering::SeqCst);
    let text = if status == 201 {
        format!(r#"{{"ids":[{}],"api":"api{}"}}"#, n + 1, n % 2 + 1)
    } else {
        r#"{"title":"no"}"#.to_owned()
    };
    let mut response = Response::builder()
        .status(status)
        .header("content-type", "application/json");
    if status == 503 {
        response = response.header("retry-after", "0");
    }
    if close {
        response = response.header("connection", "close");
    }
    Ok(response.body(Full::new(Bytes::from(text))).unwrap())
}

fn records() -> Source {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"[{"n":1},{"n":2},{"n":3}]"#).unwrap();
    Source::file(file.path()).unwrap()
}

fn requests(n: u64) -> Stop {
    Stop {
        requests: Some(n),
        duration: None,
    }
}

async fn send(options: &Options) -> Report {
    traffic::run(options, records(), |_| {}, CancellationToken::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn users_send_exactly_so_many_and_the_split_is_counted() {
    let server = Server::start(|_| Reply::Taken).await;
    let mut options = Options::new(server.url(), Pace::Users(8), requests(1001));
    options.collect_ids = true;
    let report = send(&options).await;
    assert_eq!(
        (report.requests, report.failures, report.rows),
        (1001, 0, 1001)
    );
    assert_eq!(server.posts(), 1001);
    assert_eq!(
        report.by_api,
        [("api1".to_owned(), 501), ("api2".to_owned(), 500)].into()
    );
    assert_eq!(report.by_status, [(201, 1001)].into());
    let mut ids = report.ids.clone().unwrap();
    ids.sort_unstable();
    assert_eq!(ids, (1..=1001).collect::<Vec<_>>());
    let connections = server.seen.connections.load(Ordering::SeqCst);
    assert!(
        connections <= 8,
        "connections are kept alive: {connections}"
    );
    assert_eq!(report.users, Some(8));
    assert!(!report.cancelled && report.unfinished == 0);
    // Every record of the file is sent as often as the others.
    assert_eq!(
        server
            .seen
            .bodies
            .lock()
            .unwrap()
            .values()
            .copied()
            .collect::<Vec<_>>(),
        [334, 334, 333]
    );
    assert_eq!(report.bytes_sent, 1001 * r#"{"n":1}"#.len() as u64);
}

#[tokio::test]
async fn the_open_loop_keeps_its_rate() {
    let server = Server::start(|_| Reply::Taken).await;
    let stop = Stop {
        requests: None,
        duration: Some(Duration::from_millis(1500)),
    };
    let report = send(&Options::new(server.url(), Pace::Rate(400.0), stop)).await;
    assert_eq!((report.requests, report.failures), (600, 0));
    assert_eq!(server.posts(), 600);
    assert!(
        (1.49..2.5).contains(&report.duration_s),
        "{}",
        report.duration_s
    );
    // Not a burst at either end: the middle request arrived in the middle.
    let arrivals = server.seen.arrivals.lock().unwrap();
    let middle = arrivals[300].duration_since(arrivals[0]).as_secs_f64();
    assert!((0.6..1.2).contains(&middle), "{middle}");
}

#[tokio::test]
async fn a_slow_server_does_not_slow_the_open_loop_down() {
    let server = Server::start(|_| Reply::After(Duration::from_millis(300))).await;
    let report = send(&Options::new(
        server.url(),
        Pace::Rate(200.0),
        requests(200),
    ))
    .await;
    assert_eq!((report.requests, report.failures), (200, 0));
    let arrivals = server.seen.arrivals.lock().unwrap();
    let sending = arrivals[199].duration_since(arrivals[0]).as_secs_f64();
    assert!(
        sending < 1.6,
        "200 requests at 200/s were sent in {sending} s"
    );
    assert!(server.seen.most_concurrent.load(Ordering::SeqCst) >= 40);
    assert!(report.latency_ms.p50 >= 300.0, "{:?}", report.latency_ms);
}

#[tokio::test]
async fn waiting_for_a_place_counts_as_latency() {
    // One at a time, 20 ms each, due every 10 ms: the 50th is sent 500 ms late.
    let server = Server::start(|_| Reply::After(Duration::from_millis(20))).await;
    let mut options = Options::new(server.url(), Pace::Rate(100.0), requests(50));
    options.max_in_flight = 1;
    let report = send(&options).await;
    assert_eq!(server.seen.most_concurrent.load(Ordering::SeqCst), 1);
    assert_eq!(report.requests, 50);
    assert!(report.latency_ms.max >= 500.0, "{:?}", report.latency_ms);
    assert!(report.latency_ms.p50 >= 200.0, "{:?}", report.latency_ms);
}

#[tokio::test]
async fn failures_are_named_and_not_repeated_without_a_key() {
    let server = Server::start(|n| match n % 4 {
        0 => Reply::Status(503),
        1 => Reply::Status(422),
        2 => Reply::Hang,
        _ => Reply::Taken,
    })
    .await;
    let report = send(&Options::new(server.url(), Pace::Users(1), requests(40))).await;
    assert_eq!(
        (report.requests, report.failures, report.retries),
        (40, 30, 0)
    );
    assert_eq!(server.posts(), 40);
    assert_eq!(
        report.errors,
        [
            ("closed".to_owned(), 10),
            ("http-422".to_owned(), 10),
            ("http-503".to_owned(), 10)
        ]
        .into()
    );
    assert_eq!(report.by_status, [(201, 10), (422, 10), (503, 10)].into());
    assert_eq!(report.by_api.values().sum::<u64>(), 10);
}

#[tokio::test]
async fn a_key_makes_repeats_safe_and_each_request_keeps_its_own() {
    // Every first attempt fails in one way or another; a repeat is sent at once and succeeds.
    let server = Server::start(|n| match n % 4 {
        0 => Reply::Status(503),
        2 => Reply::Hang,
        _ => Reply::Taken,
    })
    .await;
    let mut options = Options::new(server.url(), Pace::Users(1), requests(10));
    options.idempotency = Idempotency::Retry(3);
    let report = send(&options).await;
    assert_eq!(
        (report.requests, report.failures, report.retries),
        (10, 0, 10)
    );
    assert_eq!(
        report.retry_causes,
        [("closed".to_owned(), 5), ("http-503".to_owned(), 5)].into()
    );
    let keys = server.seen.keys.lock().unwrap();
    assert_eq!(keys.len(), 10);
    assert!(keys.values().all(|times| *times == 2), "{keys:?}");
}

#[tokio::test]
async fn repeats_are_bounded_and_a_refusal_is_final() {
    let server = Server::start(|_| Reply::Status(503)).await;
    let mut options = Options::new(server.url(), Pace::Users(1), requests(2));
    options.idempotency = Idempotency::Retry(3);
    let report = send(&options).await;
    assert_eq!(
        (report.requests, report.failures, report.retries),
        (2, 2, 6)
    );
    assert_eq!(server.posts(), 8);

    let server = Server::start(|_| Reply::Status(422)).await;
    let mut options = Options::new(server.url(), Pace::Users(1), requests(2));
    options.idempotency = Idempotency::Retry(3);
    let report = send(&options).await;
    assert_eq!((report.failures, report.retries), (2, 0));
    assert_eq!(server.posts(), 2);
}

#[tokio::test]
async fn a_preflight_goes_before_each_post() {
    let server = Server::start(|_| Reply::Taken).await;
    let mut options = Options::new(server.url(), Pace::Users(2), requests(20));
    options.preflight = true;
    let report = send(&options).await;
    assert_eq!(
        (report.requests, report.failures, report.preflights),
        (20, 0, 20)
    );
    assert_eq!(
        (server.posts(), server.seen.options.load(Ordering::SeqCst)),
        (20, 20)
    );

    let server = Server::with(|_| Reply::Taken, 403, false).await;
    options.url = server.url();
    let report = send(&options).await;
    assert_eq!(report.errors, [("preflight-403".to_owned(), 20)].into());
    assert_eq!(server.posts(), 0);
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_costs_no_request() {
    let server = Server::with(|_| Reply::Taken, 200, true).await;
    let report = send(&Options::new(server.url(), Pace::Users(4), requests(200))).await;
    assert_eq!((report.requests, report.failures), (200, 0));
    assert_eq!(server.posts(), 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_a_timeout_with_its_latency() {
    let server = Server::start(|_| Reply::After(Duration::from_secs(30))).await;
    let mut options = Options::new(server.url(), Pace::Users(2), requests(4));
    options.timeout = Duration::from_millis(100);
    let report = send(&options).await;
    assert_eq!(report.errors, [("timeout".to_owned(), 4)].into());
    assert!(report.latency_ms.p50 >= 100.0, "{:?}", report.latency_ms);
}

#[tokio::test]
async fn cancelling_ends_the_run_with_what_was_done() {
    for pace in [Pace::Rate(200.0), Pace::Users(2)] {
        let server = Server::start(|n| {
            if n < 20 {
                Reply::Taken
            } else {
                Reply::After(Duration::from_secs(60))
            }
        })
        .await;
        let cancel = CancellationToken::new();
        let options = Options::new(server.url(), pace, Stop::default());
        let seen = Arc::clone(&server.seen);
        let canceller = cancel.clone();
        tokio::spawn(async move {
            while seen.posts.load(Ordering::SeqCst) < 22 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            canceller.cancel();
        });
        let started = Instant::now();
        let report = traffic::run(&options, records(), |_| {}, cancel)
            .await
            .unwrap();
        assert!(
            started.elapsed() < Duration::from_secs(6),
            "{:?}",
            started.elapsed()
        );
        assert!(report.cancelled);
        assert_eq!((report.requests, report.failures), (20, 0), "{report:?}");
        assert!(report.unfinished >= 2, "{report:?}");
    }
}

#[tokio::test]
async fn progress_comes_once_a_second_and_adds_up() {
    let server = Server::start(|_| Reply::Taken).await;
    let stop = Stop {
        requests: None,
        duration: Some(Duration::from_millis(2500)),
    };
    let mut looks = Vec::new();
    let options = Options::new(server.url(), Pace::Rate(100.0), stop);
    traffic::run(
        &options,
        records(),
        |look| looks.push(look.clone()),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    assert_eq!(looks.len(), 2);
    assert_eq!(looks[0].total, Some(250));
    assert!((80..=110).contains(&looks[0].requests), "{looks:?}");
    assert!(looks[1].requests > looks[0].requests + 80, "{looks:?}");
    assert!(
        (80.0..120.0).contains(&looks[1].last_rate_per_s),
        "{looks:?}"
    );
    assert!(looks[1].last_latency_ms.p99 > 0.0);
}

#[tokio::test]
async fn real_records_reach_the_server() {
    let server = Server::start(|_| Reply::Taken).await;
    let options = Options::new(server.url(), Pace::Users(1), requests(1));
    let source = Source::machine().await.unwrap();
    let report = traffic::run(&options, source, |_| {}, CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(report.rows, 1);
    let bodies = server.seen.bodies.lock().unwrap();
    let body: serde_json::Value = serde_json::from_str(bodies.keys().next().unwrap()).unwrap();
    let mut fields: Vec<_> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "hora",
            "porcentaje_cpu_libre",
            "porcentaje_cpu_uso",
            "porcentaje_ram",
            "procesos_corriendo",
            "procesos_durmiendo",
            "procesos_parados",
            "procesos_zombie",
            "ram_libre",
            "total_procesos",
            "total_ram",
            "uso_ram"
        ]
    );
}

#[tokio::test]
async fn nothing_there_is_said_before_anything_is_counted() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let options = Options::new(url.clone(), Pace::Users(1), requests(1));
    let error = traffic::run(&options, records(), |_| {}, CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        matches!(error, TrafficError::Unreachable { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains(&url) && text.contains("devenv up"), "{text}");
}

#[tokio::test]
async fn the_report_survives_its_json_form() {
    let server = Server::start(|n| {
        if n == 0 {
            Reply::Status(500)
        } else {
            Reply::Taken
        }
    })
    .await;
    let report = send(&Options::new(server.url(), Pace::Users(1), requests(3))).await;
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json["requests"], &json["by_status"]["500"]),
        (&3.into(), &1.into())
    );
    assert!(json["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
    assert!(json.get("ids").is_none() && json.get("target_rate_per_s").is_none());
}
