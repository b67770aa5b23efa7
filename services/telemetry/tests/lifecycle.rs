//! Stopping without losing a request; no database needed.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use telemetry::lifecycle::{Drain, LINGER, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

async fn ask(stream: &mut TcpStream) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("done") {
        let mut buffer = [0; 512];
        let n = stream.read(&mut buffer).await.unwrap();
        assert_ne!(n, 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    text
}

#[tokio::test]
async fn what_is_in_flight_is_answered_and_idle_connections_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = Router::new().route(
        "/",
        get(async || {
            tokio::time::sleep(LINGER * 2).await;
            "done"
        }),
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let drain = Drain::default();
    let server = tokio::spawn(serve(
        listener,
        router,
        drain.clone(),
        async {
            let _ = stopped.await;
        },
        async {},
    ));

    let mut idle = TcpStream::connect(addr).await.unwrap();
    ask(&mut idle).await;
    answer(&mut idle).await;
    let mut busy = TcpStream::connect(addr).await.unwrap();
    ask(&mut busy).await;
    assert!(!drain.is_draining());
    let begun = Instant::now();
    stop.send(()).unwrap();

    // A request that was on its way is still taken.
    let mut late = TcpStream::connect(addr).await.unwrap();
    ask(&mut late).await;
    let (busy_text, late_text) = tokio::join!(answer(&mut busy), answer(&mut late));
    assert!(busy_text.starts_with("HTTP/1.1 200") && late_text.starts_with("HTTP/1.1 200"));
    assert_eq!(
        idle.read(&mut [0; 16]).await.unwrap(),
        0,
        "the idle connection ends"
    );
    server.await.unwrap();
    assert!(drain.is_draining());
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert!(TcpStream::connect(addr).await.is_err());
}
