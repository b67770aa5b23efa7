//! Where the suites of a project are: a file each in `tests/e2e`, and sections of
//! `devenv.toml`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use devenv_model::{Problem, document::Document};

use super::{Suite, read, sound};

/// Where suites are, relative to the project's folder.
pub const FOLDER: &str = "tests/e2e";

/// The other file that has some, and where in it.
const CONFIG: &str = "devenv.toml";
const IN_CONFIG: &str = "e2e.suite";

/// What suites may name.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The project's workloads.
    pub workloads: BTreeSet<String>,
    /// The profile whose workloads these are.
    pub profile: Option<String>,
}

/// What came of looking for suites.
#[derive(Debug, Default)]
pub struct Found {
    /// Those that have no problem: those of files by name, then those of `devenv.toml`.
    pub suites: Vec<Suite>,
    /// Everything that is wrong. Nothing should run while there is anything.
    pub problems: Vec<Problem>,
}

/// Why suites could not be looked for.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The folder or a file can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads all suites of a project.
///
/// # Errors
/// If the folder or a file in it can't be read. That there is no folder is no error:
/// nothing is found.
pub fn load(root: &Path, known: &Known) -> Result<Found, FindError> {
    let mut found = Found::default();
    // Where each name was given first.
    let mut names = BTreeMap::new();
    for path in files(&root.join(FOLDER))? {
        let file = path.strip_prefix(root).unwrap_or(&path);
        let mut document = Document::parse(&file.display().to_string(), text(&path)?);
        if document.has("name") {
            document
                .error("suite::name", "name", "a suite's file has no key `name`")
                .help("a suite is called as its file is: rename that");
        }
        let suite = read(&mut document, root, file, Some(known));
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        names.insert(name.into_owned(), file.display().to_string());
        found.add(document, suite);
    }
    let path = root.join(CONFIG);
    let whole = match text(&path) {
        Ok(text) => Document::parse(CONFIG, text),
        Err(FindError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(found);
        }
        Err(e) => return Err(e),
    };
    let parts = whole.parts(IN_CONFIG);
    found.problems.extend(whole.problems());
    for mut document in parts {
        let suite = read(&mut document, root, Path::new(CONFIG), Some(known));
        check_name(&mut document, &mut names);
        found.add(document, suite);
    }
    Ok(found)
}

impl Found {
    fn add(&mut self, document: Document, suite: Option<Suite>) {
        let read = match suite {
            Some(suite) => sound(document, suite),
            None => Err(document.problems()),
        };
        match read {
            Ok(suite) => self.suites.push(suite),
            Err(problems) => self.problems.extend(problems),
        }
    }
}

/// A section's name must be there, and be nobody else's.
fn check_name(document: &mut Document, names: &mut BTreeMap<String, String>) {
    let written = document.value("name");
    let name = match &written {
        None => "",
        Some(serde_json::Value::String(name)) => name.trim(),
        // That has been reported.
        Some(_) => return,
    };
    if name.is_empty() {
        document
            .error("suite::name", "name", "the suite has no name")
            .expected("name = \"what it is called\", as a file of tests/e2e has one");
        return;
    }
    let here = document.origin("name");
    if let Some(first) = names.get(name) {
        let message = format!("there is another suite {name:?}, at {first}");
        document
            .error("suite::name", "name", message)
            .expected("a name of its own, by which it can be run");
        return;
    }
    names.insert(name.to_owned(), format!("{}:{}", here.file, here.line));
}

/// The suites' files, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, FindError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(folder, error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| unreadable(folder, e))?.path();
        if path.extension().is_some_and(|e| e == "toml") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> Result<String, FindError> {
    let bytes = fs::read(path).map_err(|e| unreadable(path, e))?;
    String::from_utf8(bytes).map_err(|e| {
        let why = io::Error::new(io::ErrorKind::InvalidData, e.utf8_error());
        unreadable(path, why)
    })
}

