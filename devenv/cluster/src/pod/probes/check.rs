//! Asking a container once.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use async_trait::async_trait;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Action;
use crate::net::connect::Sockets;
use crate::pod::runtime::{Ended, PodSandbox, StartSpec};

/// Who is asked.
#[derive(Clone)]
pub struct Target {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The pod, and how its container was started: for commands.
    pub exec: Option<(Arc<dyn PodSandbox>, StartSpec)>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("ip", &self.ip)
            .finish_non_exhaustive()
    }
}

/// Asks containers.
#[async_trait]
pub trait Prober: Send + Sync + fmt::Debug {
    /// Asks once; an error says what went wrong, for the pod's events. The caller limits the time.
    async fn check(&self, action: &Action, target: &Target) -> Result<(), String>;
}

/// Asks through the cluster's network.
#[derive(Debug, Clone)]
pub struct NetProber {
    sockets: Sockets,
}

impl NetProber {
    /// A prober that connects with these sockets.
    pub fn new(sockets: Sockets) -> NetProber {
        NetProber { sockets }
    }

    async fn connect(
        &self,
        host: Option<&str>,
        ip: Ipv4Addr,
        port: u16,
    ) -> Result<TcpStream, String> {
        let ip = match host {
            None => ip,
            Some(host) => host
                .parse()
                .map_err(|_| format!("the probe's host {host:?} must be an IPv4 address here"))?,
        };
        let addr = SocketAddrV4::new(ip, port);
        self.sockets
            .connect(addr)
            .await
            .map_err(|error| format!("dial tcp {addr}: {error}"))
    }
}

#[async_trait]
impl Prober for NetProber {
    async fn check(&self, action: &Action, target: &Target) -> Result<(), String> {
        match action {
            Action::Tcp { host, port } => self
                .connect(host.as_deref(), target.ip, *port)
                .await
                .map(drop),
            Action::Http {
                host,
                port,
                path,
                headers,
            } => {
                let stream = self.connect(host.as_deref(), target.ip, *port).await?;
                let authority = format!(
                    "{}:{port}",
                    host.clone().unwrap_or_else(|| target.ip.to_string())
                );
                get(stream, &authority, path, headers).await
            }
            Action::Exec(command) => {
                let Some((sandbox, spec)) = &target.exec else {
                    return Err("the container is not running".to_owned());
                };
                let spec = StartSpec {
                    argv: command.clone(),
                    ..spec.clone()
                };
                match sandbox.exec(spec).await {
                    Ok(Ended::Code(0)) => Ok(()),
                    Ok(Ended::Code(code)) => Err(format!("command {command:?} returned {code}")),
                    Ok(Ended::Signal(signal)) => {
                        Err(format!("command {command:?} was killed by signal {signal}"))
                    }
                    Err(error) => Err(error.full()),
                }
            }
            Action::Unsupported(why) => Err(why.clone()),
        }
    }
}

async fn get(
    stream: TcpStream,
    authority: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<(), String> {
    let failed = |error: &dyn fmt::Display| format!("Get \"http://{authority}{path}\": {error}");
    let mut request = http::Request::get(path)
        .header(
            http::header::USER_AGENT,
            concat!("kube-probe/1.34 devenv/", env!("CARGO_PKG_VERSION")),
        )
        .header(http::header::ACCEPT, "*/*")
        .header(http::header::CONNECTION, "close");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        request = request.header(http::header::HOST, authority);
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        // The connection ended: what it brought before that is there now, an answer or an error.
        _ = connection => answer.await,
    };
    // The connection goes with this function: the body is not wanted.
    let response = response.map_err(|error| failed(&error))?;
    match response.status().as_u16() {
        200..400 => Ok(()),
        code => Err(format!("HTTP probe failed with statuscode: {code}")),
    }
}
