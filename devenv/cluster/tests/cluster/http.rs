//! A small HTTP client.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One kept-alive connection.
pub struct Client {
    host: String,
    sender: SendRequest<Empty<Bytes>>,
}

impl Client {
    pub async fn over(stream: TcpStream, host: &str) -> Result<Client, String> {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        Ok(Client {
            host: host.to_owned(),
            sender,
        })
    }

    pub async fn get(&mut self, path: &str) -> Result<(u16, String), String> {
        self.send("GET", path).await
    }

    /// Status and body.
    pub async fn send(&mut self, method: &str, path: &str) -> Result<(u16, String), String> {
        self.sender.ready().await.map_err(|e| e.to_string())?;
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .body(Empty::new())
            .map_err(|e| e.to_string())?;
        let response = self
            .sender
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
    }
}

/// One request over its own connection.
pub async fn get(addr: std::net::SocketAddr, path: &str) -> Result<(u16, String), String> {
    let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
    Client::over(stream, "test.local").await?.get(path).await
}
