//! Whether a verdict applies to the tree at hand, and if not, why.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use devenv_e2e::outcome::Outcome;
use devenv_model::Topology;
use serde::{Deserialize, Serialize};

use crate::{
    coverage::{Change, Group, differences, secret_differences},
    keys::{NoPublicKey, PublicKey},
    store::{Damaged, Store, StoreError, Stored},
    tree::{DATABASE, Tree},
    verdict::{Level, Verdict, described},
};

/// Whose verdicts count. What they must be about says the tree that they are compared
/// with: its target, its profile, and at least its level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The only keys that count; nothing: any does whose signature is right.
    pub trusted: Option<Vec<PublicKey>>,
}

impl Policy {
    /// What the project's `[gate]` says.
    ///
    /// # Errors
    /// When a trusted key is none although it looks like one.
    pub fn of(topology: &Topology) -> Result<Self, NoPublicKey> {
        let keys = topology.gate().trusted_keys.as_ref();
        let trusted = keys
            .map(|keys| keys.iter().map(|k| k.parse()).collect())
            .transpose()?;
        Ok(Self { trusted })
    }
}

/// Why a verdict doesn't apply. In the order in which they are told: what is wrong with
/// the verdict itself, what it is about, what it says, what has changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// There is none at all.
    NoVerdict,
    /// No signature fits its contents.
    BadSignature {
        /// What the keys are called that are said to have signed it.
        keys: Vec<String>,
    },
    /// It is signed, and by nobody who counts.
    Untrusted {
        /// Who signed it.
        keys: Vec<PublicKey>,
        /// Who counts.
        trusted: Vec<PublicKey>,
    },
    /// Its secrets can't be compared.
    Seal {
        /// Why.
        why: String,
    },
    /// It is on another target or profile.
    OtherEnvironment {
        /// What it is on.
        verdict: String,
        /// What was asked for.
        wanted: String,
    },
    /// Processes of the tree were tested, and images were asked for.
    LevelTooLow {
        /// What it has.
        verdict: Level,
        /// What was asked for.
        wanted: Level,
    },
    /// A part of the suites was left out by hand.
    Partial {
        /// How: `--filter split`.
        how: String,
    },
    /// The run says nothing about a suite.
    NotRun {
        /// Its file.
        file: String,
    },
    /// A suite could not run.
    SuiteBroken {
        /// Its name.
        suite: String,
        /// Why.
        error: String,
    },
    /// A test did not pass.
    Test {
        /// Its suite.
        suite: String,
        /// Its name.
        test: String,
        /// Where it begins: `tests/e2e/page.toml:3`.
        place: String,
        /// `failed` or `missing`.
        outcome: Outcome,
        /// Why, if it was left out.
        why: Option<String>,
    },
    /// Not one test ran.
    NothingRan,
    /// It says that it doesn't pass, and not why.
    Fails,
    /// An input isn't as it was.
    Input(Change),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |keys: &[PublicKey]| {
            let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
            keys.join(", ")
        };
        match self {
            Self::NoVerdict => f.write_str("there is no verdict: `devenv test e2e` makes one"),
            Self::BadSignature { keys } if keys.is_empty() => {
                f.write_str("the verdict is not signed")
            }
            Self::BadSignature { keys } => write!(
                f,
                "the verdict was changed after it was signed: its contents are not what {} signed",
                keys.join(", ")
            ),
            Self::Untrusted { keys, trusted } if trusted.is_empty() => write!(
                f,
                "the verdict is signed by {}, and `gate.trusted_keys` names no key",
                list(keys)
            ),
            Self::Untrusted { keys, trusted } => write!(
                f,
                "the verdict is signed by {}, and `gate.trusted_keys` names only {}",
                list(keys),
                list(trusted)
            ),
            Self::Seal { why } => write!(f, "the verdict's secrets can't be compared: {why}"),
            Self::OtherEnvironment { verdict, wanted } => {
                write!(f, "the verdict is on {verdict}, and {wanted} was asked for")
            }
            Self::LevelTooLow { verdict, wanted } => write!(
                f,
                "the verdict is at level {verdict}, and {wanted} was asked for"
            ),
            Self::Partial { how } => write!(f, "only a part of the suites ran: {how}"),
            Self::NotRun { file } => write!(f, "suite {file} did not run"),
            Self::SuiteBroken { suite, error } => write!(f, "suite {suite} could not run: {error}"),
            Self::Test {
                suite,
                test,
                place,
                outcome,
                why,
            } => {
                let how = match outcome {
                    Outcome::Missing => "could not run, since something was missing",
                    _ => "failed",
                };
                write!(f, "{suite}: «{test}» {how} ({place})")?;
                why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
            }
            Self::NothingRan => f.write_str("not one test ran"),
            Self::Fails => f.write_str("the verdict says that the run did not pass"),
            Self::Input(change) => change.fmt(f),
        }
    }
}

