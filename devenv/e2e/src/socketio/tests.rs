use std::{future::Future, thread};

use axum::{
    Router,
    body::Bytes,
    extract::{
        Query, State as Inner,
        ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::IntoResponse,
    routing::get,
};
use rstest::rstest;
use serde_json::json;
use socketioxide::{
    SocketIo,
    extract::{AckSender, Data, SocketRef},
};

use super::*;

/// Only a hang takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a runtime of its own, so that its end ends its connections as well.
struct Server {
    url: String,
    stop_tx: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(app: impl FnOnce() -> Router + Send + 'static) -> Self {
        let (url_tx, url_rx) = std::sync::mpsc::channel();
        let (stop_tx, stop_rx) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                url_tx.send(format!("http://{address}")).unwrap();
                tokio::select! {
                    _ = async { axum::serve(listener, app()).await } => {}
                    _ = stop_rx => {}
                }
            });
            runtime.shutdown_background();
        });
        Self {
            url: url_rx.recv().unwrap(),
            stop_tx: Some(stop_tx),
            thread: Some(thread),
        }
    }

    fn stop(&mut self) {
        drop(self.stop_tx.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// The real thing.
    fn socketioxide() -> Self {
        Self::start(|| {
            let (layer, io) = SocketIo::builder().max_payload(2_000).build_layer();
            io.ns("/", async |socket: SocketRef| {
                for n in 0..3 {
                    socket.emit("tick", &json!({ "n": n })).unwrap();
                }
                socket.on(
                    "echo",
                    async |socket: SocketRef, Data::<Value>(data), ack: AckSender| {
                        socket.emit("heard", &data).unwrap();
                        let _ = ack.send(&json!({ "you": data }));
                    },
                );
                socket.on("mute", async || {});
                socket.on("throw-me-out", async |socket: SocketRef| {
                    socket.disconnect().unwrap();
                });
                socket.on("bytes", async |socket: SocketRef, ack: AckSender| {
                    let bytes = Bytes::from_static(b"\x00\x01");
                    socket.emit("picture", &bytes).unwrap();
                    socket.emit("after", "text").unwrap();
                    let _ = ack.send(&bytes);
                });
                socket.emit("ready", &()).unwrap();
            });
            Router::new().layer(layer)
        })
    }

    /// Speaks WebSocket as `script` says.
    fn scripted<F, T>(script: F) -> Self
    where
        F: Fn(WebSocket) -> T + Clone + Send + Sync + 'static,
        T: Future<Output = ()> + Send,
    {
        Self::start(move || {
            let upgrade = move |upgrade: WebSocketUpgrade| {
                let script = script.clone();
                async move { upgrade.on_upgrade(move |socket| async move { script(socket).await }) }
            };
            Router::new().route("/socket.io/", get(upgrade))
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

const HANDSHAKE: &str =
    r#"0{"sid":"a","upgrades":[],"pingInterval":60000,"pingTimeout":60000,"maxPayload":1000000}"#;

/// Says all of it, then reads until the client is gone.
async fn say(mut socket: WebSocket, packets: &[String]) {
    for packet in packets {
        if socket.send(Message::text(packet.clone())).await.is_err() {
            return;
        }
    }
    while let Some(Ok(_)) = socket.recv().await {}
}

async fn open(server: &Server, transport: Transport) -> Session {
    Session::connect(&server.url, transport, PATIENCE)
        .await
        .unwrap()
}

/// Connected, and its handlers are there: they are not yet when the namespace is joined.
async fn open_ready(server: &Server, transport: Transport) -> Session {
    let mut session = open(server, transport).await;
    session.event("ready", PATIENCE, |_| true).await.unwrap();
    session
}

#[rstest]
#[tokio::test]
async fn talks(#[values(Transport::WebSocket, Transport::Polling)] transport: Transport) {
    let server = Server::socketioxide();
    let mut session = open_ready(&server, transport).await;
    for n in 0..3 {
        let event = session.event("tick", PATIENCE, |_| true).await.unwrap();
        assert_eq!(event.payload(), &json!({ "n": n }));
    }
    for data in [
        json!(null),
        json!("ñ \u{1e} 🦀"),
        json!({ "deep": [1, 2.5] }),
    ] {
        let answer = session
            .emit_with_ack("echo", std::slice::from_ref(&data), PATIENCE)
            .await
            .unwrap();
        assert_eq!(answer, [json!({ "you": data })]);
    }
    session.emit("echo", &[json!("last")]).await.unwrap();
    let heard = session
        .event("heard", PATIENCE, |event| event.payload() == "last")
        .await
        .unwrap();
    assert_eq!(heard.arguments, [json!("last")]);
    session.close().await;
}

#[rstest]
#[tokio::test]
async fn events_of_other_names_stay(
    #[values(Transport::WebSocket, Transport::Polling)] transport: Transport,
) {
    let server = Server::socketioxide();
    let mut session = open_ready(&server, transport).await;
    session.emit("echo", &[json!(1)]).await.unwrap();
    session.event("heard", PATIENCE, |_| true).await.unwrap();
    let second = |event: &Event| event.payload()["n"] == 1;
    session.event("tick", PATIENCE, second).await.unwrap();
    // The one before is gone, the one behind is there.
    let rest = session.event("tick", PATIENCE, |_| true).await.unwrap();
    assert_eq!(rest.payload()["n"], 2);
}

#[rstest]
#[tokio::test]
async fn what_never_comes_is_said_with_what_came(
    #[values(Transport::WebSocket, Transport::Polling)] transport: Transport,
) {
    let server = Server::socketioxide();
    let mut session = open_ready(&server, transport).await;
    // Everything from before has come when this has.
    session
        .emit_with_ack("echo", &[json!(1)], PATIENCE)
        .await
        .unwrap();
    let short = Duration::from_millis(1);
    let error = session
        .event("tick", short, |event| event.payload()["n"] == 9)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no event tick within 1ms; there were 3 × tick that was not as expected, 1 × heard"
    );
    let error = session
        .emit_with_ack("mute", &[], short)
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(error, "no acknowledgement of mute within 1ms");
    let error = session.disconnected(short).await.unwrap_err();
    assert!(matches!(error, SocketError::Timeout { .. }), "{error}");
    // And it goes on.
    let answer = session.emit_with_ack("echo", &[json!(2)], PATIENCE).await;
    assert_eq!(answer.unwrap(), [json!({ "you": 2 })]);
}

#[rstest]
#[tokio::test]
async fn thrown_out(#[values(Transport::WebSocket, Transport::Polling)] transport: Transport) {
    let server = Server::socketioxide();
    let mut session = open_ready(&server, transport).await;
    session.emit("throw-me-out", &[]).await.unwrap();
    let why = session.disconnected(PATIENCE).await.unwrap();
    assert_eq!(why, "the server disconnected this client");
    // What came before is there, what can't come any more is not awaited.
    session.event("tick", PATIENCE, |_| true).await.unwrap();
    let error = session.event("none", PATIENCE, |_| true).await.unwrap_err();
    assert_eq!(error, SocketError::Ended { why: why.clone() });
    let error = session.emit("echo", &[]).await.unwrap_err();
    assert_eq!(error, SocketError::Ended { why: why.clone() });
    let error = session
        .emit_with_ack("echo", &[], PATIENCE)
        .await
        .unwrap_err();
    assert_eq!(error, SocketError::Ended { why });
}

#[rstest]
#[tokio::test]
async fn a_server_that_is_gone_is_noticed(
    #[values(Transport::WebSocket, Transport::Polling)] transport: Transport,
) {
    let mut server = Server::socketioxide();
    let mut session = open_ready(&server, transport).await;
    session.event("tick", PATIENCE, |_| true).await.unwrap();
    server.stop();
    session.disconnected(PATIENCE).await.unwrap();
    let error = Session::connect(&server.url, transport, PATIENCE)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("no Socket.IO connection over {transport}: ")),
        "{error}"
    );
    assert!(error.contains("refused"), "{error}");
}

#[rstest]
#[tokio::test]
async fn binary_attachments_are_an_error_of_their_own_event(
    #[values(Transport::WebSocket, Transport::Polling)] transport: Transport,
) {
    let server = Server::socketioxide();
    let mut session = open_ready(&server, transport).await;
    let error = session
        .emit_with_ack("bytes", &[], PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, SocketError::Binary { .. }), "{error}");
    let error = session
        .event("picture", PATIENCE, |_| true)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "event picture has binary attachments, which are not supported: send JSON"
    );
    let after = session.event("after", PATIENCE, |_| true).await.unwrap();
    assert_eq!(after.payload(), "text");
}

