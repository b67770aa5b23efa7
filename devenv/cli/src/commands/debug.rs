//! `devenv debug`.

use std::process::ExitCode;

use clap::Args;
use devenv_engine::{
    control::Ask,
    debug::{Session, Wish},
};

use super::{Context, ask::ask};
use crate::{
    error::CliError,
    launch,
    render::{self, Progress},
};

/// Run a service under its language's debugger.
///
/// Python runs under debugpy, Node.js with its inspector; a machine program is attached
/// to by gdbserver when gdb connects, and let go when that leaves. The service is
/// rolled as after any other change, and edits go on reloading. Its liveness probe is
/// off meanwhile: a program that stands at a breakpoint is well.
#[derive(Debug, Args)]
pub struct DebugArgs {
    /// A workload, as `api1` or `deployment/api1`
    workload: String,
    /// Which of its containers, where several are built from source
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Listen at this port of the project's address
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Let the program wait for the debugger's client before its first line
    #[arg(long)]
    wait: bool,
    /// Write how VS Code attaches into .vscode/launch.json
    #[arg(long)]
    launch_json: bool,
    /// Run it without a debugger again
    #[arg(long, conflicts_with_all = ["port", "wait", "launch_json"])]
    off: bool,
}

pub async fn debug(args: DebugArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let wish = Wish {
        workload: args.workload,
        namespace: context.namespace.clone(),
        container: args.container,
        port: args.port,
        wait: args.wait,
    };
    let mut progress = Progress::new(context.format);
    if args.off {
        let name = wish.workload.clone();
        ask(&project, &Ask::DebugOff { wish }, &mut progress).await?;
        render::debug_off(&name, context.format);
        return Ok(ExitCode::SUCCESS);
    }
    let session: Option<Box<Session>> = ask(&project, &Ask::Debug { wish }, &mut progress).await?;
    let Some(session) = session else {
        return Err(CliError::Check(
            "the running system is of another version of devenv: devenv down && devenv up"
                .to_owned(),
        ));
    };
    let written = args
        .launch_json
        .then(|| launch::write(&project.root, &session));
    render::debugging(&session, written.as_ref(), context.format);
    Ok(ExitCode::SUCCESS)
}
