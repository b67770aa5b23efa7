//! The report itself.

use crate::outcome::RunReport;

use super::ReportError;

/// As indented JSON with a line end.
///
/// # Errors
/// When a path in the report is no Unicode.
pub fn render(report: &RunReport) -> Result<String, ReportError> {
    let mut text = serde_json::to_string_pretty(report).map_err(|e| ReportError::Render {
        what: format!("JSON: {e}"),
    })?;
    text.push('\n');
    Ok(text)
}