#[rstest]
#[tokio::test]
async fn what_the_server_does_not_take_is_not_sent(
    #[values(Transport::WebSocket, Transport::Polling)] transport: Transport,
) {
    let server = Server::socketioxide();
    let mut session = open_ready(&server, transport).await;
    let long = json!("x".repeat(3_000));
    let error = session.emit("echo", &[long]).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "echo can't be sent: it is 3013 bytes, and the server takes 2000 at most"
    );
    let error = session.emit("disconnect", &[]).await.unwrap_err();
    assert!(matches!(error, SocketError::Unsendable { .. }), "{error}");
    let answer = session.emit_with_ack("echo", &[json!(2)], PATIENCE).await;
    assert_eq!(answer.unwrap(), [json!({ "you": 2 })]);
}

#[rstest]
#[tokio::test]
async fn a_namespace_that_is_not_there_refuses(
    #[values(Transport::WebSocket, Transport::Polling)] transport: Transport,
) {
    let server = Server::start(|| {
        let (layer, _io) = SocketIo::new_layer();
        Router::new().layer(layer)
    });
    let error = Session::connect(&server.url, transport, PATIENCE)
        .await
        .unwrap_err();
    let message = "Invalid namespace".to_owned();
    assert_eq!(error, SocketError::Refused { message });
}

