//! Two systems side by side: how each comes up, and what it is called.

use std::sync::Arc;

use devenv_e2e::{
    compare::{self, Comparison, Options, Side},
    environment::Environment,
    plan::PlannedSuite,
};

use super::{checkout::Checkout, environments::Fresh, pin::pin};
use crate::error::CliError;

/// One of the two.
#[derive(Debug)]
pub struct Half {
    /// What it is called: `main (1a2b3c4)`, `this tree`.
    pub label: String,
    /// What brings it up.
    pub fresh: Fresh,
    /// The one backend of these two that it is to have.
    pub pin: Option<(String, [String; 2])>,
    /// The files that it is made of, where they are only for this; they go last.
    pub _checkout: Option<Checkout>,
}

impl Half {
    async fn up(&self) -> Result<Environment, CliError> {
        let up = async {
            let environment = self.fresh.bring_up().await?;
            if let Some((to, both)) = &self.pin {
                pin(&environment, to, both).await?;
            }
            Ok(environment)
        };
        up.await.map_err(|e: CliError| e.of_side(&self.label))
    }
}

/// Brings both up at the same time, and sends the traffic of the suites to both.
///
/// # Errors
/// Which of them did not come up, and why.
pub async fn compared(
    planned: &[PlannedSuite],
    left: &Half,
    right: &Half,
    options: &Options,
    ready: impl FnOnce(),
) -> Result<Comparison, CliError> {
    // Also when one fails: what is half up would go down by itself, behind our back.
    let (left_up, right_up) = tokio::join!(left.up(), right.up());
    let (left_up, right_up) = (left_up?, right_up?);
    ready();
    let side = |half: &Half, environment| Side {
        label: half.label.clone(),
        environment: Arc::new(environment),
    };
    let (left, right) = (side(left, left_up), side(right, right_up));
    let compared = compare::compare(planned, &left, &right, options);
    compared
        .await
        .map_err(|e| CliError::Check(format!("can't make an HTTP client: {e}")))
}
