//! The page of the reference application and its server, made for Cloud Run's container contract:
//! listens on `0.0.0.0:$PORT`, logs to standard error, ends within ten seconds of SIGTERM.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use frontend::{Config, Site, app};

/// Cloud Run sends SIGKILL ten seconds after SIGTERM.
const GRACE: Duration = Duration::from_secs(8);

// A page is a few files from memory: one thread serves thousands of them a second.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let level = std::env::var("LOG_LEVEL").unwrap_or_default();
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .parse_lossy(level);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in problems {
                error!("{problem}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Vec<String>> {
    let one = |problem: String| vec![problem];
    // Set up first: a signal that comes while starting must not be lost.
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|e| one(format!("SIGTERM: {e}")))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| one(format!("SIGINT: {e}")))?;
    let config = Config::from_env(|name| std::env::var(name).ok())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let site = Site::load(&config.static_dir).map_err(|e| one(describe(&e)))?;
    let address = (std::net::Ipv4Addr::UNSPECIFIED, config.port);
    let listener = TcpListener::bind(address).await.map_err(|e| {
        one(format!(
            "cannot listen on 0.0.0.0:{}: {e}; set PORT to a free port",
            config.port
        ))
    })?;
    info!(
        port = config.port,
        files = site.len(),
        api3 = config.api3_url,
        "serving the page"
    );

    let (stop_tx, stop_rx) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, app(&config, site)).with_graceful_shutdown(async {
        // An error means that the sender is gone, which is a reason to stop as well.
        let _ = stop_rx.await;
    });
    let mut server = std::pin::pin!(server.into_future());
    tokio::select! {
        ended = &mut server => return ended.map_err(|e| one(format!("the server ended: {e}"))),
        _ = terminate.recv() => info!("SIGTERM: finishing what is under way"),
        _ = interrupt.recv() => info!("SIGINT: finishing what is under way"),
    }
    let _ = stop_tx.send(());
    match tokio::time::timeout(GRACE, server).await {
        Ok(ended) => ended.map_err(|e| one(format!("the server ended: {e}"))),
        Err(_) => {
            warn!("connections were still open after {} s", GRACE.as_secs());
            Ok(())
        }
    }
}

/// An error and what caused it, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
