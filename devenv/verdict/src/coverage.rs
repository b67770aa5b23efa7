//! What a verdict covers, as it stands in the verdict, and how two looks at a project
//! differ.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::seal::{Seal, SealError};

/// A sort of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// What the run was about: `target`, `profile`, `database`.
    Environment,
    /// `devenv.toml`.
    Config,
    /// How an image is built and run, by its name: commands, variables, folders.
    Image,
    /// A file of an image's context, by its path in the project.
    Source,
    /// A rendered object, by `Kind/namespace/name`.
    Manifest,
    /// What must not stand in a verdict: an object of kind Secret by
    /// `Secret/namespace/name`, a file that one is written in by its path.
    Secret,
    /// A file of the migrations, by its path.
    Migration,
    /// A file of the suites, by its path.
    Suite,
    /// The version of a program, by `PROGRAM in FOLDER`.
    Toolchain,
    /// The digest of a container image, by the image as manifests write it.
    Digest,
}

impl Group {
    /// In one word or two, for a sentence.
    fn word(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Config => "configuration",
            Self::Image => "image",
            Self::Source => "source",
            Self::Manifest => "manifest",
            Self::Secret => "secret",
            Self::Migration => "migration",
            Self::Suite => "suite",
            Self::Toolchain => "toolchain",
            Self::Digest => "image digest",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Inputs by their keys. A value is `file sha256:HEX` (or `executable`, `link`,
/// `json`), or the text itself where that is short and no secret, such as a version.
pub type Inputs = BTreeMap<Group, BTreeMap<String, String>>;

/// What a verdict covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// [`tree_hash`] of `inputs` without the secrets, in hexadecimal.
    pub tree: String,
    /// How the secrets among `inputs` are hashed.
    pub seal: Seal,
    /// Everything covered.
    pub inputs: Inputs,
    /// Where manifests and images are written, `file:line:column`, by their keys.
    pub origins: BTreeMap<String, String>,
    /// What is not covered, in words.
    pub not_covered: Vec<String>,
}

impl Coverage {
    /// How many inputs are covered.
    pub fn len(&self) -> usize {
        self.inputs.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The covered secrets.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&String, &String)> {
        self.inputs.get(&Group::Secret).into_iter().flatten()
    }
}

/// The SHA-256 over all `inputs` but secrets, whose hashes are different in each verdict.
pub fn tree_hash(inputs: &Inputs) -> String {
    let mut sha = Sha256::new();
    let mut part = |text: &str| {
        sha.update((text.len() as u64).to_le_bytes());
        sha.update(text);
    };
    part("devenv tree 1");
    for (group, inputs) in inputs {
        if *group == Group::Secret {
            continue;
        }
        for (key, value) in inputs {
            part(group.word());
            part(key);
            part(value);
        }
    }
    hex::encode(sha.finalize())
}

/// How an input differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is there before and after, and not the same.
    Changed,
    /// It was not there.
    Added,
    /// It is there no more.
    Removed,
}

/// One input that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its sort.
    pub group: Group,
    /// Its key: a path, an object, a program.
    pub input: String,
    /// How it differs.
    pub how: How,
    /// What it was and is, where that says something: versions, a file made executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Where it is written, for manifests and images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

impl fmt::Display for Change {
    /// `source services/api1/src/main.rs changed`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            How::Changed => "changed",
            How::Added => "was added",
            How::Removed => "was removed",
        };
        write!(f, "{} {} {how}", self.group, self.input)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        Ok(())
    }
}

/// What differs between two sets of inputs, sorted by group and key; groups that `skip`
/// picks are passed over.
pub(crate) fn differences(
    before: &Inputs,
    after: &Inputs,
    skip: impl Fn(Group) -> bool,
) -> Vec<Change> {
    let none = BTreeMap::new();
    let mut changes = Vec::new();
    let groups: std::collections::BTreeSet<Group> =
        before.keys().chain(after.keys()).copied().collect();
    for group in groups.into_iter().filter(|g| !skip(*g)) {
        let before = before.get(&group).unwrap_or(&none);
        let after = after.get(&group).unwrap_or(&none);
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let (how, detail) = match (before.get(key), after.get(key)) {
                (Some(was), Some(is)) if was == is => continue,
                (Some(was), Some(is)) => (How::Changed, detail(was, is)),
                (None, _) => (How::Added, None),
                (_, None) => (How::Removed, None),
            };
            changes.push(Change {
                group,
                input: key.clone(),
                how,
                detail,
                origin: None,
            });
        }
    }
    changes
}

fn detail(was: &str, is: &str) -> Option<String> {
    match (was.split_once(" sha256:"), is.split_once(" sha256:")) {
        (Some((was, _)), Some((is, _))) if was == is => None,
        (Some(("file", _)), Some(("executable", _))) => Some("it can be executed now".into()),
        (Some(("executable", _)), Some(("file", _))) => {
            Some("it can't be executed any more".into())
        }
        (Some((was, _)), Some((is, _))) => Some(format!("a {was} became a {is}")),
        _ => Some(format!("{was} → {is}")),
    }
}

/// Compares the secrets of a verdict with those at hand.
pub(crate) fn secret_differences(
    before: &Coverage,
    after: &BTreeMap<String, [u8; 32]>,
) -> Result<Vec<Change>, SealError> {
    let mut sealed = BTreeMap::new();
    for (key, _) in before.secrets() {
        if let Some(material) = after.get(key) {
            sealed.insert(key.clone(), before.seal.hash(key, material)?);
        }
    }
    for key in after.keys() {
        // Only that it is there: a hash costs time.
        sealed.entry(key.clone()).or_default();
    }
    let was: Inputs = before
        .inputs
        .iter()
        .filter(|(g, _)| **g == Group::Secret)
        .map(|(g, i)| (*g, i.clone()))
        .collect();
    let mut changes = differences(&was, &BTreeMap::from([(Group::Secret, sealed)]), |_| false);
    for change in &mut changes {
        change.detail = None;
    }
    Ok(changes)
}
