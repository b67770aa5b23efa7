//! Which tests run, which are left out, and why.

use std::{collections::BTreeSet, str::FromStr};

use sha2::{Digest, Sha256};

use crate::suite::Suite;

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only tests that one of these fits; none: all.
    pub filters: Vec<Filter>,
    /// Only this part of them.
    pub shard: Option<Shard>,
    /// `local`, `kind` or `kube:CONTEXT`.
    pub target: String,
    /// The profile of devenv.toml.
    pub profile: Option<String>,
}

/// Which tests are meant, by `suite::test`.
#[derive(Clone, Debug)]
pub enum Filter {
    /// The whole name, if there is a test of that name; else every name that has this
    /// in it.
    Text(String),
    /// Written as `/regex/`: every name that it matches somewhere.
    Regex(regex::Regex),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inner = text
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'));
        match inner {
            Some(pattern) => regex::Regex::new(pattern).map(Filter::Regex).map_err(|e| {
                let said = e.to_string();
                let why = said.lines().last().unwrap_or_default().trim();
                format!("{text} is no regular expression: {why}")
            }),
            None => Ok(Filter::Text(text.to_owned())),
        }
    }
}

/// One of several parts of all tests, so that machines can share them. Which part a test
/// is in depends on its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Counted from 1.
    pub index: u64,
    /// Into how many.
    pub of: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(index, of)| {
            let (index, of) = (index.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&index).then_some(Shard { index, of })
        });
        parsed.ok_or_else(|| format!("{text:?} is no shard: write K/N with K from 1 to N"))
    }
}

impl Shard {
    fn has(self, name: &str) -> bool {
        let hash = Sha256::digest(name.as_bytes());
        let first: [u8; 8] = std::array::from_fn(|i| hash[i]);
        u64::from_be_bytes(first) % self.of == self.index - 1
    }
}

/// A suite, and which of its tests run.
#[derive(Clone, Debug)]
pub struct PlannedSuite {
    /// The suite.
    pub suite: Suite,
    /// Indices of its tests, in the file's order.
    pub tests: Vec<usize>,
    /// Why none of them runs, if so.
    pub skipped: Option<String>,
}

/// The name by which a test is asked for.
pub fn full_name(suite: &str, test: &str) -> String {
    format!("{suite}::{test}")
}

/// What runs. Tests that were not asked for are left out; those that this target or
/// profile is not for are kept, with the reason.
pub fn plan(suites: Vec<Suite>, selection: &Selection) -> Vec<PlannedSuite> {
    let names: BTreeSet<String> = suites
        .iter()
        .flat_map(|suite| suite.tests.iter().map(|t| full_name(&suite.name, &t.name)))
        .collect();
    let wanted = |name: &str| {
        let fits = |filter: &Filter| match filter {
            Filter::Text(text) if names.contains(text) => name == text,
            Filter::Text(text) => name.contains(text.as_str()),
            Filter::Regex(regex) => regex.is_match(name),
        };
        (selection.filters.is_empty() || selection.filters.iter().any(fits))
            && selection.shard.is_none_or(|shard| shard.has(name))
    };
    let mut out: Vec<PlannedSuite> = suites
        .into_iter()
        .filter_map(|suite| {
            let tests: Vec<usize> = (0..suite.tests.len())
                .filter(|&i| wanted(&full_name(&suite.name, &suite.tests[i].name)))
                .collect();
            (!tests.is_empty()).then(|| PlannedSuite {
                skipped: reason(&suite, selection),
                suite,
                tests,
            })
        })
        .collect();
    out.sort_by(|a, b| a.suite.name.cmp(&b.suite.name));
    out
}

/// Whether a suite is to run where only these workloads have changed: it names one of
/// them, or none at all.
pub fn concerns(suite: &Suite, changed: &BTreeSet<String>) -> bool {
    suite.workloads.is_empty() || suite.workloads.iter().any(|name| changed.contains(name))
}

