//! Writes a few pieces with the cheapest system call that does it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// Up to so many bytes are put together first: copying them costs less than
/// the kernel's reading a list of pieces.
const SMALL: usize = 2 << 10;

/// Like `poll_write_vectored`, which a head and a small body would go through.
pub(super) fn poll_write_pieces(
    mut stream: Pin<&mut TcpStream>,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = pieces {
        return stream.poll_write(cx, only);
    }
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    if total > SMALL {
        return stream.poll_write_vectored(cx, pieces);
    }
    let mut whole = [0; SMALL];
    let mut at = 0;
    for piece in pieces {
        whole[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    stream.as_mut().poll_write(cx, &whole[..at])
}
