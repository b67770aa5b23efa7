use axum::Router;
use serde_json::{Value, json};
use socketioxide::{
    SocketIo,
    extract::{AckSender, Data, SocketRef},
};

use crate::step::testing::Bench;

/// A server like the application's.
async fn serve() -> String {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.on(
            "request-metrics",
            async |socket: SocketRef, Data::<Value>(data), ack: AckSender| {
                for n in 1..=3 {
                    socket.emit("metrics-update", &json!({ "n": n })).unwrap();
                }
                let _ = ack.send(&json!({ "asked": data }));
            },
        );
        socket.on("leave", async |socket: SocketRef| {
            socket.disconnect().unwrap();
        });
        socket.emit("ready", &json!(null)).unwrap();
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().layer(layer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[rstest::rstest]
#[tokio::test]
async fn a_session_from_its_opening_to_its_end(#[values("websocket", "polling")] transport: &str) {
    let mut bench = Bench::new(&serve().await);
    bench
        .passes(&format!(
            r#"socketio = {{ open = "s", url = "${{url}}", transport = "{transport}" }}"#
        ))
        .await;
    bench
        .passes(r#"socketio = { on = "s", event = "ready" }"#)
        .await;
    bench
        .passes(
            r#"socketio = { on = "s", emit = "request-metrics", data = { limit = 5 }, ack = true }
               expect = { json = { "$.asked.limit" = 5 } }
               capture = { what = "$.asked" }"#,
        )
        .await;
    let captured = bench.context.vars.get("what").unwrap();
    assert_eq!(captured, json!({ "limit": 5 }));
    bench
        .passes(
            r#"socketio = { on = "s", event = "metrics-update" }
               expect = { json = { "$.n" = { ge = 2 } } }"#,
        )
        .await;
    let failed = bench
        .fails(
            r#"socketio = { on = "s", event = "metrics-update", within = "50ms" }
               expect = { json = { "$.n" = 9 } }"#,
        )
        .await;
    assert_eq!(
        failed,
        "event metrics-update: expected one as expected within 50ms, \
         got no event metrics-update within 50ms; \
         there were 1 × metrics-update that was not as expected\n\
         $.n: expected 9, got 3"
    );
    let failed = bench
        .fails(r#"socketio = { on = "s", event = "metrics-updaet", within = "50ms" }"#)
        .await;
    assert_eq!(
        failed,
        "event metrics-updaet: expected one within 50ms, \
         got no event metrics-updaet within 50ms; no other event came"
    );
    let failed = bench
        .fails(r#"socketio = { on = "s", disconnected = true, within = "50ms" }"#)
        .await;
    assert_eq!(
        failed,
        "session s: expected its end within 50ms, got still connected"
    );
    bench
        .passes(r#"socketio = { on = "s", emit = "leave" }"#)
        .await;
    bench
        .passes(r#"socketio = { on = "s", disconnected = true }"#)
        .await;
    let failed = bench
        .fails(r#"socketio = { on = "s", emit = "request-metrics", ack = true }"#)
        .await;
    assert_eq!(
        failed,
        "emit request-metrics: expected its acknowledgement, \
         got the connection ended: the server disconnected this client"
    );
    bench
        .passes(r#"socketio = { on = "s", close = true }"#)
        .await;
    let failed = bench
        .fails(r#"socketio = { on = "s", close = true }"#)
        .await;
    assert_eq!(
        failed,
        "session s: expected one that is open, got none is open"
    );
}

#[tokio::test]
async fn sessions_are_told_apart_and_end_with_the_test() {
    let mut bench = Bench::new(&serve().await);
    for name in ["a", "b", "a"] {
        bench
            .passes(&format!(
                r#"socketio = {{ open = "{name}", url = "${{url}}" }}"#
            ))
            .await;
    }
    let failed = bench
        .fails(r#"socketio = { on = "c", close = true }"#)
        .await;
    assert_eq!(
        failed,
        "session c: expected one that is open, got open are a, b"
    );
    bench.context.sessions.close().await;
    let names = bench.context.sessions.names::<crate::socketio::Session>();
    assert_eq!(names, Vec::<&str>::new());
}

#[tokio::test]
async fn nobody_there() {
    let mut bench = Bench::new("http://127.0.0.1:1");
    let failed = bench
        .fails(r#"socketio = { open = "s", url = "${url}", transport = "polling" }"#)
        .await;
    assert!(
        failed.contains(
            "session s: expected a connection to http://127.0.0.1:1 over polling within 10s"
        ) && failed.contains("refused"),
        "{failed}"
    );
}
