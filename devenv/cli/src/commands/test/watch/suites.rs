//! The suites as they are now, and which of them were edited.

use std::{
    collections::BTreeSet,
    mem,
    path::{Path, PathBuf},
};

use devenv_e2e::suite::{FOLDER, Suite};
use devenv_model::{LoadOptions, Topology};
use devenv_watch::{Input, Options, Watcher};
use serde_json::Value;

use super::changes::Changes;
use crate::{
    commands::test::run,
    e2e::tree,
    error::CliError,
    project::{CONFIG, Project},
};

/// What was saved of the suites' files.
pub type Saved = devenv_watch::Changes<()>;

/// The suites of a project, watched.
pub struct Suites {
    project: Project,
    load: LoadOptions,
    /// Only these; none: all.
    named: Vec<String>,
    watcher: Watcher<()>,
    /// Those that were sound last.
    pub now: Vec<Suite>,
    /// What was saved since then.
    saved: BTreeSet<PathBuf>,
    /// Whether that is not all.
    lost: bool,
}

impl Suites {
    /// Reads them, and watches from before that on.
    pub fn watch(
        project: &Project,
        load: LoadOptions,
        named: Vec<String>,
    ) -> Result<Self, CliError> {
        let input = Input {
            owner: (),
            paths: vec![FOLDER.into(), CONFIG.into()],
            ignore: Vec::new(),
            gitignore: false,
        };
        let watcher = Watcher::start(&project.root, vec![input], Options::default())?;
        let now = run::suites(project, &project.load(&load)?, &named)?;
        Ok(Self {
            project: project.clone(),
            load,
            named,
            watcher,
            now,
            saved: BTreeSet::new(),
            lost: false,
        })
    }

    /// The next save; nothing when files can't be watched any more.
    pub async fn saved(&mut self) -> Option<Saved> {
        self.watcher.next().await
    }

    /// Reads them again. While that fails, what was saved is kept in mind.
    pub fn read_again(&mut self, saved: Saved) -> Result<Changes, CliError> {
        self.saved.extend(saved.owners.into_values().flatten());
        self.lost |= saved.rescan;
        let topology = self.topology()?;
        let suites = run::suites(&self.project, &topology, &self.named)?;
        let saved = mem::take(&mut self.saved);
        let before = mem::replace(&mut self.now, suites);
        let edited = |s: &&Suite| is_edited(s, &before, &self.project.root, &saved);
        Ok(Changes {
            everything: mem::take(&mut self.lost),
            suites: self
                .now
                .iter()
                .filter(edited)
                .map(|s| s.name.clone())
                .collect(),
            ..Changes::default()
        })
    }

    /// The workloads that run an image; none where the project's files can't tell.
    pub fn users(&self, image: &str) -> BTreeSet<String> {
        let Ok(topology) = self.topology() else {
            return BTreeSet::new();
        };
        let images = topology.workload_images().into_iter();
        images
            .filter(|(i, _)| topology.image_source(i).is_some_and(|s| s.name == image))
            .flat_map(|(_, users)| users)
            .map(|o| o.name().to_owned())
            .collect()
    }

    fn topology(&self) -> Result<Topology, CliError> {
        tree::loaded(&self.project.root, &self.load)
    }
}

/// Whether a suite says something else than before, or one of its files was saved: its
/// own, or one beside it that it names.
fn is_edited(suite: &Suite, before: &[Suite], root: &Path, saved: &BTreeSet<PathBuf>) -> bool {
    let same = |old: &Suite| {
        (&old.name, &old.file, &old.written) == (&suite.name, &suite.file, &suite.written)
    };
    let own = |path: &PathBuf| {
        path.starts_with(root.join(FOLDER))
            && (*path == root.join(&suite.file)
                || path
                    .file_name()
                    .is_some_and(|name| names(&suite.written, &name.to_string_lossy())))
    };
    !before.iter().any(same) || saved.iter().any(own)
}

/// Whether a text in it holds `file`.
fn names(written: &Value, file: &str) -> bool {
    match written {
        Value::String(text) => text.contains(file),
        Value::Array(all) => all.iter().any(|v| names(v, file)),
        Value::Object(all) => all.values().any(|v| names(v, file)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn suite(file: &str, line: &str) -> Suite {
        let text = format!(
            "{line}\n[[test]]\nname = \"t\"\n[[test.step]]\nexec = {{ command = \"sh help.sh\" }}\n"
        );
        devenv_e2e::suite::parse(Path::new("/p"), Path::new(file), text).unwrap()
    }

    const ONE: &str = "tests/e2e/one.toml";

    #[rstest]
    #[case::nothing(ONE, "", &[], false)]
    #[case::saved_as_it_was(ONE, "", &["/p/tests/e2e/one.toml"], true)]
    #[case::says_something_else(ONE, "timeout = \"9s\"", &[], true)]
    #[case::another(ONE, "", &["/p/tests/e2e/two.toml"], false)]
    #[case::its_helper(ONE, "", &["/p/tests/e2e/lib/help.sh"], true)]
    #[case::something_of_an_editor(ONE, "", &["/p/tests/e2e/one.toml~"], false)]
    #[case::elsewhere(ONE, "", &["/p/help.sh"], false)]
    #[case::devenv_toml(CONFIG, "", &["/p/devenv.toml"], false)]
    #[case::moved_lines(CONFIG, "\n\n# a comment", &["/p/devenv.toml"], false)]
    #[case::its_section(CONFIG, "parallel = true", &["/p/devenv.toml"], true)]
    fn edited(#[case] file: &str, #[case] line: &str, #[case] saved: &[&str], #[case] yes: bool) {
        let saved = saved.iter().map(PathBuf::from).collect();
        let before = [suite(file, "")];
        let now = suite(file, line);
        assert_eq!(is_edited(&now, &before, Path::new("/p"), &saved), yes);
        assert!(is_edited(&now, &[], Path::new("/p"), &saved), "a new one");
    }
}