/// The verdict that was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its file.
    pub file: PathBuf,
    /// The keys whose signature is right.
    pub signed_by: Vec<PublicKey>,
    /// The verdict, with all that it covers.
    pub verdict: Verdict,
}

/// Whether a verdict applies, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Whether there is a verdict that counts, is about exactly this tree, and passes.
    pub applies: bool,
    /// The hash of the tree at hand.
    pub tree: String,
    /// Why not; empty if it applies.
    pub reasons: Vec<Reason>,
    /// The verdict on this tree, or else the one that is closest to it.
    pub closest: Option<Found>,
    /// Files among the verdicts that are none.
    pub damaged: Vec<Damaged>,
}

/// Looks for a verdict that applies to `tree`; where there is none, explains it with the
/// closest: of the same target and profile, with the fewest inputs that differ, the
/// newest. Takes some ten milliseconds for each secret.
///
/// # Errors
/// When the verdicts can't be listed.
pub fn verify(store: &Store, tree: &Tree, policy: &Policy) -> Result<Verification, StoreError> {
    let (all, damaged) = store.all()?;
    let closest = all
        .into_iter()
        .map(|stored| Compared::new(stored, tree))
        // The first of equals, which is the newest.
        .min_by_key(|c| c.distance(policy));
    let (reasons, closest) = match closest {
        None => (vec![Reason::NoVerdict], None),
        Some(compared) => {
            let reasons = compared.reasons(tree, policy);
            let Stored {
                file,
                verdict,
                signed_by,
                ..
            } = compared.stored;
            let found = Found {
                file,
                signed_by,
                verdict,
            };
            (reasons, Some(found))
        }
    };
    Ok(Verification {
        applies: reasons.is_empty(),
        tree: tree.hash(),
        reasons,
        closest,
        damaged,
    })
}

/// A verdict beside the tree at hand; its secrets not yet, since that takes time.
struct Compared {
    stored: Stored,
    other: Option<Reason>,
    too_low: Option<Reason>,
    changes: Vec<Change>,
    /// How many digests were asked for that a verdict at a lower level does not have.
    lacking: usize,
}

impl Compared {
    fn new(stored: Stored, tree: &Tree) -> Self {
        let verdict = &stored.verdict;
        let other = (&verdict.target, &verdict.profile) != (&tree.target, &tree.profile);
        let other = other.then(|| Reason::OtherEnvironment {
            verdict: described(&verdict.target, verdict.profile.as_deref()),
            wanted: described(&tree.target, tree.profile.as_deref()),
        });
        let too_low = (verdict.level < tree.level).then_some(Reason::LevelTooLow {
            verdict: verdict.level,
            wanted: tree.level,
        });
        // At level `source` nobody asks for digests.
        let undigested = verdict.level.min(tree.level) == Level::Source;
        let mut changes = differences(&verdict.coverage.inputs, &tree.inputs, |group| {
            group == Group::Secret || (undigested && group == Group::Digest)
        });
        let levels_differ = verdict.level != tree.level;
        changes.retain(|c| match (c.group, c.input.as_str()) {
            // Told by `other`, in better words.
            (Group::Environment, "target" | "profile") => false,
            // Beside containers it is another one than beside processes.
            (Group::Environment, DATABASE) => !levels_differ,
            _ => true,
        });
        Self {
            stored,
            other,
            lacking: match too_low {
                Some(_) => tree.inputs.get(&Group::Digest).map_or(0, BTreeMap::len),
                None => 0,
            },
            too_low,
            changes,
        }
    }

