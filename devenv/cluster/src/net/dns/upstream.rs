//! The host's own resolver, for names outside the cluster.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tracing::debug;

use super::answer::reply;

/// How long one server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where names outside the cluster are asked for.
#[derive(Debug, Default)]
pub struct Upstream {
    servers: Mutex<Vec<SocketAddr>>,
    /// The file that names them, and how old it was when it was last read.
    file: Option<(PathBuf, Mutex<Option<SystemTime>>)>,
}

impl Upstream {
    /// These servers, in this order.
    pub fn new(servers: Vec<SocketAddr>) -> Upstream {
        Upstream {
            servers: Mutex::new(servers),
            file: None,
        }
    }

    /// The `nameserver` lines of a resolv.conf, read again when it has changed: a laptop that
    /// changes networks gets another. Without any, such names cannot be resolved.
    pub fn from_resolv_conf(path: &Path) -> Upstream {
        Upstream {
            servers: Mutex::default(),
            file: Some((path.to_owned(), Mutex::default())),
        }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, read)) = &self.file {
            let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
            // A link that leads elsewhere now has another time as well.
            let changed = std::fs::metadata(path).and_then(|m| m.modified()).ok();
            if changed != *read {
                *servers = std::fs::read_to_string(path)
                    .map(|text| parse(&text))
                    .unwrap_or_default();
                *read = changed;
            }
        }
        servers.clone()
    }

    /// The answer of the first server that gives one, else SERVFAIL; always under the query's id.
    pub async fn ask(&self, query: &Message, packet: &[u8], tcp: bool) -> Vec<u8> {
        for server in self.servers() {
            let asked = async {
                if tcp {
                    over_tcp(server, packet).await
                } else {
                    over_udp(server, packet).await
                }
            };
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(error)) => {
                    debug!(%server, error = &error as &dyn std::error::Error, "a resolver did not answer")
                }
                Err(_) => debug!(%server, "a resolver did not answer in time"),
            }
        }
        // An encoding failure would leave the client to its own patience.
        reply(query, ResponseCode::ServFail)
            .to_vec()
            .unwrap_or_default()
    }
}

async fn over_udp(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let local: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    // A socket for each question: its port is random, and only the server's packets reach it.
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if len >= 2 && buffer[..2] == packet[..2] {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(packet.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend_from_slice(packet);
    stream.write_all(&framed).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(len)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter_map(|word| word.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_lines() {
        let text = "# c\nsearch x\nnameserver 127.0.0.53\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 1.1.1.1 # x\n";
        let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53:53", "[::1]:53", "1.1.1.1:53"]);
    }
    #[test]
    fn another_network_has_other_servers() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("resolv.conf");
        let upstream = Upstream::from_resolv_conf(&path);
        assert_eq!(upstream.servers(), []);
        for (n, server) in ["192.0.2.1", "192.0.2.2"].into_iter().enumerate() {
            std::fs::write(&path, format!("nameserver {server}\n")).expect("written");
            // File systems count in ticks; two writes in one would look like one.
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64);
            let file = std::fs::File::options().write(true).open(&path);
            file.expect("there").set_modified(at).expect("set");
            let found = upstream.servers();
            assert_eq!(
                found,
                [SocketAddr::new(server.parse().expect("an address"), 53)]
            );
            assert_eq!(upstream.servers(), found);
        }
    }
}
