//! Requests for services whose endpoints are on the way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devenv_ingress::ServiceStats;
use futures_util::{SinkExt, StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::*;

impl Running {
    fn service(&self, name: &str) -> ServiceStats {
        let stats = self.proxy.stats();
        let mut services = stats.services.into_iter();
        services.find(|s| s.service == name).unwrap()
    }

    async fn until(&self, is: impl Fn(&Running) -> bool) {
        soon(async {
            while !is(self) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn until_waiting(&self, requests: u64) {
        self.until(|r| r.service("main").waiting == requests).await;
    }
}

fn patient(table: devenv_ingress::Table, patience: Duration) -> Running {
    start_with(table, |options| options.hold.patience = patience)
}

/// Status, value of Retry-After, and how long it took.
async fn refusal(addr: SocketAddr) -> (u16, Option<String>, Duration) {
    let begin = Instant::now();
    let response = Client::connect(addr).await.try_send(get()).await.unwrap();
    let header = response.headers().get("retry-after");
    let seconds = header.map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), seconds, begin.elapsed())
}

/// The old one always stops before the new one starts: 100 gaps under POSTs
/// that nobody may repeat for us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_gaps_under_load_lose_no_request() {
    // Which backends took a request, by its number.
    let taken = Arc::new(Mutex::new(BTreeMap::<String, Vec<usize>>::new()));
    let backend = async |round: usize| {
        let taken = taken.clone();
        Backend::start(move |request: Request<hyper::body::Incoming>| {
            let taken = taken.clone();
            async move {
                let number = request.uri().path().to_owned();
                taken.lock().unwrap().entry(number).or_default().push(round);
                let body = request.into_body().collect().await;
                assert_eq!(body.unwrap().to_bytes(), "x");
                http::Response::new(full("ok"))
            }
        })
        .await
    };
    let mut current = backend(0).await;
    let running = start(to(&[current.addr]));
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..16)
        .map(|n| {
            let (stop, sent, addr) = (stop.clone(), sent.clone(), running.addr);
            tokio::spawn(async move {
                let mut client = Client::connect(addr).await;
                for i in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let path = format!("/{n}/{i}");
                    let request = Request::post(&path).header("host", "h");
                    let got = client.send(request.body(full("x")).unwrap()).await;
                    assert_eq!(got, (200, "ok".into()), "{path}");
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 1..=100 {
        let seen = sent.load(Ordering::SeqCst);
        running.proxy.publish(coming(&[]));
        current.stop().await;
        running.until_waiting(16).await;
        current = backend(round).await;
        running.proxy.publish(to(&[current.addr]));
        running
            .until(|_| sent.load(Ordering::SeqCst) >= seen + 32)
            .await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let taken = taken.lock().unwrap();
    let again: Vec<_> = taken.iter().filter(|(_, by)| by.len() != 1).collect();
    assert!(again.is_empty(), "taken more than once: {again:?}");
    assert_eq!(taken.len(), sent.load(Ordering::SeqCst));
    let stats = running.service("main");
    // A request may wait through two gaps when the time between is short.
    assert!((800..=1_600).contains(&stats.held), "{}", stats.held);
    assert_eq!((stats.waiting, stats.in_flight), (0, 0));
    assert_eq!(running.proxy.stats().own, [0; 5]);
}

#[tokio::test]
async fn past_its_patience_a_request_is_told_when_to_ask_again() {
    let patience = Duration::from_millis(300);
    let running = patient(coming(&[]), patience);
    let (status, seconds, took) = refusal(running.addr).await;
    assert_eq!((status, seconds.as_deref()), (503, Some("1")));
    assert!(took >= patience, "{took:?}");
    assert_eq!(running.service("main").waiting, 0);
    assert_eq!(running.proxy.stats().own, [0, 0, 0, 0, 1]);
}

#[tokio::test]
async fn when_nothing_comes_any_more_it_is_503_at_once() {
    let running = start(coming(&[]));
    let asking = tokio::spawn(refusal(running.addr));
    running.until_waiting(1).await;
    running.proxy.publish(to(&[]));
    let (status, seconds, took) = soon(asking).await.unwrap();
    assert_eq!((status, seconds), (503, None));
    assert!(took < Duration::from_secs(20), "{took:?}");
    let (status, seconds, _) = soon(refusal(running.addr)).await;
    assert_eq!((status, seconds), (503, None));
}

#[tokio::test]
async fn a_service_that_is_removed_releases_what_waits_for_it() {
    let running = start(coming(&[]));
    let asking = tokio::spawn(refusal(running.addr));
    running.until_waiting(1).await;
    running.proxy.publish(devenv_ingress::Table::default());
    let (status, seconds, _) = soon(asking).await.unwrap();
    assert_eq!((status, seconds), (503, None));
}

#[tokio::test]
async fn more_than_so_many_are_refused_at_once() {
    let good = Backend::named("good").await;
    let running = start_with(coming(&[]), |options| options.hold.requests = 2);
    let addr = running.addr;
    let held = [1, 2].map(|_| tokio::spawn(async move { once(addr, post("x")).await }));
    running.until_waiting(2).await;
    let (status, seconds, _) = soon(refusal(addr)).await;
    assert_eq!((status, seconds.as_deref()), (503, Some("1")));
    running.proxy.publish(to(&[good.addr]));
    for request in held {
        assert_eq!(request.await.unwrap(), (200, "good".into()));
    }
}

/// Bodies that are in memory because they were sent in vain have a bound.
#[tokio::test]
async fn bodies_in_memory_are_bounded() {
    let good = Backend::named("good").await;
    let running = start_with(coming(&[refused()]), |options| options.hold.body_bytes = 5);
    let addr = running.addr;
    let small = tokio::spawn(async move { once(addr, post("1234")).await });
    running.until_waiting(1).await;
    assert_eq!(soon(once(addr, post("12"))).await.0, 503);
    let none = tokio::spawn(async move { once(addr, get()).await });
    running.until_waiting(2).await;
    running.proxy.publish(to(&[good.addr]));
    for request in [small, none] {
        assert_eq!(request.await.unwrap(), (200, "good".into()));
    }
}

/// With a part of a body on the socket as without.
#[rstest]
#[case::plain(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec())]
#[case::with_a_body([b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n".to_vec(), vec![b'x'; 40_000]].concat())]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_stops_waiting(#[case] bytes: Vec<u8>) {
    let good = Backend::named("good").await;
    let running = start(coming(&[]));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    // So little that the end is not stuck behind it on the client's side.
    stream.write_all(&bytes).await.unwrap();
    running.until_waiting(1).await;
    drop(stream);
    running.until_waiting(0).await;
    running.until(|r| r.proxy.stats().connections == 0).await;
    running.proxy.publish(to(&[good.addr]));
    assert_eq!(once(running.addr, get()).await.0, 200);
    assert_eq!(good.hits(), 1);
    // nginx's 499, and the reply above.
    assert_eq!(running.proxy.stats().own, [0, 0, 0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_not_read_while_its_request_is_held() {
    const CHUNK: usize = 64 << 10;
    let mirror = Backend::start(|request: Request<hyper::body::Incoming>| async move {
        let got = request.into_body().collect().await.unwrap().to_bytes();
        http::Response::new(full(got.len().to_string()))
    })
    .await;
    let table = |coming: &[&str], main: &[SocketAddr]| {
        routes_while(coming, (main, &[("proxy-body-size", "0")]), None)
    };
    let running = start(table(&["main"], &[]));
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let chunks = stream::iter(0..512).map(move |_| {
        counter.fetch_add(CHUNK as u64, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![7; CHUNK])))
    });
    let request = Request::post("/")
        .header("host", "h")
        .body(BodyExt::boxed(StreamBody::new(chunks)))
        .unwrap();
    let addr = running.addr;
    let sending = tokio::spawn(async move { once(addr, request).await });
    running.until_waiting(1).await;
    let mut last = u64::MAX;
    while last != sent.load(Ordering::SeqCst) {
        last = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(last < 16 << 20, "{last} of 32 MiB went into a held request");
    running.proxy.publish(table(&[], &[mirror.addr]));
    assert_eq!(
        soon(sending).await.unwrap(),
        (200, (512 * CHUNK).to_string())
    );
}

/// The split is decided first: while a canary is replaced, main's half is
/// answered and the canary's half waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_split_is_exact_across_a_gap() {
    let (one, two) = (Backend::named("one").await, Backend::named("two").await);
    let half: &[(&str, &str)] = &[("canary-weight", "50")];
    let with = |canary: &[SocketAddr], coming: &[&str]| {
        routes_while(coming, (&[one.addr], &[]), Some((canary, half)))
    };
    let running = start(with(&[two.addr], &[]));
    assert_eq!(once(running.addr, post("{}")).await.0, 200);
    running.proxy.publish(with(&[], &["canary"]));
    let addr = running.addr;
    let requests: Vec<_> = (0..99)
        .map(|_| tokio::spawn(async move { once(addr, post("{}")).await }))
        .collect();
    // All of main's are answered before the canary is back.
    running.until(|_| one.hits() == 50).await;
    let before = two.hits();
    running
        .until(|r| r.service("canary").waiting == 50 - before as u64)
        .await;
    running.proxy.publish(with(&[two.addr], &[]));
    for request in requests {
        assert_eq!(request.await.unwrap().0, 200);
    }
    assert_eq!((one.hits(), two.hits()), (50, 50));
}

#[tokio::test]
async fn until_a_canary_served_first_all_is_mains() {
    let one = Backend::named("one").await;
    let half: &[(&str, &str)] = &[("canary-weight", "50")];
    let table = routes_while(&["canary"], (&[one.addr], &[]), Some((&[], half)));
    let running = start(table);
    let mut client = Client::connect(running.addr).await;
    for _ in 0..10 {
        assert_eq!(soon(client.send(post("{}"))).await.1, "one");
    }
}

/// Main is replaced: what the canary takes need not wait.
#[tokio::test]
async fn a_canary_serves_while_main_is_replaced() {
    let two = Backend::named("two").await;
    let all: &[(&str, &str)] = &[("canary-weight", "100")];
    let table = routes_while(&["main"], (&[], &[]), Some((&[two.addr], all)));
    let running = start(table);
    assert_eq!(soon(once(running.addr, post("{}"))).await.1, "two");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_waits_too() {
    let (addr, _) = raw(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let _ = socket.send(message).await;
        }
    })
    .await;
    let running = start(coming(&[]));
    let url = format!("ws://{}/", running.addr);
    let connecting = tokio::spawn(tokio_tungstenite::connect_async(url));
    running.until_waiting(1).await;
    running.proxy.publish(to(&[addr]));
    let (mut socket, _) = soon(connecting).await.unwrap().unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    let echoed = soon(socket.next()).await.unwrap().unwrap();
    assert_eq!(echoed, Message::text("hello"));
}

/// The pod ended between the table and the connection; its successor comes
/// later, at another address or at the same one.
#[rstest]
#[case::elsewhere(false)]
#[case::restarted_in_place(true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_request_is_held_for_the_next_endpoint(#[case] in_place: bool) {
    let gone = refused();
    let running = start(coming(&[gone]));
    let addr = running.addr;
    let request = tokio::spawn(async move { once(addr, post("x")).await });
    running.until_waiting(1).await;
    running.proxy.publish(coming(&[]));
    let listener = tokio::net::TcpListener::bind(if in_place {
        gone
    } else {
        ([127, 0, 0, 1], 0).into()
    })
    .await
    .unwrap();
    let back = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback";
        stream.write_all(reply).await.unwrap();
    });
    running.proxy.publish(to(&[back]));
    assert_eq!(soon(request).await.unwrap(), (200, "back".into()));
    serving.await.unwrap();
    assert_eq!(running.service("main").by_class, [0, 1, 0, 0, 0]);
}

/// Nothing says that one is coming, since nobody has noticed yet that the pod
/// died: that takes a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_has_just_died_costs_no_request() {
    for _ in 0..20 {
        let good = Backend::named("good").await;
        // Long enough to be seen on any machine.
        let running = start_with(to(&[refused()]), |options| {
            options.hold.settle = Duration::from_secs(25);
        });
        let addr = running.addr;
        let request = tokio::spawn(async move { once(addr, post("x")).await });
        running.until_waiting(1).await;
        running.proxy.publish(coming(&[]));
        running.proxy.publish(to(&[good.addr]));
        assert_eq!(soon(request).await.unwrap(), (200, "good".into()));
    }
}