    /// How far it is from applying: another environment is farther than any number of
    /// changed inputs, each digest that it says nothing of is one of those, and what is
    /// wrong with the verdict itself counts last.
    fn distance(&self, policy: &Policy) -> (bool, usize, usize) {
        let verdict = &self.stored.verdict;
        let faults = usize::from(signature(&self.stored, policy).is_some())
            + usize::from(self.too_low.is_some())
            + failures(verdict).len();
        (
            self.other.is_some(),
            self.changes.len() + self.lacking,
            faults,
        )
    }

    fn reasons(&self, tree: &Tree, policy: &Policy) -> Vec<Reason> {
        let verdict = &self.stored.verdict;
        let mut reasons = Vec::new();
        reasons.extend(signature(&self.stored, policy));
        let secrets = secret_differences(&verdict.coverage, &tree.secrets);
        if let Err(e) = &secrets {
            reasons.push(Reason::Seal { why: e.to_string() });
        }
        reasons.extend(self.other.clone());
        reasons.extend(self.too_low.clone());
        reasons.extend(failures(verdict));
        let mut changes = self.changes.clone();
        changes.extend(secrets.unwrap_or_default());
        changes.sort_by(|a, b| (a.group, &a.input).cmp(&(b.group, &b.input)));
        tree.place(&mut changes, &verdict.coverage.origins);
        reasons.extend(changes.into_iter().map(Reason::Input));
        reasons
    }
}

/// What is wrong with a verdict's signature.
fn signature(stored: &Stored, policy: &Policy) -> Option<Reason> {
    if stored.signed_by.is_empty() {
        return Some(Reason::BadSignature {
            keys: stored.wrong_signatures.clone(),
        });
    }
    let trusted = policy.trusted.as_ref()?;
    let counts = stored.signed_by.iter().any(|k| trusted.contains(k));
    (!counts).then(|| Reason::Untrusted {
        keys: stored.signed_by.clone(),
        trusted: trusted.clone(),
    })
}

/// Why a verdict doesn't pass.
fn failures(verdict: &Verdict) -> Vec<Reason> {
    let mut reasons = Vec::new();
    reasons.extend(verdict.partial.clone().map(|how| Reason::Partial { how }));
    reasons.extend(
        verdict
            .not_run
            .iter()
            .cloned()
            .map(|file| Reason::NotRun { file }),
    );
    for suite in &verdict.suites {
        if let Some(error) = &suite.error {
            reasons.push(Reason::SuiteBroken {
                suite: suite.name.clone(),
                error: error.clone(),
            });
        }
    }
    for (suite, test) in verdict.tests(&[Outcome::Failed, Outcome::Missing]) {
        reasons.push(Reason::Test {
            suite: suite.name.clone(),
            test: test.name.clone(),
            place: format!("{}:{}", suite.file.display(), test.line),
            outcome: test.outcome,
            why: test.reason.clone(),
        });
    }
    let ran = verdict.tests(&[Outcome::Passed, Outcome::Flaky]).next();
    if reasons.is_empty() && ran.is_none() {
        reasons.push(Reason::NothingRan);
    }
    if reasons.is_empty() && !verdict.passes {
        reasons.push(Reason::Fails);
    }
    reasons
}
