//! The JSON schema of suites, for editors.

use serde_json::{Value, json};

use super::{KINDS, RawSuite};

/// The JSON schema of a suite's file, draft 2020-12.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(RawSuite).to_value();
    schema["$id"] = json!("urn:devenv:e2e-suite");
    schema["description"] = json!("A file of tests/e2e, for `devenv test e2e`.");
    // serde has no "exactly one of these keys".
    if let Some(step) = schema.pointer_mut("/$defs/RawStep") {
        step["oneOf"] = KINDS
            .iter()
            .map(|kind| json!({ "required": [kind] }))
            .collect();
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rstest::rstest;

    use super::{super::FOLDER, *};

    fn complaints(text: &str) -> Vec<String> {
        let suite: Value = toml::from_str(text).expect("TOML");
        let validator = jsonschema::draft202012::new(&schema()).expect("a schema");
        validator
            .iter_errors(&suite)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect()
    }

    #[test]
    fn the_reference_applications_suites_fit() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let entries = fs::read_dir(project.join(FOLDER)).expect("the suites");
        let mut seen = 0;
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "toml") {
                let text = fs::read_to_string(&path).expect("a file");
                assert_eq!(complaints(&text), [""; 0], "{}", path.display());
                seen += 1;
            }
        }
        assert!(seen > 5, "{seen}");
    }

    const GOOD: &str = "workloads = [\"a\"]\n[profile.p.vars]\nx = 1\n[[test]]\nname = \"t\"\n\
        [[test.step]]\nhttp = { url = \"u\", timeout = \"1s\" }\nexpect = { status = 200 }\n\
        poll = { within = \"1s\" }\n";

    #[rstest]
    #[case::as_it_is("", "", "")]
    #[case::of_a_suite("workloads", "worklaods", "")]
    #[case::of_a_profile("[profile.p.vars]", "[profile.p.var]", "/profile/p")]
    #[case::of_a_test("name", "nmae", "/test/0")]
    #[case::of_a_step("poll", "pol", "/test/0/step/0")]
    #[case::of_a_request("timeout", "tiemout", "/test/0/step/0/http")]
    #[case::of_an_expectation("status", "satus", "/test/0/step/0/expect")]
    #[case::of_polling("within", "withn", "/test/0/step/0/poll")]
    #[case::a_wrong_type("[\"a\"]", "\"a\"", "/workloads")]
    #[case::two_kinds("poll = {", "sql = { query = \"q\" }\npoll = {", "/test/0/step/0")]
    #[case::no_kind("http = { url = \"u\", timeout = \"1s\" }\n", "", "/test/0/step/0")]
    fn a_misspelled_key_does_not(#[case] good: &str, #[case] bad: &str, #[case] place: &str) {
        let said = complaints(&GOOD.replacen(good, bad, 1));
        if good.is_empty() {
            assert_eq!(said, [""; 0]);
        } else {
            let here = format!("{place}: ");
            assert!(said.iter().any(|s| s.starts_with(&here)), "{said:#?}");
        }
    }
}