/// Why a suite does not run here.
fn reason(suite: &Suite, selection: &Selection) -> Option<String> {
    let target = selection.target.as_str();
    let is_target =
        |wanted: &String| wanted == target || (wanted == "kube" && target.starts_with("kube:"));
    if !suite.targets.is_empty() && !suite.targets.iter().any(is_target) {
        return Some(format!(
            "for the target {}, and this is {target}",
            suite.targets.join(" or ")
        ));
    }
    if !suite.is_for_profile(selection.profile.as_deref()) {
        let profile = selection.profile.as_deref().unwrap_or("default");
        return Some(format!(
            "for the profile {}, and this is {profile}",
            suite.profiles.join(" or ")
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::*;
    use crate::suite::parse;

    fn suites() -> Vec<Suite> {
        let test = "[[test]]\nname = \"NAME\"\n[[test.step]]\nexec = { command = [\"true\"] }\n";
        let suite = |name: &str, head: &str, tests: &[&str]| {
            let tests: Vec<String> = tests.iter().map(|t| test.replace("NAME", t)).collect();
            let text = format!("{head}\n{}", tests.join("\n"));
            parse(
                Path::new("/nowhere"),
                Path::new(&format!("tests/e2e/{name}.toml")),
                text,
            )
            .unwrap()
        };
        vec![
            suite(
                "write",
                "workloads = [\"api1\"]",
                &["one", "one more", "two"],
            ),
            suite(
                "read",
                "workloads = [\"api3\"]\ntargets = [\"local\"]",
                &["one"],
            ),
            suite("page", "profiles = [\"default\"]", &["one"]),
        ]
    }

    fn names(planned: &[PlannedSuite]) -> Vec<String> {
        planned
            .iter()
            .flat_map(|p| {
                p.tests.iter().map(|&i| {
                    let name = full_name(&p.suite.name, &p.suite.tests[i].name);
                    match &p.skipped {
                        None => name,
                        Some(why) => format!("{name} ({why})"),
                    }
                })
            })
            .collect()
    }

    #[rstest]
    #[case(&[], &["page::one", "read::one", "write::one", "write::one more", "write::two"])]
    #[case(&["write::one"], &["write::one"])]
    #[case(&["::one"], &["page::one", "read::one", "write::one", "write::one more"])]
    #[case(&["/^(read|page)::/"], &["page::one", "read::one"])]
    #[case(&["two", "more"], &["write::one more", "write::two"])]
    #[case(&["nobody"], &[])]
    fn filtered(#[case] filters: &[&str], #[case] want: &[&str]) {
        let selection = Selection {
            filters: filters.iter().map(|f| f.parse().unwrap()).collect(),
            target: "local".into(),
            ..Selection::default()
        };
        assert_eq!(names(&plan(suites(), &selection)), want);
    }

    #[test]
    fn what_is_for_others_is_kept_with_the_reason() {
        let selection = Selection {
            target: "kube:prod".into(),
            profile: Some("seed".into()),
            filters: vec!["/^(page|read)::/".parse().unwrap()],
            ..Selection::default()
        };
        assert_eq!(
            names(&plan(suites(), &selection)),
            [
                "page::one (for the profile default, and this is seed)",
                "read::one (for the target local, and this is kube:prod)",
            ]
        );
    }

    #[test]
    fn shards_share_all_tests_and_depend_on_names_alone() {
        let of = |index, suites: Vec<Suite>| {
            let selection = Selection {
                shard: Some(Shard { index, of: 3 }),
                target: "local".into(),
                ..Selection::default()
            };
            names(&plan(suites, &selection))
        };
        let mut all: Vec<String> = (1..=3).flat_map(|i| of(i, suites())).collect();
        all.sort();
        assert_eq!(
            all,
            names(&plan(
                suites(),
                &Selection {
                    target: "local".into(),
                    ..Selection::default()
                }
            ))
        );
        for index in 1..=3 {
            let with_fewer = of(index, suites().into_iter().skip(1).collect());
            let with_all = of(index, suites());
            assert!(with_fewer.iter().all(|name| with_all.contains(name)));
        }
    }

    #[rstest]
    #[case("1/4", Some(Shard { index: 1, of: 4 }))]
    #[case("4/4", Some(Shard { index: 4, of: 4 }))]
    #[case("0/4", None)]
    #[case("5/4", None)]
    #[case("1", None)]
    #[case("1/0", None)]
    #[case("a/b", None)]
    fn shards(#[case] text: &str, #[case] want: Option<Shard>) {
        assert_eq!(text.parse::<Shard>().ok(), want);
    }
}
