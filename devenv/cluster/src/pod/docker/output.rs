//! What a container prints, as two streams.

use bollard::container::{AttachContainerResults, LogOutput};
use futures_util::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use crate::pod::runtime::Output;

/// Bytes that wait for whoever reads them; the container waits when there are more.
const BUFFER: usize = 64 << 10;

/// Standard output and standard error of an attached container, each to its end.
pub(super) fn split(attached: AttachContainerResults) -> (Output, Output) {
    let (stdout, mut to_stdout) = duplex(BUFFER);
    let (stderr, mut to_stderr) = duplex(BUFFER);
    let mut output = attached.output;
    tokio::spawn(async move {
        // Held so that the engine does not take it for the end of the session.
        let _input = attached.input;
        while let Some(Ok(piece)) = output.next().await {
            let passed = match piece {
                LogOutput::StdErr { message } => pass(&mut to_stderr, &message).await,
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    pass(&mut to_stdout, &message).await
                }
                LogOutput::StdIn { .. } => true,
            };
            if !passed {
                return;
            }
        }
    });
    (Box::new(stdout), Box::new(stderr))
}

/// False when nobody reads any more.
async fn pass(to: &mut DuplexStream, bytes: &[u8]) -> bool {
    to.write_all(bytes).await.is_ok()
}
