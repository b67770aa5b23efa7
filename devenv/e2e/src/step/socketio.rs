//! Socket.IO sessions.

use super::{Context, StepResult};
use crate::suite::spec::{Expect, SocketioSpec};

/// Opens, uses or closes a session. `expect.json` is for the acknowledgement, or for the
/// event that is waited for: one that doesn't fit is passed over.
pub async fn run(_spec: &SocketioSpec, _expect: &Expect, _context: &mut Context) -> StepResult {
    StepResult::missing("this build of devenv can't run socketio steps")
}