#[rstest]
#[case("no address", "relative URL without a base")]
#[case("ftp://127.0.0.1", "ftp is not supported")]
#[case("https://127.0.0.1", "https is not supported")]
#[case("http://127.0.0.1/chat", "the path /chat would be a namespace")]
#[tokio::test]
async fn addresses(#[case] url: &str, #[case] why: &str) {
    let error = Session::connect(url, Transport::Polling, PATIENCE)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(url) && error.contains(why), "{error}");
}

#[tokio::test]
async fn a_query_goes_along() {
    let url = wire::address("http://127.0.0.1:1?token=a%26b#c").unwrap();
    assert_eq!(url.as_str(), "http://127.0.0.1:1/socket.io/?token=a%26b");
}

#[rstest]
#[tokio::test]
async fn another_server_is_no_socket_io_server(
    #[values(Transport::WebSocket, Transport::Polling)] transport: Transport,
) {
    let server = Server::start(|| Router::new().route("/socket.io/", get(async || "<html>")));
    let error = Session::connect(&server.url, transport, PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, SocketError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_takes_no_longer_than_the_deadline() {
    let server = Server::scripted(async |socket| say(socket, &[]).await);
    let short = Duration::from_millis(5);
    let error = Session::connect(&server.url, Transport::WebSocket, short)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("within 5ms"), "{error}");
}

#[rstest]
#[tokio::test]
async fn bad_packets_end_the_connection_and_nothing_else(
    #[values(
        "",
        "4",
        "7",
        "48",
        "🦀",
        "4🦀",
        "42",
        "42{}",
        "42[]",
        "42[1]",
        "42[\"a\"",
        "43[]",
        "4399999999999999999999[]",
        "45[\"a\"]",
        "451[\"a\"]",
        "451-",
        "46-1[]",
        "40",
        "0{}"
    )]
    bad: &'static str,
) {
    let server = Server::scripted(async |socket| {
        let packets = [HANDSHAKE, "40{\"sid\":\"b\"}", "42[\"good\"]", bad, "2"];
        say(socket, &packets.map(str::to_owned)).await;
    });
    let mut session = open(&server, Transport::WebSocket).await;
    let why = session.disconnected(PATIENCE).await.unwrap();
    assert!(why.contains("the server sent"), "{why}");
    session.event("good", PATIENCE, |_| true).await.unwrap();
}

#[rstest]
#[case("")]
#[case("0")]
#[case("0{")]
#[case("0{\"sid\":1}")]
#[case("0{\"sid\":\"a\",\"pingInterval\":-1,\"pingTimeout\":0}")]
#[case("40{\"sid\":\"b\"}")]
#[tokio::test]
async fn bad_handshakes(#[case] bad: &'static str) {
    let server = Server::scripted(async |socket| say(socket, &[bad.to_owned()]).await);
    let error = Session::connect(&server.url, Transport::WebSocket, PATIENCE)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no handshake"), "{error}");
}

#[tokio::test]
async fn other_namespaces_are_none_of_its_business() {
    let server = Server::scripted(async |socket| {
        let packets = [
            HANDSHAKE,
            "40/,{\"sid\":\"b\"}",
            "42/chat,[\"tick\",1]",
            "41/chat",
            "42/,7[\"tick\",2,3]",
        ];
        say(socket, &packets.map(str::to_owned)).await;
    });
    let mut session = open(&server, Transport::WebSocket).await;
    let event = session.event("tick", PATIENCE, |_| true).await.unwrap();
    assert_eq!(event.arguments, [json!(2), json!(3)]);
}

#[tokio::test]
async fn pings_are_answered_while_nobody_waits() {
    let server = Server::scripted(async |mut socket: WebSocket| {
        for packet in [HANDSHAKE, "40{\"sid\":\"b\"}"] {
            socket.send(Message::text(packet)).await.unwrap();
        }
        assert_eq!(socket.recv().await.unwrap().unwrap(), Message::text("40"));
        for _ in 0..3 {
            socket.send(Message::text("2")).await.unwrap();
            assert_eq!(socket.recv().await.unwrap().unwrap(), Message::text("3"));
        }
        socket.send(Message::text("42[\"alive\"]")).await.unwrap();
        while let Some(Ok(_)) = socket.recv().await {}
    });
    let mut session = open(&server, Transport::WebSocket).await;
    session.event("alive", PATIENCE, |_| true).await.unwrap();
}

