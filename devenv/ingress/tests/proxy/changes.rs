//! New tables under load, and the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use futures_util::{SinkExt, StreamExt};

use crate::support::*;

/// A rolling update at full speed: 200 times the only endpoint is replaced and
/// the old one told to stop, under POSTs that nobody may repeat for us.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_replacements_under_load_lose_no_request() {
    let mut current = Backend::named("ok").await;
    let running = start(to(&[current.addr]));
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, sent, addr) = (stop.clone(), sent.clone(), running.addr);
            tokio::spawn(async move {
                let mut client = Client::connect(addr).await;
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.send(post("x")).await, (200, "ok".into()));
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut served = 0;
    for _ in 0..200 {
        let seen = sent.load(Ordering::SeqCst);
        let next = Backend::named("ok").await;
        running.proxy.publish(to(&[next.addr]));
        let old = std::mem::replace(&mut current, next);
        let hits = old.hits.clone();
        old.stop().await;
        served += hits.load(Ordering::SeqCst);
        soon(async {
            while sent.load(Ordering::SeqCst) < seen + 20 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent >= 4_000, "{sent}");
    // Each exactly once.
    assert_eq!(served + current.hits(), sent);
}

#[tokio::test]
async fn idle_connections_to_endpoints_that_are_gone_are_closed_at_once() {
    let (ended_tx, mut ended_rx) = tokio::sync::mpsc::unbounded_channel();
    let (addr, _) = raw(move |mut stream| {
        let ended_tx = ended_tx.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(reply).await.unwrap();
            }
            ended_tx.send(Instant::now()).unwrap();
        }
    })
    .await;
    let running = start(to(&[addr]));
    assert_eq!(once(running.addr, post("x")).await.0, 200);
    let before = Instant::now();
    running.proxy.publish(to(&[refused()]));
    let after = soon(ended_rx.recv()).await.unwrap();
    assert!(after.duration_since(before) < Duration::from_secs(1));
}

#[tokio::test]
async fn requests_in_flight_finish_with_their_table() {
    let release = Arc::new(tokio::sync::Notify::new());
    let waiting = release.clone();
    let slow = Backend::start(move |_| {
        let waiting = waiting.clone();
        async move {
            waiting.notified().await;
            Response::new(full("old"))
        }
    })
    .await;
    let new = Backend::named("new").await;
    let running = start(to(&[slow.addr]));
    let addr = running.addr;
    let first = tokio::spawn(async move { once(addr, post("x")).await });
    soon(async {
        while slow.hits() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.proxy.publish(to(&[new.addr]));
    assert_eq!(once(addr, post("x")).await.1, "new");
    release.notify_one();
    assert_eq!(first.await.unwrap(), (200, "old".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_finishes_what_runs_and_closes_what_idles() {
    let slow = Backend::start(|_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        Response::new(full("done"))
    })
    .await;
    let running = start(to(&[slow.addr]));
    let addr = running.addr;
    let mut idle = TcpStream::connect(addr).await.unwrap();
    idle.write_all(b"OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    soon(idle.read(&mut [0; 4096])).await.unwrap();
    let busy = tokio::spawn(async move { once(addr, post("x")).await });
    soon(async {
        while slow.hits() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let before = Instant::now();
    running.proxy.drain(Duration::from_secs(20)).await;
    assert!(before.elapsed() < Duration::from_secs(3));
    assert_eq!(busy.await.unwrap(), (200, "done".into()));
    assert_eq!(soon(idle.read(&mut [0])).await.unwrap(), 0);
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_cuts_tunnels_when_the_grace_is_over() {
    let (addr, _) = raw(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let _ = socket.send(message).await;
        }
    })
    .await;
    let running = start(to(&[addr]));
    let url = format!("ws://{}/", running.addr);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let before = Instant::now();
    let draining = tokio::spawn(running.proxy.drain(Duration::from_millis(700)));
    // It still works meanwhile.
    socket.send(Message::text("still there")).await.unwrap();
    let echoed = soon(socket.next()).await.unwrap().unwrap();
    assert_eq!(echoed, Message::text("still there"));
    draining.await.unwrap();
    let took = before.elapsed().as_millis();
    assert!((700..2_000).contains(&took), "{took}");
    assert!(!matches!(soon(socket.next()).await, Some(Ok(_))));
}

#[tokio::test]
async fn a_connection_that_never_asks_does_not_hold_up_the_end() {
    let running = start(to(&[]));
    let silent = TcpStream::connect(running.addr).await.unwrap();
    soon(async {
        while running.proxy.stats().connections == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let before = Instant::now();
    running.proxy.drain(Duration::from_secs(20)).await;
    assert!(before.elapsed() < Duration::from_secs(5));
    drop(silent);
}

#[test]
fn a_proxy_can_be_dropped_anywhere_and_frees_its_port() {
    let running = start(devenv_ingress::Table::default());
    let addr = running.addr;
    drop(running);
    let before = Instant::now();
    while std::net::TcpStream::connect(addr).is_ok() {
        assert!(before.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
}
