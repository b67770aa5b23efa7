//! Asks the running supervisor for something and shows what happens meanwhile.

use std::io;
use std::time::Duration;

use devenv_engine::{
    control::{Ask, Asking, Reply},
    debug::Session,
};
use devenv_platform::process::Process;
use tokio::time::timeout;

use crate::{error::CliError, project::Project, render::Progress};

/// How long a process that nobody can ask any more may take to be gone.
const ENDING: Duration = Duration::from_secs(2);

/// What is debugged is returned where that was asked for.
pub async fn ask(
    project: &Project,
    what: &Ask,
    progress: &mut Progress,
) -> Result<Option<Box<Session>>, CliError> {
    // Says whether it is up before the socket can say less.
    project.endpoints()?;
    let failed = |source| CliError::Io {
        what: "ask the supervisor; was it started with --no-watch?".to_owned(),
        source,
    };
    let mut asking = match Asking::start(project.state.path(), what).await {
        Ok(asking) => asking,
        // It has been killed just now: its sockets go before its lock.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused && has_ended(project).await => {
            return Err(CliError::NotUp);
        }
        Err(e) => return Err(failed(e)),
    };
    while let Some(reply) = asking.next().await.map_err(failed)? {
        match reply {
            Reply::Event { happened } => progress.show(&happened),
            Reply::Following | Reply::Lagged => {}
            Reply::Done => return Ok(None),
            Reply::Debugging { session } => return Ok(Some(session)),
            Reply::Refused { report } => return Err(CliError::Reported(report)),
        }
    }
    Err(CliError::SupervisorGone(project.state.log()))
}

/// Whether the supervisor ends within a moment.
async fn has_ended(project: &Project) -> bool {
    let process = project.state.holder().and_then(|h| Process::of(h.pid));
    match process {
        Some(process) => timeout(ENDING, process.ended()).await.is_ok(),
        None => true,
    }
}
