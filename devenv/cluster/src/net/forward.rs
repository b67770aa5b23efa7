//! Carrying TCP connections to the endpoints of a Service.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::dial::Dialer;
use super::fault::{Faulty, Path};
use super::front::client_ip;

/// How long a connection to an endpoint may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long to rest when the system has no more descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes that each direction of a connection buffers.
const BUFFER: usize = 16 << 10;

/// Accepts connections until `stop` and carries each to the first endpoint that accepts, in the
/// order that `order` gives for its client then, behind the faults of the path that `path` gives. Those that were accepted go on until `cut`.
///
/// With no endpoint, or none that accepts, the client's connection is reset.
pub async fn serve(
    listener: TcpListener,
    dialer: Dialer,
    order: impl Fn(Ipv4Addr) -> Vec<SocketAddrV4>,
    path: impl Fn(Ipv4Addr) -> Path,
    stop: CancellationToken,
    cut: CancellationToken,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, from)) => {
                let from = client_ip(from.ip());
                let (order, path) = (order(from), path(from));
                let (dialer, cut) = (dialer.clone(), cut.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = carry(client, &order, &dialer, path) => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                // Of one connection, or too many open files: the listener itself stays good.
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a connection could not be accepted"
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, order: &[SocketAddrV4], dialer: &Dialer, path: Path) {
    let _ = client.set_nodelay(true);
    path.clone().open().await;
    match connect(order, dialer).await {
        Ok(server) => {
            let mut server = Faulty::new(server, path);
            // Half-closed connections go on in the other direction; an error of either ends both.
            if let Err(error) =
                tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER)
                    .await
            {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "a carried connection broke"
                );
                reset(&client);
                reset(server.get_ref());
            }
        }
        Err(error) => {
            debug!(
                error = &error as &dyn std::error::Error,
                "no endpoint accepts"
            );
            reset(&client);
        }
    }
}

/// Connects to the first endpoint that accepts.
pub async fn connect(order: &[SocketAddrV4], dialer: &Dialer) -> io::Result<TcpStream> {
    let mut last = io::Error::new(
        io::ErrorKind::ConnectionRefused,
        "the service has no ready endpoint",
    );
    for addr in order.iter().take(3) {
        match tokio::time::timeout(CONNECT_LIMIT, dialer.connect(*addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Makes the peer see a reset when the stream is dropped, not an orderly end.
fn reset(stream: &TcpStream) {
    // A socket that is broken already needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
