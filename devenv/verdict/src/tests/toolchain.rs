//! Programs and their versions.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rstest::rstest;

use super::Project;
use crate::{Group, Installed, Programs as _};

#[rstest]
#[case::says_it("echo 'v 1.2'", "v 1.2")]
#[case::later("echo; echo ' 1.2 '; echo more", "1.2")]
#[case::on_standard_error("echo 'java 21' >&2", "java 21")]
#[case::not_chosen(
    "echo 'no version is set' >&2; exit 126",
    "can't be asked: no version is set"
)]
#[case::silent("true", "says nothing")]
fn versions(#[case] script: &str, #[case] want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("tool");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let said = Installed.version(program.to_str().unwrap(), &[], folder.path());
    assert_eq!(said.as_deref(), Some(want));
}

#[test]
fn a_program_that_is_not_there() {
    let said = Installed.version("no-such-program-anywhere", &["-V"], Path::new("/"));
    assert_eq!(said, None);
}

#[test]
fn this_machine_has_a_compiler() {
    let said = Installed.version("rustc", &["-V"], Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(said.unwrap().starts_with("rustc 1."));
}

#[rstest]
#[case::list("run = [\"go\", \"run\", \".\"]", &["go"])]
#[case::shell("build = \"cd web && npm ci\"\nrun = [\"./x\"]", &["node", "npm"])]
#[case::a_path("run = [\"/usr/bin/python3.12\", \"main.py\"]", &["python3.12"])]
#[case::in_quotes("run = \"sh -c 'ruby app.rb'\"", &["ruby"])]
#[case::none("run = [\"./cargo-like\"]", &[])]
fn asked_for(#[case] commands: &str, #[case] want: &[&str]) {
    let project = Project::new();
    let config = super::CONFIG
        .lines()
        .filter(|l| !l.starts_with("build") && !l.starts_with("run"))
        .map(|l| {
            if l == "source = \"app\"" {
                format!("{l}\n{commands}\n")
            } else {
                format!("{l}\n")
            }
        })
        .collect::<String>();
    project.write("devenv.toml", &config);
    let tree = project.tree();
    let asked: Vec<&str> = tree.inputs[&Group::Toolchain]
        .keys()
        .map(|k| k.strip_suffix(" in app").unwrap())
        .collect();
    assert_eq!(asked, want);
}
