//! What is covered, and what a verdict gives away of it.

use std::{fs, os::unix::fs::symlink, process::Command};

use rstest::rstest;

use super::{CONFIG, DEPLOYMENT, Project, SECRET, judge};
use crate::{Group, How, VerdictError};

#[test]
fn every_input_has_its_place() {
    let project = Project::new();
    let verdict = project.verdict(&project.report(), None);
    let mut lines = Vec::new();
    for (group, inputs) in &verdict.coverage.inputs {
        for (key, value) in inputs {
            let value = match value.split_once(':') {
                Some((sort, _)) => sort,
                None => value,
            };
            lines.push(format!("{group}: {key} = {value}"));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
    insta::assert_snapshot!("not_covered", verdict.coverage.not_covered.join("\n"));
    assert_eq!(verdict.coverage.len(), project.tree().len());
}

#[test]
fn a_verdict_gives_no_secret_away() {
    let mut project = Project::new();
    // The file as well, where it lies in a context.
    let config = CONFIG.replace("\"lib\"", "\"lib\", \"k8s\"");
    project.write("devenv.toml", &config);
    project.database = "MariaDB".into();
    let tree = project.tree();
    let one = judge(&tree, &tree, &project.report(), None).unwrap();
    let other = judge(&tree, &tree, &project.report(), None).unwrap();
    let secrets = &one.coverage.inputs[&Group::Secret];
    let names: Vec<&String> = secrets.keys().collect();
    assert_eq!(names, ["Secret/ns/token", "k8s/token.yaml"]);
    assert!(!one.coverage.inputs[&Group::Source].contains_key("k8s/token.yaml"));
    assert!(one.coverage.inputs[&Group::Source].contains_key("k8s/web.yaml"));
    // Nothing in it can be compared with a guess but the two, and those differ each time.
    for (key, value) in secrets {
        assert!(value.starts_with("argon2id:"), "{value}");
        assert_ne!(value, &other.coverage.inputs[&Group::Secret][key]);
        for hash in tree.secrets.values() {
            assert!(
                !serde_json::to_string(&one)
                    .unwrap()
                    .contains(&hex::encode(hash))
            );
        }
    }
    assert_eq!(one.coverage.tree, other.coverage.tree);
    assert!(!serde_json::to_string(&one).unwrap().contains(SECRET));
    assert!(!format!("{tree:?}").contains("secrets"));

    project.save(&one);
    let text = fs::read_to_string(project.path("k8s/token.yaml")).unwrap();
    project.write("k8s/token.yaml", &text.replace(SECRET, "hunter3"));
    assert_eq!(
        project.reasons(),
        [
            "secret Secret/ns/token changed (k8s/token.yaml:1:1)",
            "secret k8s/token.yaml changed",
        ]
    );
}

#[rstest]
#[case::contents("app/main.rs", How::Changed)]
#[case::new("app/new.rs", How::Added)]
#[case::suite("tests/e2e/page.toml", How::Changed)]
fn a_change_during_the_run_is_noticed(#[case] file: &str, #[case] how: How) {
    let project = Project::new();
    let before = project.tree();
    assert_eq!(project.tree().changes_since(&before), []);
    project.write(file, "other");
    let after = project.tree();
    let error = judge(&before, &after, &project.report(), None).unwrap_err();
    assert!(error.to_string().contains(file), "{error}");
    let VerdictError::ChangedMeanwhile(changes) = error else {
        panic!("{error}")
    };
    assert_eq!((changes[0].input.as_str(), changes[0].how), (file, how));
    assert_eq!(changes.len(), 1);
}

#[test]
fn the_look_and_the_run_are_about_the_same() {
    let project = Project::new();
    let tree = project.tree();
    let mut report = project.report();
    report.profile = Some("seed".into());
    let error = judge(&tree, &tree, &report, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the run was on local, profile seed, and what was hashed is for local, no profile"
    );
}

fn git(project: &Project, arguments: &[&str]) {
    let out = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
        .args(arguments)
        .current_dir(project.root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
}

/// What git tracks is a source, whatever a .gitignore or the file's name says.
#[test]
fn tracked_files_are_covered_although_ignored() {
    let project = Project::new();
    git(&project, &["init", "-q"]);
    git(
        &project,
        &[
            "add",
            "-f",
            "app/build/out",
            "app/node_modules/left/pad.js",
            "app/access.log",
        ],
    );
    let tree = project.tree();
    let sources = &tree.inputs[&Group::Source];
    assert!(sources.contains_key("app/build/out"));
    assert!(sources.contains_key("app/node_modules/left/pad.js"));
    assert!(
        !sources.contains_key("app/access.log"),
        "the image's own `ignore` says so"
    );
    assert!(!sources.contains_key("app/.git"));
    fs::remove_dir_all(project.path(".git")).unwrap();
    assert_eq!(tree.not_covered(), project.tree().not_covered());

    // A repository that git can't read: said, and no reason to fail.
    project.write(".git/HEAD", "nonsense");
    let tree = project.tree();
    let said = tree
        .not_covered()
        .iter()
        .any(|n| n.contains("git could not be asked"));
    assert!(said, "{:?}", tree.not_covered());
}

#[test]
fn a_link_is_where_it_leads_and_what_is_there() {
    let project = Project::new();
    symlink("../other", project.path("app/folder")).unwrap();
    symlink("../other/notes.txt", project.path("app/notes")).unwrap();
    let before = project.tree();
    assert!(
        before
            .not_covered()
            .contains(&"what lies in ../other, where the link app/folder leads".to_owned()),
        "{:?}",
        before.not_covered()
    );
    project.write("other/notes.txt", "changed");
    let changes = project.tree().changes_since(&before);
    let names: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["source app/notes changed"]);
    // A file in a link's place, with the same contents.
    fs::remove_file(project.path("app/notes")).unwrap();
    project.write("app/notes", "changed");
    let changes = project.tree().changes_since(&before);
    assert_eq!(
        changes[0].to_string(),
        "source app/notes changed: a link became a file"
    );
}

#[test]
fn sockets_and_pipes_hold_nobody_up() {
    let project = Project::new();
    let before = project.tree();
    let _socket = std::os::unix::net::UnixListener::bind(project.path("app/socket")).unwrap();
    let made = Command::new("mkfifo")
        .arg(project.path("app/pipe"))
        .status();
    assert!(made.unwrap().success());
    assert_eq!(project.tree().changes_since(&before), []);
}

#[test]
fn names_that_are_no_text_do_not_collide() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let project = Project::new();
    for name in [&b"\xff"[..], b"\\xff", b"\xc3\xb1"] {
        fs::write(project.path("app").join(OsStr::from_bytes(name)), "").unwrap();
    }
    let tree = project.tree();
    for key in ["app/\\xff", "app/\\x5cxff", "app/ñ"] {
        assert!(tree.inputs[&Group::Source].contains_key(key), "{key}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let project = Project::new();
    project.chmod("app/main.rs", 0o000);
    if fs::read(project.path("app/main.rs")).is_ok() {
        // Root reads everything.
        return;
    }
    let topology = project.topology();
    let error = crate::Look {
        programs: &project.programs,
        ..crate::Look::new(&topology, "local")
    }
    .take()
    .unwrap_err();
    assert!(error.to_string().contains("app/main.rs"), "{error}");
}

/// The order of keys, flow style, and which file an object is in are no change.
#[test]
fn manifests_are_compared_as_rendered() {
    let project = Project::new();
    let before = project.tree();
    fs::remove_file(project.path("k8s/settings.yaml")).unwrap();
    project.write(
        "k8s/zz.yaml",
        "kind: ConfigMap\napiVersion: v1\ndata:\n  COLOUR: \"red\"\nmetadata:\n  name: settings\n",
    );
    assert_eq!(project.tree().changes_since(&before), []);
    project.write("k8s/web.yaml", &DEPLOYMENT.replace("web:v1", "web:v2"));
    let changes = project.tree().changes_since(&before);
    assert_eq!(changes.len(), 1);
    assert_eq!(
        changes[0].to_string(),
        "manifest Deployment/ns/web changed (k8s/web.yaml:1:1)"
    );
}
