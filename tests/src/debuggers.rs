//! What editors speak to debuggers: the Debug Adapter Protocol and Node's inspector
//! protocol, as far as a breakpoint needs them.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// How long a debugger may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, answer: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

/// A client of debugpy.
#[derive(Debug)]
pub struct Dap {
    stream: BufReader<TcpStream>,
    sent: u64,
}

impl Dap {
    /// Attaches with one breakpoint; `line` counts from 1. A program that waits goes on.
    ///
    /// # Panics
    /// When the debugger does not do its part.
    pub async fn attach(address: SocketAddr, file: &str, line: u32) -> Self {
        let stream = TcpStream::connect(address).await.expect("debugpy listens");
        let mut dap = Self {
            stream: BufReader::new(stream),
            sent: 0,
        };
        let hello =
            json!({"adapterID": "devenv-test", "pathFormat": "path", "linesStartAt1": true});
        dap.request("initialize", hello).await;
        dap.response("initialize").await;
        dap.request("attach", json!({"justMyCode": true})).await;
        dap.event("initialized").await;
        let breakpoints = json!({"source": {"path": file}, "breakpoints": [{"line": line}]});
        dap.request("setBreakpoints", breakpoints).await;
        let set = dap.response("setBreakpoints").await;
        assert_eq!(set["body"]["breakpoints"][0]["verified"], true, "{set}");
        dap.request("configurationDone", json!({})).await;
        dap.response("configurationDone").await;
        dap
    }

    /// Waits until the program stands at the breakpoint; returns its thread.
    pub async fn stopped(&mut self) -> Value {
        let stopped = self.event("stopped").await;
        assert_eq!(stopped["body"]["reason"], "breakpoint", "{stopped}");
        stopped["body"]["threadId"].clone()
    }

    /// What an expression is in the topmost frame of a thread.
    pub async fn evaluate(&mut self, thread: &Value, expression: &str) -> String {
        self.request("stackTrace", json!({"threadId": thread}))
            .await;
        let stack = self.response("stackTrace").await;
        let frame = stack["body"]["stackFrames"][0]["id"].clone();
        let what = json!({"expression": expression, "frameId": frame, "context": "watch"});
        self.request("evaluate", what).await;
        let value = self.response("evaluate").await;
        value["body"]["result"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Goes on without debugging.
    pub async fn detach(mut self) {
        self.request("disconnect", json!({"terminateDebuggee": false}))
            .await;
        self.response("disconnect").await;
    }

    async fn request(&mut self, command: &str, arguments: Value) {
        self.sent += 1;
        let request = json!({
            "seq": self.sent, "type": "request", "command": command, "arguments": arguments,
        })
        .to_string();
        let whole = format!("Content-Length: {}\r\n\r\n{request}", request.len());
        let sent = self.stream.get_mut().write_all(whole.as_bytes()).await;
        sent.expect("debugpy takes requests");
    }

    async fn response(&mut self, command: &str) -> Value {
        let is = |m: &Value| m["type"] == "response" && m["command"] == command;
        let response = soon(command, self.message(is)).await;
        assert_eq!(response["success"], true, "{response}");
        response
    }

    async fn event(&mut self, event: &str) -> Value {
        let is = |m: &Value| m["type"] == "event" && m["event"] == event;
        soon(event, self.message(is)).await
    }

    async fn message(&mut self, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                let read = self.stream.read_line(&mut line).await;
                assert_ne!(read.expect("debugpy speaks"), 0, "debugpy hung up");
                match line.trim_end().split_once(": ") {
                    Some(("Content-Length", n)) => length = n.parse().expect("a length"),
                    Some(_) => {}
                    None => break,
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.expect("a message");
            let message: Value = serde_json::from_slice(&body).expect("JSON");
            if is(&message) {
                return message;
            }
        }
    }
}

/// A client of Node's inspector.
#[derive(Debug)]
pub struct Inspector {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    sent: u64,
}

impl Inspector {
    /// Attaches with one breakpoint in the script whose URL `pattern` (a regular
    /// expression) matches; `line` counts from 1.
    ///
    /// # Panics
    /// When the debugger does not do its part.
    pub async fn attach(address: SocketAddr, pattern: &str, line: u32) -> Self {
        let targets = reqwest::get(format!("http://{address}/json/list")).await;
        let targets: Value = targets
            .expect("the inspector listens")
            .json()
            .await
            .expect("JSON");
        let url = targets[0]["webSocketDebuggerUrl"]
            .as_str()
            .unwrap_or_else(|| panic!("no target: {targets}"));
        let connected = tokio_tungstenite::connect_async(url).await;
        let (socket, _) = connected.expect("the inspector's socket");
        let mut inspector = Self { socket, sent: 0 };
        inspector.call("Debugger.enable", json!({})).await;
        let place = json!({"urlRegex": pattern, "lineNumber": line - 1});
        // Of a program that waits there is no script yet.
        inspector.call("Debugger.setBreakpointByUrl", place).await;
        inspector
            .call("Runtime.runIfWaitingForDebugger", json!({}))
            .await;
        inspector
    }

    /// Waits until the program stands at the breakpoint; returns its topmost frame.
    pub async fn paused(&mut self) -> Value {
        let is = |m: &Value| m["method"] == "Debugger.paused";
        let paused = soon("Debugger.paused", self.message(is)).await;
        paused["params"]["callFrames"][0]["callFrameId"].clone()
    }

    /// What an expression is in a frame.
    pub async fn evaluate(&mut self, frame: &Value, expression: &str) -> Value {
        let what = json!({"callFrameId": frame, "expression": expression});
        let value = self.call("Debugger.evaluateOnCallFrame", what).await;
        value["result"]["result"]["value"].clone()
    }

    /// Goes on without debugging.
    pub async fn detach(mut self) {
        self.call("Debugger.disable", json!({})).await;
        // It is gone either way.
        let _ = self.socket.close(None).await;
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.sent += 1;
        let id = self.sent;
        let request = json!({"id": id, "method": method, "params": parameters}).to_string();
        let sent = self.socket.send(Message::text(request)).await;
        sent.expect("the inspector takes requests");
        let answer = soon(method, self.message(|m| m["id"] == id)).await;
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer
    }

    async fn message(&mut self, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.socket.next().await.expect("the inspector is there");
            if let Message::Text(text) = message.expect("the inspector speaks") {
                let message: Value = serde_json::from_str(&text).expect("JSON");
                if is(&message) {
                    return message;
                }
            }
        }
    }
}