/// What may have been acted upon is sent three times at most, however often
/// the endpoints change.
#[rstest]
#[case("POST", 1)]
#[case("GET", 3)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_kills_every_endpoint_ends(#[case] method: &str, #[case] tries: usize) {
    let endpoints = (0..5).map(|_| {
        raw(|mut stream| async move {
            read_request(&mut stream).await;
        })
    });
    let endpoints = futures_util::future::join_all(endpoints).await;
    let running = start(coming(&[endpoints[0].0]));
    let request = tokio::spawn(once(running.addr, request(method, &[], "x")));
    for (addr, _) in endpoints.iter().cycle() {
        running.proxy.publish(coming(&[*addr]));
        if request.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(request.await.unwrap().0, 502);
    let hits = endpoints
        .iter()
        .map(|(_, hits)| hits.load(Ordering::SeqCst));
    assert_eq!(hits.sum::<usize>(), tries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_proxy_releases_what_it_holds() {
    let running = start(coming(&[]));
    let asking = tokio::spawn(refusal(running.addr));
    running.until_waiting(1).await;
    let begin = Instant::now();
    running.proxy.drain(Duration::from_secs(25)).await;
    assert!(begin.elapsed() < Duration::from_secs(20));
    let (status, seconds, _) = asking.await.unwrap();
    assert_eq!((status, seconds.as_deref()), (503, Some("1")));
}

/// A request that is refused anyway does not wait for that.
#[tokio::test]
async fn too_large_a_body_is_refused_without_a_wait() {
    let running = start(coming(&[]));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut status = [0; 12];
    soon(stream.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}
