//! Random edits: what is covered can't change unnoticed, and nothing else matters.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use proptest::prelude::*;

use super::Project;
use crate::{Group, Reason};

const FILES: &[&str] = &[
    "app/main.rs",
    "app/deep/er/page.html",
    "app/run.sh",
    "app/empty",
    "app/.gitignore",
    "lib/shared.txt",
    "migrations/0001_first.sql",
    "migrations/0002_second.sql",
    "tests/e2e/page.toml",
    "tests/e2e/data/body.json",
];
const FOLDERS: &[&str] = &[
    "app",
    "app/deep",
    "app/new",
    "migrations",
    "tests/e2e",
    "tests/e2e/data",
];
const UNCOVERED: &[&str] = &[
    "app/build/out",
    "app/new.tmp",
    "app/deep/new.tmp",
    "app/node_modules/left/pad.js",
    "app/target/debug/app",
    "app/.venv/bin/python",
    "app/__pycache__/x.pyc",
    "app/deep/new.log",
    "app/access.log",
    "app/data/rows",
    "tests/e2e/__pycache__/x.pyc",
    "other/notes.txt",
    "new-at-the-root.txt",
    ".devenv/build/api1.log",
    ".devenv/verdicts/notes.txt",
    ".git/index.lock",
];

#[derive(Debug, Clone)]
enum Edit {
    /// One byte is another one.
    Byte(&'static str, prop::sample::Index, u8),
    Append(&'static str, Vec<u8>),
    Remove(&'static str),
    /// Executable or no longer.
    Chmod(&'static str, u32),
    Rename(&'static str, String),
    Add(&'static str, String, Vec<u8>),
    Link(&'static str, String),
    Relink(String),
    /// Another value in an object.
    Manifest(String),
    Secret(String),
    Config(String),
    Toolchain(u32),
    Database(u32),
}

fn name() -> impl Strategy<Value = String> {
    // Longer than any that is there, and no extension that is left out.
    "[a-z][a-z0-9 _-]{8,16}(\\.(rs|py|md|ñ))?"
}

fn file() -> impl Strategy<Value = &'static str> {
    prop::sample::select(FILES)
}

fn folder() -> impl Strategy<Value = &'static str> {
    prop::sample::select(FOLDERS)
}

fn edit() -> impl Strategy<Value = Edit> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..40);
    prop_oneof![
        4 => (file(), any::<prop::sample::Index>(), 1..=255u8).prop_map(|(f, at, by)| Edit::Byte(f, at, by)),
        2 => (file(), bytes()).prop_map(|(f, b)| Edit::Append(f, b)),
        2 => file().prop_map(Edit::Remove),
        2 => (file(), prop::sample::select(&[0o100, 0o010, 0o001, 0o111][..])).prop_map(|(f, m)| Edit::Chmod(f, m)),
        2 => (file(), name()).prop_map(|(f, n)| Edit::Rename(f, n)),
        2 => (folder(), name(), bytes()).prop_map(|(d, n, b)| Edit::Add(d, n, b)),
        1 => (folder(), name()).prop_map(|(d, n)| Edit::Link(d, n)),
        1 => name().prop_map(Edit::Relink),
        1 => "[a-z]{4,9}".prop_map(Edit::Manifest),
        1 => "[a-z0-9]{3,20}".prop_map(Edit::Secret),
        1 => "[a-z ]{0,20}".prop_map(Edit::Config),
        1 => any::<u32>().prop_map(Edit::Toolchain),
        1 => any::<u32>().prop_map(Edit::Database),
    ]
}

impl Edit {
    /// Does it. Says which inputs must be named.
    fn apply(&self, project: &mut Project) -> Vec<(Group, String)> {
        let inputs = |path: &str| {
            let group = match path.split('/').next() {
                Some("migrations") => Group::Migration,
                Some("tests") => Group::Suite,
                _ => Group::Source,
            };
            (group, path.to_owned())
        };
        match self {
            Self::Byte(file, at, by) => {
                let mut bytes = fs::read(project.path(file)).unwrap();
                if bytes.is_empty() {
                    bytes.push(*by);
                } else {
                    let at = at.index(bytes.len());
                    bytes[at] ^= by;
                }
                fs::write(project.path(file), bytes).unwrap();
                vec![inputs(file)]
            }
            Self::Append(file, more) => {
                let mut bytes = fs::read(project.path(file)).unwrap();
                bytes.extend(more);
                fs::write(project.path(file), bytes).unwrap();
                vec![inputs(file)]
            }
            Self::Remove(file) => {
                fs::remove_file(project.path(file)).unwrap();
                vec![inputs(file)]
            }
            Self::Chmod(file, bits) => {
                let path = project.path(file);
                let mode = fs::metadata(&path).unwrap().permissions().mode();
                let mode = if mode & 0o111 == 0 {
                    mode | bits
                } else {
                    mode & !0o111
                };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                vec![inputs(file)]
            }
            Self::Rename(file, name) => {
                let (folder, _) = file.rsplit_once('/').unwrap();
                let new = format!("{folder}/{name}");
                fs::rename(project.path(file), project.path(&new)).unwrap();
                vec![inputs(file), inputs(&new)]
            }
            Self::Add(folder, name, bytes) => {
                let new = format!("{folder}/{name}");
                project.write(&new, "");
                fs::write(project.path(&new), bytes).unwrap();
                vec![inputs(&new)]
            }
            Self::Link(folder, name) => {
                let new = format!("{folder}/{name}");
                fs::create_dir_all(project.path(folder)).unwrap();
                symlink("/nowhere", project.path(&new)).unwrap();
                vec![inputs(&new)]
            }
            Self::Relink(target) => {
                fs::remove_file(project.path("app/page")).unwrap();
                symlink(target, project.path("app/page")).unwrap();
                vec![inputs("app/page")]
            }
            Self::Manifest(value) => {
                let text = format!(
                    "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{COLOUR: {value}s}}\n"
                );
                project.write("k8s/settings.yaml", &text);
                vec![(Group::Manifest, "ConfigMap/ns/settings".into())]
            }
            Self::Secret(value) => {
                let text = format!(
                    "apiVersion: v1\nkind: Secret\nmetadata: {{name: token}}\nstringData: {{TOKEN: \"{value}!\"}}\n"
                );
                project.write("k8s/token.yaml", &text);
                vec![(Group::Secret, "Secret/ns/token".into())]
            }
            Self::Config(comment) => {
                let text = fs::read_to_string(project.path("devenv.toml")).unwrap();
                project.write("devenv.toml", &format!("{text}# {comment}\n"));
                vec![(Group::Config, "devenv.toml".into())]
            }
            Self::Toolchain(n) => {
                project.programs.set("node", &format!("v23.{n}"));
                vec![(Group::Toolchain, "node in app".into())]
            }
            Self::Database(n) => {
                project.database = format!("MySQL {n}");
                vec![(Group::Environment, "database".into())]
            }
        }
    }
}

/// Everything that an edit may touch, to put it back.
fn restore(project: &mut Project, was: Project) {
    let keep = project.path(".devenv");
    let safe = project.folder.path().join("state");
    fs::rename(&keep, &safe).unwrap();
    fs::remove_dir_all(project.root()).unwrap();
    fs::rename(was.root(), project.root()).unwrap();
    fs::rename(&safe, &keep).unwrap();
    project.programs.set("node", "v22.1.0");
    project.database = was.database;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_covered_cannot_change_unnoticed(edit in edit()) {
        let mut project = Project::new();
        project.pass();
        prop_assert!(project.verify().applies);

        let touched = edit.apply(&mut project);
        let verification = project.verify();
        prop_assert!(!verification.applies);
        let named: Vec<(Group, String)> = verification
            .reasons
            .iter()
            .map(|reason| match reason {
                Reason::Input(change) => (change.group, change.input.clone()),
                other => panic!("{other}"),
            })
            .collect();
        for input in &touched {
            prop_assert!(named.contains(input), "{input:?} is not among {named:?}");
        }
        // A .gitignore decides about others, and a link shows what it leads to.
        let more = named.iter().filter(|n| !touched.contains(n));
        for (group, input) in more {
            let consequence = touched.iter().any(|(_, t)| {
                t == "app/.gitignore" || (t.ends_with("page.html") && input == "app/page")
            });
            prop_assert!(*group == Group::Source && consequence, "{input} did not change");
        }

        restore(&mut project, Project::new());
        let verification = project.verify();
        prop_assert!(verification.applies, "{:?}", verification.reasons);
    }

    #[test]
    fn nothing_else_matters(
        file in prop::sample::select(UNCOVERED),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        comment in "[a-z ]{0,20}",
    ) {
        let project = Project::new();
        project.pass();
        project.write(file, "");
        fs::write(project.path(file), bytes).unwrap();
        // A comment is no part of what is rendered.
        let text = fs::read_to_string(project.path("k8s/settings.yaml")).unwrap();
        project.write("k8s/settings.yaml", &format!("# {comment}\n{text}"));
        // Neither is who may read a file.
        project.chmod("app/main.rs", 0o640);
        let verification = project.verify();
        prop_assert!(verification.applies, "{:?}", verification.reasons);
    }
}
