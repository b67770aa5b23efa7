//! The life of api1 and api2, from the environment to the last answer.

use std::time::Duration;

use tokio::net::TcpListener;

use crate::config::{Config, ConfigError, Defaults};
use crate::http::{App, write_router};
use crate::{lifecycle, logging, write};

/// How often old idempotency keys are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// Why a service could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The environment is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The port is taken or not allowed.
    #[error("can't listen on port {port}; another process may hold it, or PORT may name another")]
    Listen {
        /// The port.
        port: u16,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The runtime or its signal handlers.
    #[error("can't set up the process")]
    Process(#[source] std::io::Error),
}

/// Runs the write side until SIGTERM; what api1 and api2 are.
///
/// # Errors
/// [`ServiceError`] when it can't start.
pub fn run_write_service(defaults: Defaults) -> Result<(), ServiceError> {
    let config = Config::from_env(defaults)?;
    logging::init(&config.log);
    runtime()?.block_on(async {
        let stop = lifecycle::stop_signal().map_err(ServiceError::Process)?;
        let listener = listen(config.port).await?;
        let app = App::new(&config);
        tracing::info!(api = app.api(), port = config.port, "listening");
        let pruner = tokio::spawn(prune_forever(app.clone()));
        let router = write_router(&app);
        lifecycle::serve(listener, router, app.drain().clone(), stop, async {}).await;
        pruner.abort();
        app.db().close(Duration::from_secs(2)).await;
        Ok(())
    })
}

/// A runtime on this thread alone: a service's work is waiting for the
/// database, and more of it is had with more replicas.
///
/// # Errors
/// [`ServiceError::Process`].
pub fn runtime() -> Result<tokio::runtime::Runtime, ServiceError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServiceError::Process)
}

/// Listens on all addresses of the pod.
///
/// # Errors
/// [`ServiceError::Listen`].
pub async fn listen(port: u16) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(("0.0.0.0", port))
        .await
        .map_err(|source| ServiceError::Listen { port, source })
}

async fn prune_forever(app: App) {
    let mut every = tokio::time::interval(PRUNE_EVERY);
    // The first tick is at once; at the start there is better to do.
    every.tick().await;
    loop {
        every.tick().await;
        match write::prune(app.db()).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "old idempotency keys removed"),
            Err(error) => tracing::debug!(%error, "old idempotency keys stay for now"),
        }
    }
}

/// An error and its causes on one line, for a service's last words.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
