//! `devenv ingress-controller`: devenv's data plane in a cluster.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use devenv_ingress_controller::{ControllerOptions, run};

use super::duration;
use crate::error::CliError;

/// Serve a cluster's Ingresses, from a pod of it.
///
/// `devenv up --target kind --ingress devenv` applies what runs it.
#[derive(Debug, Args)]
pub struct IngressControllerArgs {
    /// Where requests come in
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    listen: Vec<SocketAddr>,
    /// Where /healthz and /readyz are answered
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10254")]
    health: SocketAddr,
    /// Put this address into the status of Ingresses
    #[arg(long, value_name = "IP")]
    publish_status_address: Vec<IpAddr>,
    /// How long requests in flight may take when it is stopped
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = duration)]
    grace: Duration,
}

pub async fn ingress_controller(args: IngressControllerArgs) -> Result<ExitCode, CliError> {
    run(ControllerOptions {
        listen: args.listen,
        health: args.health,
        publish_status_addresses: args.publish_status_address,
        grace: args.grace,
        ..ControllerOptions::default()
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
