//! Asks the running supervisor for something and shows what happens meanwhile.

use devenv_engine::{
    control::{Ask, Asking, Reply},
    debug::Session,
};

use crate::{error::CliError, project::Project, render::Progress};

/// What is debugged is returned where that was asked for.
pub async fn ask(
    project: &Project,
    what: &Ask,
    progress: &mut Progress,
) -> Result<Option<Box<Session>>, CliError> {
    // Says whether it is up before the socket can say less.
    project.endpoints()?;
    let io = |source| CliError::Io {
        what: "ask the supervisor; was it started with --no-watch?".to_owned(),
        source,
    };
    let mut asking = Asking::start(project.state.path(), what)
        .await
        .map_err(io)?;
    while let Some(reply) = asking.next().await.map_err(io)? {
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
