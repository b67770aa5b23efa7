//! Endpoints that refuse, stall, close and break: what is tried again, and
//! what the client sees.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use devenv_ingress::Connector;
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere_whatever_the_method() {
    let good = Backend::named("good").await;
    let running = start(to(&[good.addr, refused(), refused()]));
    let mut client = Client::connect(running.addr).await;
    for _ in 0..50 {
        assert_eq!(client.send(post("x")).await, (200, "good".into()));
        assert_eq!(client.send(get()).await, (200, "good".into()));
    }
    assert_eq!(good.hits(), 100);
}

#[tokio::test]
async fn when_all_refuse_it_is_502() {
    let running = start(to(&[refused()]));
    let (status, body) = once(running.addr, post("x")).await;
    assert_eq!(status, 502);
    assert!(body.contains("<h1>502 Bad Gateway</h1>"), "{body}");
    assert_eq!(running.proxy.stats().services[0].by_class, [0, 0, 0, 0, 1]);
}

/// It has read the request and may have acted on it: a POST is never repeated.
#[rstest]
#[case("POST", 1)]
#[case("PATCH", 1)]
#[case("LOCK", 1)]
#[case("GET", 3)]
#[case("PUT", 3)]
#[tokio::test]
async fn an_endpoint_that_reads_and_hangs_up(#[case] method: &str, #[case] tries: usize) {
    let (addr, connections) = raw(|mut stream| async move {
        read_request(&mut stream).await;
    })
    .await;
    let running = start(to(&[addr]));
    assert_eq!(once(running.addr, request(method, &[], "x")).await.0, 502);
    assert_eq!(connections.load(Ordering::SeqCst), tries);
}

#[rstest]
#[case("POST", 1)]
#[case("GET", 3)]
#[tokio::test]
async fn an_endpoint_that_never_answers_is_504(#[case] method: &str, #[case] tries: usize) {
    let (addr, connections) =
        raw(|mut stream| async move { while read_request(&mut stream).await.is_some() {} }).await;
    let patient = [("proxy-read-timeout", "1")];
    let running = start(routes((&[addr], &patient), None));
    let before = Instant::now();
    let (status, body) = once(running.addr, request(method, &[], "x")).await;
    assert_eq!(status, 504);
    assert!(body.contains("<h1>504 Gateway Time-out</h1>"), "{body}");
    assert_eq!(connections.load(Ordering::SeqCst), tries);
    let took = before.elapsed().as_secs_f32();
    let expected = tries as f32;
    assert!(took >= expected && took < expected + 1.0, "{took}");
}

#[tokio::test]
async fn an_endpoint_that_falls_silent_in_its_reply_breaks_it_off() {
    let (addr, _) = raw(|mut stream| async move {
        read_request(&mut stream).await;
        let start = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart";
        stream.write_all(start).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let running = start(routes((&[addr], &[("proxy-read-timeout", "1")]), None));
    let reply = talk(running.addr, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(reply.ends_with("start"), "{reply}");
}

/// Connects to nothing, for ever.
struct Nowhere;

#[async_trait]
impl Connector for Nowhere {
    async fn connect(&self, _: SocketAddr) -> io::Result<TcpStream> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn connecting_for_too_long_is_504_after_three_tries() {
    let table = routes((&[refused()], &[("proxy-connect-timeout", "1")]), None);
    let running = start_with(table, |options| options.connector = Arc::new(Nowhere));
    let before = Instant::now();
    assert_eq!(once(running.addr, post("x")).await.0, 504);
    assert_eq!(before.elapsed().as_secs(), 3);
}

/// As Node.js and uvicorn do after some seconds of idleness, only at once.
#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_costs_no_post() {
    let (addr, connections) = raw(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let running = start(to(&[addr]));
    let mut client = Client::connect(running.addr).await;
    for n in 0..300 {
        assert_eq!(client.send(post("x")).await, (200, "ok".into()), "{n}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 300);
}

/// The reset says that the request was not read: also a POST goes elsewhere.
#[tokio::test]
async fn bytes_that_were_never_read_are_sent_again() {
    let resets = Arc::new(AtomicUsize::new(0));
    let counter = resets.clone();
    let (bad, _) = raw(move |stream| {
        let counter = counter.clone();
        async move {
            // Closing with unread bytes in the socket resets the connection.
            stream.readable().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let good = Backend::named("good").await;
    let running = start(to(&[bad, good.addr]));
    for _ in 0..40 {
        assert_eq!(once(running.addr, post("x")).await, (200, "good".into()));
    }
    assert!(resets.load(Ordering::SeqCst) >= 10);
    assert_eq!(good.hits(), 40);
}

#[tokio::test]
async fn a_reply_that_is_not_http_is_502() {
    let (addr, _) = raw(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"SSH-2.0-hello\r\n").await.unwrap();
    })
    .await;
    let running = start(to(&[addr]));
    assert_eq!(once(running.addr, post("x")).await.0, 502);
}

/// Bytes after a reply would be taken for the next one's beginning.
#[tokio::test]
async fn a_connection_with_leftover_bytes_is_not_used_again() {
    let (addr, _) = raw(|mut stream| async move {
        read_request(&mut stream).await;
        let mut reply = OK.to_vec();
        reply.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        stream.write_all(&reply).await.unwrap();
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let running = start(to(&[addr]));
    let mut client = Client::connect(running.addr).await;
    for _ in 0..20 {
        assert_eq!(client.send(post("x")).await, (200, "ok".into()));
    }
}

#[tokio::test]
async fn a_slow_client_is_not_the_endpoints_fault() {
    let mirror = Backend::mirror().await;
    let annotations = [("proxy-read-timeout", "1"), ("proxy-send-timeout", "1")];
    let running = start(routes((&[mirror.addr], &annotations), None));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let size = 100 << 10;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; size / 2]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stream.write_all(&vec![b'x'; size / 2]).await.unwrap();
    let mut reply = String::new();
    soon(stream.read_to_string(&mut reply)).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{}", &reply[..60]);
}