/// Pings over polling, two packets in one answer, and an answer that is no "ok".
#[tokio::test]
async fn polling_as_it_is_written() {
    type Posted = Arc<Mutex<Vec<String>>>;
    let posted = Posted::default();
    let seen = Arc::clone(&posted);
    let server = Server::start(move || {
        let gets = Arc::new(Mutex::new(VecDeque::from([
            format!("{HANDSHAKE}\u{1e}40{{\"sid\":\"b\"}}"),
            "42[\"one\"]\u{1e}2\u{1e}bAAE=\u{1e}42[\"two\"]".to_owned(),
        ])));
        let get = async move |Query(query): Query<BTreeMap<String, String>>| {
            let next = gets.lock().unwrap().pop_front();
            assert_eq!(query["EIO"], "4");
            match next {
                Some(body) => body,
                None => std::future::pending().await,
            }
        };
        let post = async |Inner(posted): Inner<Posted>, body: String| {
            let answer = if body.contains("odd") { "what?" } else { "ok" };
            posted.lock().unwrap().push(body);
            answer.into_response()
        };
        Router::new()
            .route("/socket.io/", axum::routing::get(get).post(post))
            .with_state(posted)
    });
    let mut session = open(&server, Transport::Polling).await;
    for name in ["one", "two"] {
        session.event(name, PATIENCE, |_| true).await.unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), ["40", "3"]);
    let error = session.emit("odd", &[]).await.unwrap_err().to_string();
    assert!(error.contains("\"what?\" to a packet"), "{error}");
    session.close().await;
}

#[tokio::test]
async fn silence_longer_than_agreed_is_the_end() {
    let server = Server::scripted(async |socket| {
        let handshake = r#"0{"sid":"a","pingInterval":20,"pingTimeout":5}"#;
        let packets = [handshake, "40{\"sid\":\"b\"}"];
        say(socket, &packets.map(str::to_owned)).await;
    });
    // A busy machine may take longer than that for the connection itself.
    let why = match Session::connect(&server.url, Transport::WebSocket, PATIENCE).await {
        Ok(mut session) => session.disconnected(PATIENCE).await.unwrap(),
        Err(error) => error.to_string(),
    };
    assert!(why.contains("the server was silent for 25ms"), "{why}");
}

#[tokio::test]
async fn too_many_events_lose_the_oldest_and_say_so() {
    let server = Server::scripted(async |socket| {
        let mut packets = vec![HANDSHAKE.to_owned(), "40{\"sid\":\"b\"}".to_owned()];
        packets.extend((0..INBOX + 4).map(|n| format!("42[\"n\",{n}]")));
        packets.push("42[\"last\"]".to_owned());
        say(socket, &packets).await;
    });
    let mut session = open(&server, Transport::WebSocket).await;
    session.event("last", PATIENCE, |_| true).await.unwrap();
    let short = Duration::from_millis(1);
    let error = session.event("none", short, |_| true).await.unwrap_err();
    assert!(error.to_string().contains("5 older events"), "{error}");
    let first = session.event("n", PATIENCE, |_| true).await.unwrap();
    assert_eq!(first.payload(), 5);
}

#[rstest]
#[tokio::test]
async fn messages_that_are_too_large_end_the_connection(
    #[values(Transport::WebSocket, Transport::Polling)] transport: Transport,
) {
    let large = format!("42[\"{}\"]", "x".repeat(16 * 1024 * 1024));
    let server = Server::start(move || {
        let gets = Arc::new(Mutex::new(VecDeque::from([
            HANDSHAKE.to_owned(),
            "40{\"sid\":\"b\"}".to_owned(),
            large.clone(),
        ])));
        let get = move |upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>| {
            let gets = Arc::clone(&gets);
            async move {
                match upgrade {
                    Ok(upgrade) => upgrade.on_upgrade(async move |socket| {
                        let all: Vec<_> = gets.lock().unwrap().drain(..).collect();
                        say(socket, &all).await;
                    }),
                    Err(_) => {
                        let next = gets.lock().unwrap().pop_front();
                        next.unwrap_or_default().into_response()
                    }
                }
            }
        };
        let post = async || "ok";
        Router::new().route("/socket.io/", axum::routing::get(get).post(post))
    });
    let mut session = open(&server, transport).await;
    let why = session.disconnected(PATIENCE).await.unwrap();
    assert!(
        why.contains("more than") || why.contains("too long"),
        "{why}"
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_packet_or_an_error(text in "[0-9]{0,3}[-/,\\[\\]\"a{}:0-9\u{80}-\u{10ffff}]{0,20}") {
        let _ = packet::parse(&text);
    }
}
