//! Values that `devenv.toml` writes in more than one form, and the words to choose from.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A program to run: given to `execve` as it is, or to a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The program and its arguments; no shell in between.
    Argv(Vec<String>),
    /// A line for `sh -c`.
    Shell(String),
}

impl Command {
    /// What to execute.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Command::Argv(argv) => argv.clone(),
            Command::Shell(line) => vec!["sh".into(), "-c".into(), line.clone()],
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Command::Argv(argv) => argv.first().is_none_or(|program| program.is_empty()),
            Command::Shell(line) => line.trim().is_empty(),
        }
    }
}

impl fmt::Display for Command {
    /// For people: the line as one would type it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Shell(line) => f.write_str(line),
            Command::Argv(argv) => {
                for (i, arg) in argv.iter().enumerate() {
                    let gap = if i == 0 { "" } else { " " };
                    let plain = !arg.is_empty()
                        && arg
                            .chars()
                            .all(|c| c.is_alphanumeric() || "-_./=:,@%+".contains(c));
                    if plain {
                        write!(f, "{gap}{arg}")?;
                    } else {
                        write!(f, "{gap}'{}'", arg.replace('\'', "'\\''"))?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CommandVisitor;
        impl<'de> Visitor<'de> for CommandVisitor {
            type Value = Command;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of program and arguments, or a string for sh -c")
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<Command, E> {
                Ok(Command::Shell(line.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Command, A::Error> {
                let mut argv = Vec::new();
                while let Some(arg) = seq.next_element()? {
                    argv.push(arg);
                }
                Ok(Command::Argv(argv))
            }
        }
        deserializer.deserialize_any(CommandVisitor)
    }
}

/// A command that an image may well do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `false`: none, and none is inferred.
    None,
    Command(Command),
}

impl Step {
    pub(crate) fn command(&self) -> Option<&Command> {
        match self {
            Step::None => None,
            Step::Command(command) => Some(command),
        }
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StepVisitor;
        impl<'de> Visitor<'de> for StepVisitor {
            type Value = Step;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a list of program and arguments, a string for sh -c, or false for none",
                )
            }

            fn visit_bool<E: de::Error>(self, wanted: bool) -> Result<Step, E> {
                if wanted {
                    return Err(E::invalid_value(de::Unexpected::Bool(true), &self));
                }
                Ok(Step::None)
            }

            fn visit_str<E: de::Error>(self, line: &str) -> Result<Step, E> {
                Ok(Step::Command(Command::Shell(line.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Step, A::Error> {
                let mut argv = Vec::new();
                while let Some(arg) = seq.next_element()? {
                    argv.push(arg);
                }
                Ok(Step::Command(Command::Argv(argv)))
            }
        }
        deserializer.deserialize_any(StepVisitor)
    }
}

/// What `python` in an image's section says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Requirements {
    /// No virtual environment.
    None,
    /// One made from these files, relative to the project.
    Files(Vec<String>),
}

impl<'de> Deserialize<'de> for Requirements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RequirementsVisitor;
        impl<'de> Visitor<'de> for RequirementsVisitor {
            type Value = Requirements;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a file such as \"requirements.txt\", a list of such files, or false for no virtual environment",
                )
            }

            fn visit_bool<E: de::Error>(self, wanted: bool) -> Result<Requirements, E> {
                if wanted {
                    return Err(E::invalid_value(de::Unexpected::Bool(true), &self));
                }
                Ok(Requirements::None)
            }

            fn visit_str<E: de::Error>(self, file: &str) -> Result<Requirements, E> {
                Ok(Requirements::Files(vec![file.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Requirements, A::Error> {
                let mut files = Vec::new();
                while let Some(file) = seq.next_element()? {
                    files.push(file);
                }
                Ok(Requirements::Files(files))
            }
        }
        deserializer.deserialize_any(RequirementsVisitor)
    }
}

/// What `sync` in an image's section says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Each save builds the image.
    None,
    /// Paths relative to the project, and where they are in the image.
    Paths(BTreeMap<String, String>),
}

impl<'de> Deserialize<'de> for Sync {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SyncVisitor;
        impl<'de> Visitor<'de> for SyncVisitor {
            type Value = Sync;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "paths of the project with their places in the image, such as { \"services/api/src\" = \"/app/src\" }, or false to build the image at each save",
                )
            }

            fn visit_bool<E: de::Error>(self, wanted: bool) -> Result<Sync, E> {
                if wanted {
                    return Err(E::invalid_value(de::Unexpected::Bool(true), &self));
                }
                Ok(Sync::None)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sync, A::Error> {
                let mut paths = BTreeMap::new();
                while let Some((from, to)) = map.next_entry()? {
                    paths.insert(from, to);
                }
                Ok(Sync::Paths(paths))
            }
        }
        deserializer.deserialize_any(SyncVisitor)
    }
}

/// What stands in for Cloud SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloudSqlEngine {
    /// A private mysqld or mariadbd of this machine.
    Local,
    /// The container that the Compose file describes.
    Container,
}

impl fmt::Display for CloudSqlEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloudSqlEngine::Local => "local",
            CloudSqlEngine::Container => "container",
        })
    }
}

/// What a changed source file leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reload {
    /// New pods, without a build. The default where there is no build command.
    Restart,
    /// The build command, then new pods. The default where there is one.
    Build,
    /// Nothing: the program sees the changed file and reloads itself.
    Sync,
    /// Nothing, until `devenv` is told to.
    Manual,
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reload::Restart => "restart",
            Reload::Build => "build",
            Reload::Sync => "sync",
            Reload::Manual => "manual",
        })
    }
}
