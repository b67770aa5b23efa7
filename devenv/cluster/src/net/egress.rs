//! The way out: TCP connections of pods to addresses outside the cluster.
//!
//! One rule in the cluster's network hands them to a listener; here each is
//! dialled from the host's network and carried. UDP other than DNS has no way
//! out.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::OriginalDst};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// How long a connection to the outside may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long to rest when the system has no more descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes that each direction of a connection buffers.
const BUFFER: usize = 16 << 10;

/// Carries connections until `stop`.
///
/// # Errors
/// When the listener is not usable.
pub async fn run(
    listener: std::net::TcpListener,
    stop: CancellationToken,
    connections: TaskTracker,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((pod, _)) => {
                let stop = stop.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = carry(pod) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a way out could not be opened"
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn carry(mut pod: TcpStream) {
    match dial(&pod).await {
        Ok(mut outside) => {
            let copied =
                tokio::io::copy_bidirectional_with_sizes(&mut pod, &mut outside, BUFFER, BUFFER)
                    .await;
            if copied.is_err() {
                reset(&pod);
                reset(&outside);
            }
        }
        Err(error) => {
            debug!(
                error = &error as &dyn std::error::Error,
                "an address outside was not reached"
            );
            reset(&pod);
        }
    }
}

async fn dial(pod: &TcpStream) -> io::Result<TcpStream> {
    let wanted = getsockopt(pod, OriginalDst)?;
    let addr = SocketAddrV4::new(
        Ipv4Addr::from(u32::from_be(wanted.sin_addr.s_addr)),
        u16::from_be(wanted.sin_port),
    );
    if !is_outside(*addr.ip()) {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let outside = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(addr)).await??;
    // Neither side waits to fill a segment; a socket that refuses this works all the same.
    let _ = (pod.set_nodelay(true), outside.set_nodelay(true));
    Ok(outside)
}

/// Whether an address can mean another machine. A pod's own kernel sends 127.0.0.0/8 nowhere, but a
/// pod that writes raw packets could ask for it, and here it would be this machine's loopback.
fn is_outside(ip: Ipv4Addr) -> bool {
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast())
}

/// The pod saw its connection accepted: a reset tells it that nobody is there.
fn reset(stream: &TcpStream) {
    // A socket that is broken already needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("127.0.0.1", false)]
    #[case("127.140.111.80", false)]
    #[case("0.0.0.0", false)]
    #[case("255.255.255.255", false)]
    #[case("224.0.0.1", false)]
    #[case("10.0.0.1", true)]
    #[case("192.168.1.1", true)]
    #[case("142.250.1.1", true)]
    fn this_machines_loopback_is_not_outside(#[case] ip: Ipv4Addr, #[case] outside: bool) {
        assert_eq!(is_outside(ip), outside);
    }
}
