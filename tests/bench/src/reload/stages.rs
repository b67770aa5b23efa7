//! Where devenv's time went, by its own account.

use super::app::{App, Workshop};
use crate::Failure;
use crate::figures::Series;
use serde_json::Value;

/// The steps that `devenv reloads` names, in their order.
const STEPS: [&str; 5] = ["detected", "built", "started", "ready", "first_byte"];

/// A series for each step, of the last `runs` reloads.
pub fn of(workshop: &Workshop, app: App, runs: usize) -> Result<Vec<Series>, Failure> {
    let reloads = workshop.reloads(app)?;
    let reloads = &reloads[reloads.len().saturating_sub(runs)..];
    let series = STEPS.iter().map(|step| {
        let times = reloads
            .iter()
            .filter_map(|r: &Value| r["ms"][step].as_f64());
        let what = format!("  devenv says: saved to {}", step.replace('_', " "));
        Series::new(&what, "ms", times.collect())
    });
    Ok(series.filter(|series| series.samples > 0).collect())
}
