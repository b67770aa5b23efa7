//! The JSON schema of suites, for editors.

use serde_json::{Value, json};

use super::{KINDS, RawSuite};

/// The JSON schema of a suite's file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(RawSuite).to_value();
    // serde has no "exactly one of these keys".
    if let Some(step) = schema.pointer_mut("/$defs/RawStep") {
        step["oneOf"] = KINDS
            .iter()
            .map(|kind| json!({ "required": [kind] }))
            .collect();
    }
    schema
}
