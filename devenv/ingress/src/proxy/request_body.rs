//! The request's body on its way to an endpoint.
//!
//! A small body is taken in whole first, as nginx does by default: the
//! endpoint is not kept waiting by a slow client, gets a Content-Length, and
//! the request can be sent again. A larger one is streamed.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::client::ClientState;

/// Bodies up to this many bytes are taken in whole.
pub(super) const WHOLE: u64 = 64 << 10;

/// What is sent to an endpoint.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// Nothing, or all of it: can be sent again.
    Whole(Bytes),
    /// Still coming.
    Stream(Stream),
}

/// A body that is passed on as it comes.
#[derive(Debug)]
pub(super) struct Stream {
    /// What had been taken in before it proved too large for that.
    prefix: Bytes,
    rest: Incoming,
    /// Bytes that may still come.
    budget: u64,
    upload: Arc<Upload>,
    client: Arc<ClientState>,
}

/// How a streamed body is faring; outlives it inside hyper's connection.
#[derive(Debug, Default)]
pub(super) struct Upload(AtomicU8);

/// States of [`Upload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Progress {
    /// The next part can be had.
    Running,
    /// The client has not sent the next part.
    Waiting,
    /// All passed on.
    Done,
    /// More than the location allows.
    TooLarge,
    /// The client went away or sent nonsense.
    Failed,
}

impl Upload {
    fn set(&self, progress: Progress) {
        self.0.store(progress as u8, Ordering::Relaxed);
    }

    pub fn get(&self) -> Progress {
        match self.0.load(Ordering::Relaxed) {
            0 => Progress::Running,
            1 => Progress::Waiting,
            2 => Progress::Done,
            3 => Progress::TooLarge,
            _ => Progress::Failed,
        }
    }
}

/// Why a body cannot be passed on.
#[derive(Debug)]
pub(super) enum BodyError {
    /// More than the location allows.
    TooLarge,
    /// The client's side failed.
    Client(hyper::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request's body is larger than its location allows",
            Self::Client(_) => "the request's body could not be read from the client",
        })
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TooLarge => None,
            Self::Client(source) => Some(source),
        }
    }
}

/// Whether a body is said to be larger than its location allows.
pub(super) fn is_too_large(body: &Incoming, limit: Option<u64>) -> bool {
    let known = body.size_hint().exact();
    known.is_some_and(|size| limit.is_some_and(|limit| size > limit))
}

/// Takes in a small body, or prepares a larger one for streaming. `limit` is
/// the location's, in bytes.
pub(super) async fn take(
    mut body: Incoming,
    limit: Option<u64>,
    client: &Arc<ClientState>,
) -> Result<(RequestBody, Option<Arc<Upload>>), BodyError> {
    if body.is_end_stream() {
        return Ok((RequestBody::Whole(Bytes::new()), None));
    }
    if is_too_large(&body, limit) {
        return Err(BodyError::TooLarge);
    }
    let limit = limit.unwrap_or(u64::MAX);
    let known = body.size_hint().exact();
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let mut size = 0u64;
    if known.is_none_or(|size| size <= WHOLE) {
        while size <= WHOLE {
            let Some(frame) = next(&mut body, client).await.transpose()? else {
                let whole = if more.is_empty() {
                    first
                } else {
                    more.freeze()
                };
                return Ok((RequestBody::Whole(whole), None));
            };
            // Trailers end here, as in nginx.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            size += data.len() as u64;
            if size > limit {
                return Err(BodyError::TooLarge);
            }
            if first.is_empty() {
                first = data;
            } else {
                if more.is_empty() {
                    more.extend_from_slice(&first);
                }
                more.extend_from_slice(&data);
            }
            if known == Some(size) {
                let whole = if more.is_empty() {
                    first
                } else {
                    more.freeze()
                };
                return Ok((RequestBody::Whole(whole), None));
            }
        }
    }
    let upload = Arc::new(Upload::default());
    let stream = Stream {
        prefix: if more.is_empty() {
            first
        } else {
            more.freeze()
        },
        rest: body,
        budget: limit - size,
        upload: upload.clone(),
        client: client.clone(),
    };
    Ok((RequestBody::Stream(stream), Some(upload)))
}

async fn next(
    body: &mut Incoming,
    client: &ClientState,
) -> Option<Result<Frame<Bytes>, BodyError>> {
    let frame = std::future::poll_fn(|cx| {
        let frame = Pin::new(&mut *body).poll_frame(cx);
        if frame.is_pending() {
            client.waits_for_body();
        } else {
            client.busy();
        }
        frame
    });
    frame.await.map(|frame| frame.map_err(BodyError::Client))
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.prefix.is_empty() && stream.rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => {
                let prefix = stream.prefix.len() as u64;
                match stream.rest.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(prefix + rest),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.prefix.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.prefix)))));
        }
        let frame = Pin::new(&mut self.rest).poll_frame(cx);
        if frame.is_pending() {
            self.upload.set(Progress::Waiting);
            self.client.waits_for_body();
        }
        let frame = match ready!(frame) {
            None => {
                self.upload.set(Progress::Done);
                self.client.busy();
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.upload.set(Progress::Failed);
                return Poll::Ready(Some(Err(BodyError::Client(error))));
            }
            Some(Ok(frame)) => frame,
        };
        self.client.busy();
        self.upload.set(Progress::Running);
        let Ok(data) = frame.into_data() else {
            // Trailers are the end and are not passed on, as in nginx.
            self.upload.set(Progress::Done);
            return Poll::Ready(None);
        };
        let Some(budget) = self.budget.checked_sub(data.len() as u64) else {
            self.upload.set(Progress::TooLarge);
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        };
        self.budget = budget;
        if self.rest.is_end_stream() {
            self.upload.set(Progress::Done);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}
