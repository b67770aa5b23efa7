//! The controller's life: bind, watch, serve, drain.

use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};

use devenv_ingress::{Proxy, ProxyOptions, Table};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::feed::{Feed, Update};
use crate::health::{Health, Probed};
use crate::options::{ControllerError, ControllerOptions};
use crate::report;
use crate::slices;

/// Runs the controller until SIGTERM, SIGINT or
/// [`ControllerOptions::shutdown`]; then it is not ready any more, lets requests
/// in flight finish for [`ControllerOptions::grace`], and returns.
///
/// Needs rustls' process-wide crypto provider to be installed when the API is
/// reached by HTTPS.
///
/// # Errors
/// Whatever keeps it from starting. An API that does not answer is none of
/// that: it is asked again until it does, and meanwhile the controller is not
/// ready.
pub async fn run(options: ControllerOptions) -> Result<(), ControllerError> {
    let shutdown = options.shutdown.clone();
    let listen = |kind| signal(kind).map_err(|source| ControllerError::Signals { source });
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let controller = Controller::bind(options).await?;
    let signals = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = controller.run() => result,
        () = signals => Ok(()),
    }
}

/// A controller with its addresses bound; nothing is accepted or asked before
/// [`Controller::run`].
pub struct Controller {
    options: ControllerOptions,
    client: Client,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    health: Health,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("addresses", &self.addresses)
            .field("health", &self.health)
            .finish_non_exhaustive()
    }
}

impl Controller {
    /// Binds all addresses. Connections wait in the accept queue until there are
    /// routes.
    ///
    /// # Errors
    /// An address that cannot be bound, or an API that is not known.
    pub async fn bind(mut options: ControllerOptions) -> Result<Controller, ControllerError> {
        if options.listen.is_empty() {
            return Err(ControllerError::NoAddress);
        }
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for &address in &options.listen {
            let failed = |source| ControllerError::Listen { address, source };
            // std sets SO_REUSEADDR, so a pod's successor on the same address can bind at once.
            let listener = TcpListener::bind(address).map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let health = Health::bind(options.health)?;
        let client = match options.client.take() {
            Some(client) => client,
            None => Client::try_default()
                .await
                .map_err(|source| ControllerError::Api {
                    source: Box::new(source),
                })?,
        };
        Ok(Controller {
            options,
            client,
            listeners,
            addresses,
            health,
        })
    }

    /// Where requests are taken, in the order of [`ControllerOptions::listen`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the probes are answered.
    pub fn health_address(&self) -> SocketAddr {
        self.health.address()
    }

    /// Serves until [`ControllerOptions::shutdown`] is cancelled, then drains.
    ///
    /// # Errors
    /// A data plane that cannot start.
    pub async fn run(self) -> Result<(), ControllerError> {
        let shutdown = self.options.shutdown.clone();
        let probed = self.health.probed();
        info!(
            listen = ?self.addresses,
            health = %self.health.address(),
            "ingress controller starts"
        );
        let ended = CancellationToken::new();
        let answering = tokio::spawn(self.health.serve(ended.clone()));
        let result = serve(
            self.client,
            self.listeners,
            self.options,
            &probed,
            shutdown.cancelled(),
        )
        .await;
        ended.cancel();
        if let Err(error) = answering.await {
            warn!(%error, "the probes' answers ended badly");
        }
        result
    }
}

async fn serve(
    client: Client,
    listeners: Vec<TcpListener>,
    options: ControllerOptions,
    probed: &Probed,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ControllerError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let source = tokio::select! {
        source = slices::discover_patiently(&client) => source,
        () = &mut shutdown => return Ok(()),
    };
    tracing::debug!(source = source.name(), "where endpoints are read from");
    let mut feed = Feed::new(&client, source);
    // Before any route is known a request could only be told a wrong «no such page».
    let table = tokio::select! {
        table = feed.routes() => table,
        () = &mut shutdown => return Ok(()),
    };
    let proxy = start(listeners, &options, table)?;
    let reporting = report::spawn(
        client,
        feed.ingresses(),
        options.publish_status_addresses.clone(),
    );
    let mut first = true;
    loop {
        let compiled = tokio::select! {
            biased;
            () = &mut shutdown => break,
            update = feed.next() => match update {
                Update::Routes(table) => {
                    proxy.publish(table);
                    continue;
                }
                Update::Full(compiled) => compiled,
            },
        };
        proxy.publish(compiled.table);
        if std::mem::take(&mut first) {
            probed.set_ready(true);
            info!(
                ingresses = compiled.accepted.len(),
                "the first table is in force"
            );
        }
        reporting.tell(compiled.accepted, compiled.warnings);
    }
    probed.set_ready(false);
    info!(grace = ?options.grace, "stops: requests in flight may finish");
    drop(feed);
    reporting.end().await;
    proxy.drain(options.grace).await;
    Ok(())
}

fn start(
    listeners: Vec<TcpListener>,
    options: &ControllerOptions,
    table: Table,
) -> Result<Proxy, ControllerError> {
    let mut proxy = ProxyOptions::new(listeners);
    proxy.hold = options.hold.clone();
    if let Some(threads) = options.threads {
        proxy.threads = threads;
    }
    Ok(Proxy::start(proxy, table)?)
}
