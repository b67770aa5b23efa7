//! The binary as Cloud Run starts and stops it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Kills what a failing test leaves.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn command(port: &str, dir: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frontend"));
    command
        .env_clear()
        .env("PORT", port)
        .env("STATIC_DIR", dir)
        .stderr(Stdio::piped());
    command
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_serves_on_its_port_and_ends_at_sigterm_with_connections_open() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("index.html"), "<p>page</p>").unwrap();
    let port = free_port();
    let mut server = Server(
        command(&port.to_string(), dir.path().to_str().unwrap())
            .spawn()
            .unwrap(),
    );
    let mut log = BufReader::new(server.0.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert!(line.contains("serving the page"), "{line}");
    assert!(get(port, "/").ends_with("<p>page</p>"));
    assert!(get(port, "/healthz").starts_with("HTTP/1.1 200"));

    // A browser's kept-alive connection must not hold the end up.
    let mut idle = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let told = Instant::now();
    let kill = Command::new("sh")
        .args(["-c", &format!("kill -TERM {}", server.0.id())])
        .status()
        .unwrap();
    assert!(kill.success());
    let status = server.0.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
}

#[test]
fn what_is_wrong_is_said_at_once_with_the_remedy() {
    let empty = tempfile::tempdir().unwrap();
    let output = command("8080", empty.path().to_str().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("npm --prefix services/frontend/web ci"),
        "{said}"
    );

    let output = command("none", "/x")
        .env("API3_URL", "nowhere")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("PORT is `none`") && said.contains("API3_URL is `nowhere`"),
        "{said}"
    );
}
