//! The response's body on its way to the client.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::client::ClientState;
use super::live::Live;
use super::request_body::{Progress, Upload};
use super::upstream::Conn;
use super::worker::Worker;
use crate::table::UpstreamId;

/// What is sent to the client.
pub(super) enum ResponseBody {
    /// A page of ours; the head of a tunnel has no guard, the tunnel has it.
    Page(
        Bytes,
        #[expect(dead_code, reason = "held until the page is sent")] Option<Guard>,
    ),
    /// An endpoint's response.
    Endpoint(EndpointBody),
}

/// Counts a request's end, whichever way it ends, and tells the sweeper.
pub(super) struct Guard {
    worker: Arc<Worker>,
    client: Arc<ClientState>,
    /// The service that took the request, or `None` if we answer.
    service: Option<(Arc<Live>, UpstreamId)>,
    /// 499, nginx's "client closed request", until there is a status.
    pub status: u16,
}

impl Guard {
    pub fn new(worker: &Arc<Worker>, client: &Arc<ClientState>) -> Self {
        client.busy();
        Self {
            worker: worker.clone(),
            client: client.clone(),
            service: None,
            status: 499,
        }
    }

    pub fn given_to(&mut self, live: &Arc<Live>, id: UpstreamId) {
        live.counters(id).start(self.worker.index);
        self.service = Some((live.clone(), id));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let worker = self.worker.index;
        match &self.service {
            Some((live, id)) => live.counters(*id).finish(worker, self.status),
            None => {
                let own = self.worker.shared.registry.own();
                own.start(worker);
                own.finish(worker, self.status);
            }
        }
        self.client.idle();
    }
}

/// A response's body together with the connection that it comes from.
pub(super) struct EndpointBody {
    incoming: Incoming,
    /// `None` once it is back in the pool or given up.
    connection: Option<Box<Conn>>,
    /// Of a streamed request body, which may end after the response.
    upload: Option<Arc<Upload>>,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Told at the next poll, so that what came before it is sent first.
    failure: Option<hyper::Error>,
    guard: Guard,
}

impl EndpointBody {
    /// `reusable`: the endpoint will keep the connection open.
    pub fn new(
        incoming: Incoming,
        connection: Box<Conn>,
        upload: Option<Arc<Upload>>,
        patience: Duration,
        guard: Guard,
    ) -> Self {
        let mut body = Self {
            incoming,
            connection: Some(connection),
            upload,
            patience,
            timer: None,
            failure: None,
            guard,
        };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    /// Back into the pool, unless the request is still being written.
    fn release(&mut self) {
        let uploaded = self
            .upload
            .as_ref()
            .is_none_or(|upload| upload.get() == Progress::Done);
        self.guard.client.linger(!uploaded);
        if let Some(connection) = self.connection.take()
            && uploaded
        {
            self.guard.worker.pool.put(connection);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Some(Err(error.into())));
        }
        if let Some(connection) = &mut self.connection {
            connection.drive(cx);
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.timer = None;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.connection = None;
                self.failure = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.release();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let patience = self.patience;
                let timer = self
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                if timer.as_mut().poll(cx).is_ready() {
                    self.connection = None;
                    let error = io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the endpoint was silent in the middle of its response",
                    );
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for EndpointBody {
    fn drop(&mut self) {
        // hyper does not poll once more for the end of a body whose length it
        // knows.
        if self.incoming.is_end_stream() {
            self.release();
        }
    }
}

type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Page(bytes, _) if bytes.is_empty() => Poll::Ready(None),
            Self::Page(bytes, _) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Endpoint(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(bytes, _) => bytes.is_empty(),
            Self::Endpoint(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Endpoint(body) => body.incoming.size_hint(),
        }
    }
}
