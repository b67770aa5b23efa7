//! What the two sides see of each other.

use http_body_util::BodyExt;
use rstest::rstest;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

async fn mirrored(bytes: &str) -> Value {
    let mirror = Backend::mirror().await;
    let running = start(to(&[mirror.addr]));
    let reply = talk(running.addr, bytes.as_bytes()).await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 OK"), "{reply}");
    serde_json::from_str(body).unwrap_or_else(|_| panic!("{reply}"))
}

fn header<'a>(seen: &'a Value, name: &str) -> Option<&'a str> {
    let all: Vec<&str> = seen["headers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pair| pair[0] == name)
        .map(|pair| pair[1].as_str().unwrap())
        .collect();
    assert!(all.len() <= 1, "{name}: {all:?}");
    all.first().copied()
}

#[tokio::test]
async fn the_endpoint_learns_who_asked_and_gets_the_raw_target() {
    let seen = mirrored(
        "GET /a//b/../%63?q=%20&x HTTP/1.1\r\nHost: App.example:8080\r\nX-Forwarded-For: 9.9.9.9\r\n\
         X_Under: 1\r\nProxy: evil\r\nTE: trailers\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n",
    )
    .await;
    assert_eq!(seen["target"], "/a//b/../%63?q=%20&x");
    assert_eq!(seen["version"], "HTTP/1.1");
    for (name, expected) in [
        ("host", Some("App.example:8080")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-original-forwarded-for", Some("9.9.9.9")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-forwarded-host", Some("App.example:8080")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-scheme", Some("http")),
        ("x-scheme", Some("http")),
        ("x_under", None),
        ("proxy", None),
        ("te", None),
        ("x-hop", None),
        ("connection", None),
    ] {
        assert_eq!(header(&seen, name), expected, "{name}");
    }
    let id = header(&seen, "x-request-id").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
}

#[tokio::test]
async fn an_absolute_target_is_sent_on_as_a_path() {
    let seen = mirrored(
        "GET http://test.example/p?q HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(seen["target"], "/p?q");
}

#[tokio::test]
async fn http_1_0_is_spoken_to_clients_and_1_1_to_endpoints() {
    let seen = mirrored("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(seen["version"], "HTTP/1.1");
    assert_eq!(header(&seen, "host"), Some("_"));
}

#[tokio::test]
async fn a_small_chunked_body_arrives_with_its_length() {
    let seen = mirrored(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
         3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    )
    .await;
    assert_eq!(seen["body"], "abcdefg");
    assert_eq!(header(&seen, "content-length"), Some("7"));
    assert_eq!(header(&seen, "transfer-encoding"), None);
}

/// Of two framings the chunked one counts, and the endpoint sees only one: it
/// cannot take the rest for a second request.
#[tokio::test]
async fn a_request_framed_twice_reaches_the_endpoint_framed_once() {
    let seen = mirrored(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n1\r\na\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
    )
    .await;
    assert_eq!(seen["body"], "a");
    assert_eq!(header(&seen, "content-length"), Some("1"));
    assert_eq!(header(&seen, "transfer-encoding"), None);
}

#[rstest]
#[case::no_host("GET / HTTP/1.1\r\n\r\n", "400")]
#[case::two_hosts("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400")]
#[case::two_lengths(
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "400"
)]
#[case::above_the_root("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", "400")]
#[case::bad_escape("GET /%0 HTTP/1.1\r\nHost: a\r\n\r\n", "400")]
#[case::nonsense("hello\r\n\r\n", "400")]
#[case::trace("TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "405")]
#[case::connect(
    "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n",
    "405"
)]
#[tokio::test]
async fn refused_before_any_endpoint_is_asked(#[case] bytes: &str, #[case] status: &str) {
    let backend = Backend::named("one").await;
    let running = start(to(&[backend.addr]));
    let reply = talk(running.addr, bytes.as_bytes()).await;
    assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{reply}");
    assert_eq!(backend.hits(), 0);
}

