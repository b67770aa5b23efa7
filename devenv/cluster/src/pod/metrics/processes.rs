//! What the processes of a container use.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::pod::runtime::{Meter, Reading, RuntimeError};

/// Asks the sandbox.
#[derive(Debug)]
pub(in crate::pod) struct ProcessMeter {
    meter: devenv_sandbox::Meter,
    since: Instant,
}

impl ProcessMeter {
    pub(in crate::pod) fn new(meter: devenv_sandbox::Meter) -> Arc<ProcessMeter> {
        let since = Instant::now();
        Arc::new(ProcessMeter { meter, since })
    }
}

#[async_trait]
impl Meter for ProcessMeter {
    async fn read(&self) -> Result<Reading, RuntimeError> {
        let (meter, since) = (self.meter.clone(), self.since);
        let reading = tokio::task::spawn_blocking(move || {
            // Before it: the CPU time is what is read first.
            let at = since.elapsed();
            meter.read().map(|usage| Reading { at, usage })
        });
        match reading.await {
            Ok(reading) => Ok(reading?),
            Err(_) => Err(RuntimeError::Other("devenv is shutting down".to_owned())),
        }
    }
}
