//! The `devenv` command.

mod commands;
mod e2e;
mod error;
mod launch;
mod project;
mod render;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

use commands::Command;
use error::CliError;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole of a GKE system on one machine, from the manifests that production uses.
#[derive(Debug, Parser)]
#[command(
    name = "devenv",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Args {
    /// The project's folder [default: the nearest one upwards with a devenv.toml]
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true)]
    directory: Option<std::path::PathBuf>,
    /// The Kubernetes namespace [default: the project's]
    #[arg(short, long, value_name = "NAME", global = true, value_parser = commands::namespace)]
    namespace: Option<String>,
    /// A run of `devenv test e2e --keep` instead of the project's own system
    #[arg(long, value_name = "ID", global = true, value_parser = commands::run_id)]
    run: Option<String>,
    /// How results are printed
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        global = true,
        default_value = "text"
    )]
    output: render::Format,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    // netd and the pods' PID 1 are this same program: they must stay
    // single-threaded, so they come before anything else.
    devenv_cluster::run_role_if_asked();
    let args = Args::parse();
    // kube and others bring different providers; rustls wants one to be chosen.
    // An error only means that it was chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let context = commands::Context {
        directory: args.directory,
        namespace: args.namespace,
        run: args.run,
        format: args.output,
    };
    match run(args.command, &context) {
        Ok(_) if render::lost() => ExitCode::from(error::exit::FAILED),
        Ok(code) => code,
        Err(e) => {
            render::error(&e, context.format);
            ExitCode::from(e.exit_code())
        }
    }
}

fn run(command: Command, context: &commands::Context) -> Result<ExitCode, CliError> {
    let mut builder = if command.is_long_running() {
        let mut b = tokio::runtime::Builder::new_multi_thread();
        b.worker_threads(2);
        b
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build().map_err(CliError::Runtime)?;
    init_logging();
    let done = runtime.block_on(command.run(context));
    // A blocking read of a terminal or a pipe must not keep the process.
    runtime.shutdown_background();
    done
}

/// Diagnostics for developers of devenv: `DEVENV_LOG=debug`, on stderr.
fn init_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("DEVENV_LOG")
        // Whatever a client of the API meets is told with the command's own error.
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,kube=off,kube_client=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
