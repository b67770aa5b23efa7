//! A browser for a test.

use super::{Context, StepResult};
use crate::suite::spec::{BrowserSpec, Expect};

/// Does one thing in the test's browser, which the first `open` starts.
pub async fn run(_spec: &BrowserSpec, _expect: &Expect, _context: &mut Context) -> StepResult {
    StepResult::missing("this build of devenv can't run browser steps")
}
