//! The way out: TCP connections of pods to addresses outside the cluster.
//!
//! One rule in the cluster's network hands them to a listener; here each is
//! led to where its address means something ([`super::dial`]) and carried. UDP
//! other than DNS has no way out.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::OriginalDst};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::dial::Dialer;

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
    dialer: Dialer,
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
                let (dialer, stop) = (dialer.clone(), stop.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = carry(pod, &dialer) => {}
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

async fn carry(mut pod: TcpStream, dialer: &Dialer) {
    match dial(&pod, dialer).await {
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

async fn dial(pod: &TcpStream, dialer: &Dialer) -> io::Result<TcpStream> {
    let wanted = getsockopt(pod, OriginalDst)?;
    let addr = SocketAddrV4::new(
        Ipv4Addr::from(u32::from_be(wanted.sin_addr.s_addr)),
        u16::from_be(wanted.sin_port),
    );
    // A socket that refuses this works all the same.
    let _ = pod.set_nodelay(true);
    dialer.connect(addr).await
}

/// The pod saw its connection accepted: a reset tells it that nobody is there.
fn reset(stream: &TcpStream) {
    // A socket that is broken already needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