#[rstest]
#[case::one_long("x: ".to_owned() + &"y".repeat(40 << 10) + "\r\n")]
#[case::very_many((0..200).map(|n| format!("x-{n}: 1\r\n")).collect())]
#[tokio::test]
async fn too_large_a_head_is_431(#[case] headers: String) {
    let backend = Backend::named("one").await;
    let running = start(to(&[backend.addr]));
    let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let reply = talk(running.addr, bytes.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
    assert_eq!(backend.hits(), 0);
}

#[tokio::test]
async fn head_keeps_the_length_and_has_no_body() {
    let backend = Backend::named("twelve bytes").await;
    let running = start(to(&[backend.addr]));
    let mut client = Client::connect(running.addr).await;
    for _ in 0..3 {
        let response = client.try_send(request("HEAD", &[], "")).await.unwrap();
        assert_eq!(response.headers()["content-length"], "12");
        assert!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
    }
    assert_eq!(client.send(get()).await.1, "twelve bytes");
}

#[tokio::test]
async fn endpoints_connections_are_kept_and_taken_again() {
    let (addr, connections) = raw(|mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            let reply = b"HTTP/1.1 200 OK\r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                          5\r\nhello\r\n0\r\n\r\n";
            stream.write_all(reply).await.unwrap();
        }
    })
    .await;
    let running = start_with(to(&[addr]), |options| options.threads = 1);
    let mut client = Client::connect(running.addr).await;
    for _ in 0..50 {
        assert_eq!(client.send(post("x")).await, (200, "hello".into()));
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_reply_that_ends_with_the_connection_is_passed_on() {
    let (addr, _) = raw(|mut stream| async move {
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\nto the end")
            .await
            .unwrap();
    })
    .await;
    let running = start(to(&[addr]));
    let mut client = Client::connect(running.addr).await;
    assert_eq!(client.send(get()).await, (200, "to the end".into()));
    assert_eq!(client.send(get()).await, (200, "to the end".into()));
}

#[tokio::test]
async fn a_client_that_ends_its_side_still_gets_the_reply() {
    let (addr, _) = raw(|mut stream| async move {
        read_request(&mut stream).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
            .await
            .unwrap();
    })
    .await;
    let running = start(to(&[addr]));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut reply = String::new();
    soon(stream.read_to_string(&mut reply)).await.unwrap();
    assert!(reply.ends_with("late"), "{reply}");
}

#[tokio::test]
async fn continue_is_said_before_the_body_and_not_before_a_refusal() {
    let mirror = Backend::mirror().await;
    let running = start(to(&[mirror.addr]));
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 25];
    soon(stream.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut reply = String::new();
    soon(stream.read_to_string(&mut reply)).await.unwrap();
    let (_, body) = reply.split_once("\r\n\r\n").unwrap();
    let seen: Value = serde_json::from_str(body).unwrap();
    assert_eq!(seen["body"], "hello");
    assert_eq!(header(&seen, "expect"), None);

    let too_large = head.replace("Length: 5", "Length: 1048577");
    let reply = talk(running.addr, too_large.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
}

#[tokio::test]
async fn pages_look_like_nginxs() {
    let running = start(to(&[]));
    let reply = talk(
        running.addr,
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    )
    .await;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 503 Service Unavailable"),
        "{head}"
    );
    assert!(head.contains("content-type: text/html"), "{head}");
    assert_eq!(
        body,
        "<html>\r\n<head><title>503 Service Temporarily Unavailable</title></head>\r\n<body>\r\n\
         <center><h1>503 Service Temporarily Unavailable</h1></center>\r\n\
         <hr><center>devenv</center>\r\n</body>\r\n</html>\r\n"
    );
    assert_eq!(running.proxy.stats().own, [0, 0, 0, 0, 1]);
}

#[tokio::test]
async fn a_host_or_path_that_nobody_serves_is_404() {
    let running = start(devenv_ingress::Table::default());
    let (status, body) = once(running.addr, get()).await;
    assert_eq!(status, 404);
    assert!(body.contains("<h1>404 Not Found</h1>"), "{body}");
}
