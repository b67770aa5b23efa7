//! WebSocket and other protocols after 101.

use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::*;

/// Echoes messages until the client closes.
async fn echo(stream: TcpStream) {
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_messages_are_echoed_and_closed_properly() {
    let (addr, _) = raw(echo).await;
    let running = start(to(&[addr]));
    let url = format!("ws://{}/socket.io/?transport=websocket", running.addr);
    let (mut socket, response) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert_eq!(response.status(), 101);
    for size in [0, 1, 125, 70_000, 3 << 20] {
        let message = Message::binary(vec![7u8; size]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
    }
    assert_eq!(running.proxy.stats().services[0].in_flight, 1);
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = soon(socket.next()).await {}
    drop(socket);
    soon(async {
        while running.proxy.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let service = &running.proxy.stats().services[0];
    assert_eq!(service.by_class, [1, 0, 0, 0, 0]);
    assert_eq!(service.in_flight, 0);
}

#[tokio::test]
async fn an_endpoint_may_decline_the_upgrade() {
    let backend = Backend::named("plain").await;
    let running = start(to(&[backend.addr]));
    let mut client = Client::connect(running.addr).await;
    let headers = [("connection", "upgrade"), ("upgrade", "websocket")];
    for _ in 0..2 {
        let answer = client.send(request("GET", &headers, "")).await;
        assert_eq!(answer, (200, "plain".into()));
    }
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for_is_502() {
    let (addr, _) = raw(|mut stream| async move {
        read_request(&mut stream).await;
        let reply =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        stream.write_all(reply).await.unwrap();
    })
    .await;
    let running = start(to(&[addr]));
    assert_eq!(once(running.addr, post("x")).await.0, 502);
}

const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
const SWITCH: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n";

async fn switched(addr: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(ASK).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// The client ends its side; the endpoint's answer to that still comes.
#[tokio::test]
async fn half_closed_tunnels_stay_open_the_other_way() {
    let (addr, _) = raw(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(SWITCH).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream
            .write_all(&[b"got ", all.as_slice()].concat())
            .await
            .unwrap();
    })
    .await;
    let running = start(to(&[addr]));
    let mut stream = switched(running.addr).await;
    stream.write_all(b"everything").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut reply = String::new();
    soon(stream.read_to_string(&mut reply)).await.unwrap();
    assert_eq!(reply, "got everything");
}

#[tokio::test]
async fn a_silent_tunnel_ends_after_the_read_timeout() {
    let (addr, _) = raw(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(SWITCH).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let running = start(routes((&[addr], &[("proxy-read-timeout", "1")]), None));
    let mut stream = switched(running.addr).await;
    let before = Instant::now();
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
    let took = before.elapsed().as_secs_f32();
    assert!((0.9..2.0).contains(&took), "{took}");
}
