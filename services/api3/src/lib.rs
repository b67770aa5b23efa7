//! The read side: one poller of the database for all pages that look on.
//!
//! [`tally`] decides what counts, [`feed`] asks the database, [`live`] tells
//! the pages over Socket.IO, [`rest`] answers plain requests.

pub mod feed;
pub mod live;
pub mod rest;
pub mod tally;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use socketioxide::SocketIo;
use telemetry::config::{Config, Defaults};
use telemetry::http::{App, observed};
use telemetry::service::{ServiceError, listen, runtime};
use telemetry::{lifecycle, logging};

use feed::Feed;
use live::Audience;

/// api3, put together and not yet listening.
pub struct Api3 {
    /// What all handlers share.
    pub app: App,
    /// Everything it answers.
    pub router: Router,
    /// The sockets, to be closed when the service stops.
    pub io: SocketIo,
    feed: Arc<Feed>,
    audience: Audience,
}

impl Api3 {
    /// Puts it together. Must be called within a tokio runtime.
    pub fn new(config: &Config) -> Self {
        let app = App::new(config);
        let feed = Arc::new(Feed::new(app.db().clone()));
        let audience = Audience::default();
        let (layer, io) = live::socket_layer(feed.clone(), audience.clone());
        let router = rest::routes(&app, feed.clone()).layer(layer);
        let router = observed(router, app.clone());
        Self {
            app,
            router,
            io,
            feed,
            audience,
        }
    }

    /// Tells the pages what is new, forever.
    pub async fn broadcast(&self) {
        live::broadcast(&self.io, &self.feed, &self.audience).await;
    }
}

/// Runs the service until SIGTERM.
///
/// # Errors
/// [`ServiceError`] when it can't start.
pub fn run() -> Result<(), ServiceError> {
    let config = Config::from_env(Defaults {
        api_name: "api3",
        port: 8080,
        version: env!("CARGO_PKG_VERSION"),
    })?;
    logging::init(&config.log);
    runtime()?.block_on(async {
        let stop = lifecycle::stop_signal().map_err(ServiceError::Process)?;
        let listener = listen(config.port).await?;
        let api3 = Api3::new(&config);
        tracing::info!(port = config.port, "listening");
        let serving = lifecycle::serve(
            listener,
            api3.router.clone(),
            api3.app.drain().clone(),
            stop,
            // Pages are told to go, and come back to another pod.
            api3.io.close(),
        );
        tokio::select! {
            () = serving => {}
            () = api3.broadcast() => {}
        }
        api3.app.db().close(Duration::from_secs(2)).await;
        Ok(())
    })
}
