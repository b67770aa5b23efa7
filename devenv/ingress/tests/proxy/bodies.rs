//! Bodies of every size: streamed, limited, broken.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

const CHUNK: usize = 64 << 10;

/// A body without a known length.
fn chunks(count: u64, sent: Arc<AtomicU64>) -> Body {
    let stream = stream::iter(0..count).map(move |n| {
        sent.fetch_add(CHUNK as u64, Ordering::SeqCst);
        Ok::<_, io::Error>(Frame::data(Bytes::from(vec![n as u8; CHUNK])))
    });
    BodyExt::boxed(StreamBody::new(stream))
}

fn unlimited(addr: std::net::SocketAddr) -> devenv_ingress::Table {
    routes((&[addr], &[("proxy-body-size", "0")]), None)
}

/// Sends 64 MiB to an echo and compares every byte of what comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_stream_both_ways_at_once() {
    let echo = Backend::start(|request: Request<Incoming>| async move {
        Response::new(request.into_body().map_err(io::Error::other).boxed())
    })
    .await;
    let running = start(unlimited(echo.addr));
    let mut client = Client::connect(running.addr).await;
    let request = Request::post("/")
        .header("host", "h")
        .body(chunks(1024, Arc::default()))
        .unwrap();
    let mut body = client.try_send(request).await.unwrap().into_body();
    let mut at = 0usize;
    while let Some(frame) = soon(body.frame()).await {
        for byte in frame.unwrap().into_data().unwrap() {
            assert_eq!(byte, (at / CHUNK) as u8);
            at += 1;
        }
    }
    assert_eq!(at, 1024 * CHUNK);
}

/// Waits until the count has not moved for a while.
async fn stalls(count: &AtomicU64) -> u64 {
    let mut last = u64::MAX;
    loop {
        let now = count.load(Ordering::SeqCst);
        if now == last {
            return now;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// An endpoint that does not read stops the client: the proxy holds back, it
/// does not hoard. What gets through is the kernel's socket buffers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_when_the_endpoint_does_not_read() {
    let (addr, _) = raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let running = start(unlimited(addr));
    let sent = Arc::new(AtomicU64::new(0));
    let body = chunks(1 << 14, sent.clone());
    let request = Request::post("/").header("host", "h").body(body).unwrap();
    let mut client = Client::connect(running.addr).await;
    let sending = tokio::spawn(async move { client.try_send(request).await.map(drop) });
    let through = stalls(&sent).await;
    assert!(through < 32 << 20, "{through} of 1 GiB went through");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_when_the_client_does_not_read() {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let backend = Backend::start(move |_| {
        let counter = counter.clone();
        async move { Response::new(chunks(1 << 14, counter)) }
    })
    .await;
    let running = start(to(&[backend.addr]));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    soon(stream.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let through = stalls(&sent).await;
    assert!(through < 32 << 20, "{through} of 1 GiB went through");
}

#[rstest]
#[case::at_the_default_limit(&[], 1 << 20, 200)]
#[case::above_it(&[], (1 << 20) + 1, 413)]
#[case::small_limit(&[("proxy-body-size", "10")], 10, 200)]
#[case::above_the_small_limit(&[("proxy-body-size", "10")], 11, 413)]
#[case::unlimited(&[("proxy-body-size", "0")], 3 << 20, 200)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_body_size(
    #[case] annotations: &[(&str, &str)],
    #[case] size: usize,
    #[case] expected: u16,
    #[values(false, true)] chunked: bool,
) {
    let backend = Backend::start(|request: Request<Incoming>| async move {
        match request.into_body().collect().await {
            Ok(body) => Response::new(full(body.to_bytes().len().to_string())),
            Err(_) => Response::builder().status(400).body(full("")).unwrap(),
        }
    })
    .await;
    let running = start(routes((&[backend.addr], annotations), None));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let framing = if chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {size}")
    };
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{framing}\r\n\r\n");
    let mut bytes = head.into_bytes();
    if chunked {
        bytes.extend_from_slice(format!("{size:x}\r\n").as_bytes());
    }
    bytes.extend(std::iter::repeat_n(b'x', size));
    if chunked {
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    }
    // The client writes all of it before it looks: the refusal must not be
    // lost to a reset.
    soon(stream.write_all(&bytes)).await.unwrap();
    let mut reply = String::new();
    soon(stream.read_to_string(&mut reply)).await.unwrap();
    assert!(
        reply.starts_with(&format!("HTTP/1.1 {expected} ")),
        "{reply}"
    );
    if expected == 200 {
        assert!(reply.ends_with(&format!("\r\n\r\n{size}")), "{reply}");
    } else {
        assert!(reply.contains("413 Request Entity Too Large"), "{reply}");
    }
}

/// A refusal with a body that has been read leaves the connection usable.
#[tokio::test]
async fn a_refused_small_post_does_not_cost_the_connection() {
    let running = start(to(&[]));
    let mut client = Client::connect(running.addr).await;
    for _ in 0..3 {
        assert_eq!(client.send(post("body")).await.0, 503);
    }
}

#[rstest]
#[case::by_length("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")]
#[case::chunked("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")]
#[case::in_a_chunk("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf")]
#[tokio::test]
async fn an_endpoint_that_dies_in_its_reply_is_not_a_success(#[case] reply: &'static str) {
    let (addr, _) = raw(move |mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(reply.as_bytes()).await.unwrap();
    })
    .await;
    let running = start(to(&[addr]));
    let mut client = Client::connect(running.addr).await;
    let response = client.try_send(get()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut got = Vec::new();
    let failed = loop {
        match soon(body.frame()).await {
            Some(Ok(frame)) => got.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    // What had come was passed on, and the end shows that it was not all.
    assert_eq!((got.as_slice(), failed), (&b"half"[..], true));
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_endpoint() {
    let (gone_tx, mut gone_rx) = tokio::sync::mpsc::unbounded_channel();
    let (addr, _) = raw(move |mut stream| {
        let gone_tx = gone_tx.clone();
        async move {
            read_request(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head).await.unwrap();
            while stream.write_all(b"1\r\nx\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            gone_tx.send(()).unwrap();
        }
    })
    .await;
    let running = start(to(&[addr]));
    let mut client = Client::connect(running.addr).await;
    let response = client.try_send(get()).await.unwrap();
    drop((response, client));
    soon(gone_rx.recv()).await.unwrap();
}