fn unreadable(path: &Path, source: io::Error) -> FindError {
    FindError::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tempfile::TempDir;

    use super::*;

    const TEST: &str = "[[test]]\nname = \"t\"\n[[test.step]]\nexec = { command = \"true\" }\n";

    /// The names of the suites, and what is wrong.
    fn found(files: &[(&str, &str)], profile: Option<&str>) -> (Vec<String>, String) {
        let project = TempDir::new().unwrap();
        fs::create_dir_all(project.path().join(FOLDER)).unwrap();
        for (file, text) in files {
            fs::write(project.path().join(file), text).unwrap();
        }
        let known = Known {
            workloads: ["api1", "api2"].map(str::to_owned).into(),
            profile: profile.map(str::to_owned),
        };
        let found = load(project.path(), &known).unwrap();
        let said: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
        let names = found.suites.into_iter().map(|s| s.name).collect();
        (names, said.join("\n"))
    }

    #[test]
    fn both_places_are_looked_at() {
        let section = TEST.replace("[[test", "[[e2e.suite.test");
        let config = format!(
            "[project]\nname = \"p\"\n\n[[e2e.suite]]\nname = \"b\"\n{section}\n\
             [[e2e.suite]]\nname = \"c\"\nworkloads = [\"api1\"]\n{section}"
        );
        let (names, said) = found(&[("tests/e2e/a.toml", TEST), (CONFIG, &config)], None);
        assert_eq!((names.join(" ").as_str(), said.as_str()), ("a b c", ""));
    }

    #[test]
    fn mistakes_in_devenv_toml_have_their_place() {
        let section = TEST.replace("[[test", "[[e2e.suite.test");
        let config = format!(
            "[[e2e.suite]]\nname = \"a\"\n{section}\
             [[e2e.suite]]\nname = \"b\"\nworklaods = []\n{section}\
             [[e2e.suite]]\nname = \"b\"\n{section}\
             [[e2e.suite]]\n{}",
            section.replace("exec", "exce")
        );
        let (names, said) = found(&[("tests/e2e/a.toml", TEST), (CONFIG, &config)], None);
        assert_eq!(names, ["a"]);
        insta::assert_snapshot!(said);
    }

    #[test]
    fn a_file_has_its_name() {
        let text = format!("name = \"x\"\n{TEST}");
        let (_, said) = found(&[("tests/e2e/a.toml", &text)], None);
        insta::assert_snapshot!(said, @r"
        tests/e2e/a.toml:1:8: error[suite::name]: a suite's file has no key `name`
          help: a suite is called as its file is: rename that
        ");
    }

    #[rstest]
    #[case("", None)]
    #[case("profiles = [\"seed\"]\n", Some("seed"))]
    fn an_unknown_workload(#[case] more: &str, #[case] profile: Option<&str>) {
        let text = format!("{more}workloads = [\"api2\", \"ap1\"]\n{TEST}");
        let (_, said) = found(&[("tests/e2e/a.toml", &text)], profile);
        let line = 1 + more.lines().count();
        assert!(
            said.starts_with(&format!(
                "tests/e2e/a.toml:{line}:22: error[suite::workload]"
            )),
            "{said}"
        );
        assert!(said.contains("did you mean \"api1\"?"), "{said}");
    }

    #[test]
    fn workloads_of_another_profile_may_be_unknown() {
        let text = format!("profiles = [\"seed\"]\nworkloads = [\"ap1\"]\n{TEST}");
        let (names, said) = found(&[("tests/e2e/a.toml", &text)], None);
        assert_eq!((names.len(), said.as_str()), (1, ""));
    }

    #[test]
    fn a_project_without_suites_has_none() {
        let empty = TempDir::new().unwrap();
        let found = load(empty.path(), &Known::default()).unwrap();
        assert!(found.suites.is_empty() && found.problems.is_empty());
    }
}
