//! A small HTTP client.

use std::pin::{Pin, pin};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One kept-alive connection.
pub struct Client {
    host: String,
    sender: SendRequest<Empty<Bytes>>,
    /// Driven by whoever waits for an answer. In a task of its own it could end in the
    /// middle of a request's sending, which would then never be answered at all
    /// (hyperium/hyper#4122): a connection that is reset at once does that.
    connection: Option<Connection<TokioIo<TcpStream>, Empty<Bytes>>>,
}

impl Client {
    pub async fn over(stream: TcpStream, host: &str) -> Result<Client, String> {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        Ok(Client {
            host: host.to_owned(),
            sender,
            connection: Some(connection),
        })
    }

    pub async fn get(&mut self, path: &str) -> Result<(u16, String), String> {
        self.send("GET", path).await
    }

    /// Status and body.
    pub async fn send(&mut self, method: &str, path: &str) -> Result<(u16, String), String> {
        let Client {
            host,
            sender,
            connection,
        } = self;
        let mut exchange = pin!(async {
            sender.ready().await.map_err(|e| e.to_string())?;
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("host", host.as_str())
                .body(Empty::new())
                .map_err(|e| e.to_string())?;
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| e.to_string())?;
            let status = response.status().as_u16();
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(|e| e.to_string())?
                .to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        });
        std::future::poll_fn(|cx| {
            if let Some(running) = connection.as_mut()
                && Pin::new(running).poll(cx).is_ready()
            {
                // Its end answers what was sent, one way or the other.
                *connection = None;
            }
            exchange.as_mut().poll(cx)
        })
        .await
    }
}

/// One request over its own connection.
pub async fn get(addr: std::net::SocketAddr, path: &str) -> Result<(u16, String), String> {
    let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
    Client::over(stream, "test.local").await?.get(path).await
}
