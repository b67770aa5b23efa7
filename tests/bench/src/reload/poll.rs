//! Asking again and again until the new version answers.

use super::app::App;
use crate::Failure;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A build that has nothing to compile but one crate is done by then.
const LIMIT: Duration = Duration::from_secs(60);
/// Short against what is measured; shorter, the asking itself would take the processor
/// from what is awaited.
const LOOK: Duration = Duration::from_millis(5);

/// Where a service answers with its version.
#[derive(Debug, Clone)]
pub struct Answers {
    address: SocketAddr,
    path: &'static str,
}

impl Answers {
    /// On a port of this machine.
    pub fn on(port: u16, path: &'static str) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { address, path }
    }

    /// Through devenv's ingress.
    pub fn through(ingress: &SocketAddr, app: App) -> Self {
        Self {
            address: *ingress,
            path: app.path(),
        }
    }

    /// Waits for an answer of `version`; how long after `saved` it came.
    pub fn wait(&self, saved: Instant, version: &str) -> Result<Duration, Failure> {
        let mut last = String::new();
        while saved.elapsed() < LIMIT {
            match self.ask() {
                Ok(head) if is_of(&head, version) => return Ok(saved.elapsed()),
                Ok(head) => last = head,
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(LOOK);
        }
        Err(format!(
            "version {version} did not answer at {} within {LIMIT:?}; the last answer: {last}",
            self.address
        )
        .into())
    }

    /// The same, counted from now.
    pub fn wait_now(&self, version: &str) -> Result<Duration, Failure> {
        self.wait(Instant::now(), version)
    }

    /// The head of one answer.
    fn ask(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let path = self.path;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let end = text.find("\r\n\r\n").unwrap_or(text.len());
        Ok(text[..end].to_owned())
    }
}

/// Whether this is the head of a 200 of that version.
fn is_of(head: &str, version: &str) -> bool {
    let mut lines = head.lines();
    lines
        .next()
        .is_some_and(|status| status.starts_with("HTTP/1.1 200"))
        && lines.any(|line| {
            line.split_once(':').is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("x-service-version") && value.trim() == version
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_200_of_the_version_counts() {
        let good = "HTTP/1.1 200 OK\r\nx-service-version: 7.0.0\r\nServer: x";
        assert!(is_of(good, "7.0.0"));
        assert!(!is_of(good, "8.0.0"));
        assert!(!is_of(&good.replace("200", "503"), "7.0.0"));
        assert!(!is_of("", "7.0.0"));
    }
}
