//! Faults between pods and Services, as the annotation `devenv.dev/fault` of a pod asks
//! for them: a cut network carries nothing in either direction and breaks no connection,
//! as a switch without power does; a delay comes on top of each piece of data that a pod
//! sends to the Service.
//!
//! What goes to a pod's own address (headless Services, the ingress) is not touched.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::controllers::runtime::Key;

/// What happens to traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing gets through.
    Cut,
    /// It takes so much longer.
    Delay(Duration),
}

/// The faults of all pods, by the pod's address and the Service that it calls.
#[derive(Debug, Clone)]
pub struct Faults {
    table: Arc<watch::Sender<HashMap<Ipv4Addr, HashMap<Key, Effect>>>>,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            table: Arc::new(watch::Sender::new(HashMap::new())),
        }
    }
}

impl Faults {
    /// From now on these are the faults of the pod at this address; none lifts them.
    pub fn set(&self, pod: Ipv4Addr, faults: HashMap<Key, Effect>) {
        self.table.send_if_modified(|table| {
            let before = if faults.is_empty() {
                table.remove(&pod)
            } else {
                table.insert(pod, faults.clone())
            };
            before.unwrap_or_default() != faults
        });
    }

    /// What happens on the way from this pod to this Service, now and later.
    pub fn path(&self, pod: Ipv4Addr, service: Option<&Key>) -> Path {
        Path {
            table: self.table.subscribe(),
            pod,
            service: service.cloned(),
        }
    }
}

/// The way from a pod to a Service.
#[derive(Debug, Clone)]
pub struct Path {
    table: watch::Receiver<HashMap<Ipv4Addr, HashMap<Key, Effect>>>,
    pod: Ipv4Addr,
    /// `None`: nobody can ask for a fault of it.
    service: Option<Key>,
}

impl Path {
    fn effect(&self) -> Option<Effect> {
        let service = self.service.as_ref()?;
        self.table.borrow().get(&self.pod)?.get(service).copied()
    }

    /// Resolves when something gets through; at once where nothing is wrong.
    pub async fn open(mut self) {
        let Some(service) = self.service else {
            return;
        };
        let pod = self.pod;
        let is_open = |table: &HashMap<Ipv4Addr, HashMap<Key, Effect>>| {
            let effect = table.get(&pod).and_then(|t| t.get(&service));
            effect != Some(&Effect::Cut)
        };
        // An error means that the cluster goes down, and the connection with it.
        let _ = self.table.wait_for(is_open).await;
    }
}

/// What a stream waits for.
type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The Service's end of a connection, behind the faults of its path.
pub struct Faulty<S> {
    inner: S,
    path: Path,
    reading: Option<Wait>,
    writing: Option<Wait>,
    /// Whether the delay of what is about to be written is over.
    delayed: bool,
}

impl<S> Faulty<S> {
    /// `inner` is reached by `path`.
    pub fn new(inner: S, path: Path) -> Faulty<S> {
        Faulty {
            inner,
            path,
            reading: None,
            writing: None,
            delayed: false,
        }
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

/// Ready when nothing of this direction is cut.
fn pass(wait: &mut Option<Wait>, path: &Path, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if let Some(waiting) = wait {
            ready!(waiting.as_mut().poll(cx));
            *wait = None;
        }
        if path.effect() != Some(Effect::Cut) {
            return Poll::Ready(());
        }
        *wait = Some(Box::pin(path.clone().open()));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Faulty<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(pass(&mut this.reading, &this.path, cx));
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Faulty<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(pass(&mut this.writing, &this.path, cx));
        if !this.delayed
            && let Some(Effect::Delay(by)) = this.path.effect()
        {
            this.delayed = true;
            this.writing = Some(Box::pin(tokio::time::sleep(by)));
            ready!(pass(&mut this.writing, &this.path, cx));
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buf));
        this.delayed = false;
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(pass(&mut this.writing, &this.path, cx));
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, timeout};

    const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 3);

    fn set(faults: &Faults, effect: Option<Effect>) {
        let key = Key::new("shop", "cloudsql");
        faults.set(POD, effect.map(|e| (key, e)).into_iter().collect());
    }

    fn stream(
        faults: &Faults,
        pod: Ipv4Addr,
    ) -> (Faulty<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let path = faults.path(pod, Some(&Key::new("shop", "cloudsql")));
        (Faulty::new(near, path), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_holds_both_directions_and_loses_nothing() {
        let faults = Faults::default();
        let (mut server, mut far) = stream(&faults, POD);
        let (mut untouched, mut its_far) = stream(&faults, OTHER);
        server.write_all(b"a").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'a');
        set(&faults, Some(Effect::Cut));
        far.write_all(b"b").await.unwrap();
        let long = Duration::from_secs(60);
        assert!(timeout(long, server.write_all(b"c")).await.is_err());
        assert!(timeout(long, server.read_u8()).await.is_err());
        untouched.write_all(b"d").await.unwrap();
        assert_eq!(its_far.read_u8().await.unwrap(), b'd');
        let (read, mut write) = tokio::io::split(server);
        let mut read = read;
        let reading = tokio::spawn(async move { read.read_u8().await });
        let writing = tokio::spawn(async move { write.write_all(b"e").await });
        tokio::task::yield_now().await;
        set(&faults, None);
        assert_eq!(reading.await.unwrap().unwrap(), b'b');
        writing.await.unwrap().unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'e');
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_of_what_is_sent() {
        let faults = Faults::default();
        let (mut server, mut far) = stream(&faults, POD);
        set(&faults, Some(Effect::Delay(Duration::from_millis(200))));
        let start = Instant::now();
        server.write_all(b"a").await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 200);
        server.write_all(b"b").await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 400);
        far.write_all(b"c").await.unwrap();
        server.read_u8().await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 400);
        set(&faults, None);
        server.write_all(b"d").await.unwrap();
        assert_eq!(start.elapsed().as_millis(), 400);
    }
}
