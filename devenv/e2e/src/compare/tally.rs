//! Judges what was seen at one place in the answers to one request, sent many times.
//!
//! A place whose values repeat (one constant, or the name of whichever backend answered)
//! is judged by which values either side ever gave, and, where those are the same, by how
//! often it gave each: two sides of a random split must not be told apart by which of
//! them drew which backend. A place whose values don't repeat (ids, times) is judged pair
//! by pair.

use std::collections::{BTreeMap, BTreeSet};

use super::{Difference, diff::Seen};
use crate::statistics::fisher;

/// Shares that are alike look unlike once in a thousand times.
const LEAST: f64 = 0.001;

/// What was seen at one place.
#[derive(Debug, Default)]
pub(super) struct Tally {
    exact: BTreeSet<String>,
    of: u64,
    differing: u64,
    left: BTreeMap<String, u64>,
    right: BTreeMap<String, u64>,
    changes: BTreeMap<(String, String), Change>,
}

/// A value that became another.
#[derive(Debug)]
struct Change {
    /// When it was first seen.
    first: u64,
    count: u64,
    shown: (String, String),
}

impl Tally {
    pub(super) fn add(&mut self, seen: Seen) {
        // One says which it is; more say that there are several.
        if self.exact.len() < 2 {
            self.exact.insert(seen.exact);
        }
        if seen.left != seen.right {
            self.differing += 1;
            let both = (seen.left.clone(), seen.right.clone());
            let shown = seen.shown.unwrap_or_else(|| both.clone());
            let first = self.of;
            let change = self.changes.entry(both).or_insert(Change {
                first,
                count: 0,
                shown,
            });
            change.count += 1;
        }
        self.of += 1;
        *self.left.entry(seen.left).or_default() += 1;
        *self.right.entry(seen.right).or_default() += 1;
    }

    /// What differs here, if anything does that chance doesn't explain. `request` is what
    /// was sent, `place` where this is in the answers.
    pub(super) fn judge(&self, request: &str, place: &str) -> Option<Difference> {
        if self.differing == 0 {
            return None;
        }
        let exact = self.exact.first().filter(|_| self.exact.len() == 1);
        let difference = |(left, right): (String, String), count, note| Difference {
            request: request.to_owned(),
            place: exact.map_or(place, String::as_str).to_owned(),
            left,
            right,
            count,
            of: self.of,
            note,
            steps: Vec::new(),
        };
        let repeats = |side: &BTreeMap<String, u64>| side.len() as u64 * 2 <= self.of;
        if !(repeats(&self.left) && repeats(&self.right)) {
            let first = self.changes.values().min_by_key(|change| change.first)?;
            let varies = self.left.len() > 1 && self.right.len() > 1;
            let note = varies.then(|| "varies on either side from one request to the next".into());
            return Some(difference(first.shown.clone(), self.differing, note));
        }
        let only = |this: &BTreeMap<String, u64>, that: &BTreeMap<String, u64>| {
            let only = this.iter().filter(|(value, _)| !that.contains_key(*value));
            only.map(|(value, n)| (value.clone(), *n))
                .collect::<BTreeMap<_, _>>()
        };
        let (left, right) = (only(&self.left, &self.right), only(&self.right, &self.left));
        if left.is_empty() && right.is_empty() {
            return self.shares().map(|(words, count)| {
                let note = "the same values, in other shares than chance explains";
                difference(words, count, Some(note.to_owned()))
            });
        }
        let count = left.values().sum::<u64>().max(right.values().sum());
        // Which of the values that only one side has became which is told by the pair that
        // was seen most often; where none was, by which of them is most frequent.
        let change = (self.changes.iter())
            .filter(|((l, r), _)| {
                (left.is_empty() || left.contains_key(l))
                    && (right.is_empty() || right.contains_key(r))
            })
            .max_by_key(|(_, change)| change.count);
        let most = |side: &BTreeMap<String, u64>| {
            let most = side.iter().max_by_key(|(_, n)| **n);
            most.map_or_else(String::new, |(value, _)| value.clone())
        };
        let shown = match change {
            Some((_, change)) => change.shown.clone(),
            None => (most(&left), most(&right)),
        };
        Some(difference(shown, count, None))
    }

    /// The value whose share differs most, if chance doesn't explain it, and how many
    /// answers are concerned.
    fn shares(&self) -> Option<((String, String), u64)> {
        let shares = self.left.iter().map(|(value, &left)| {
            let right = self.right.get(value).copied().unwrap_or_default();
            let p = fisher((left, self.of), (right, self.of));
            (p, value, left, right)
        });
        let (p, value, left, right) = shares.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let words = |n: u64| {
            let percent = 100.0 * n as f64 / self.of as f64;
            format!("{value} in {percent:.0} %")
        };
        (p < LEAST).then(|| ((words(left), words(right)), left.abs_diff(right)))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Pairs as `left right`, with how often.
    fn judged(pairs: &[(&str, &str, u64)]) -> Option<String> {
        let mut tally = Tally::default();
        for (left, right, n) in pairs {
            for _ in 0..*n {
                tally.add(Seen {
                    place: "$.a".into(),
                    exact: "$.a".into(),
                    left: (*left).to_owned(),
                    right: (*right).to_owned(),
                    shown: None,
                });
            }
        }
        let found = tally.judge("GET /", "$.a")?;
        let note = found.note.map_or(String::new(), |note| format!("; {note}"));
        let Difference {
            left,
            right,
            count,
            of,
            ..
        } = found;
        Some(format!("{left} → {right} ({count} of {of}){note}"))
    }

    #[rstest]
    #[case::constant(&[("a", "a", 20)], None)]
    #[case::changed(&[("a", "b", 20)], Some("a → b (20 of 20)"))]
    #[case::once(&[("a", "b", 1)], Some("a → b (1 of 1)"))]
    #[case::sometimes(&[("a", "a", 17), ("a", "b", 3)], Some("a → b (3 of 20)"))]
    #[case::a_split(&[("x", "x", 6), ("x", "y", 4), ("y", "x", 4), ("y", "y", 6)], None)]
    #[case::one_backend_has_another_name(
        &[("x", "x", 5), ("x", "z", 5), ("y", "x", 4), ("y", "z", 6)],
        Some("y → z (11 of 20)")
    )]
    #[case::names_that_never_met(
        &[("x", "z", 5), ("y", "x", 5)],
        Some("y → z (5 of 10)")
    )]
    #[case::one_side_has_one_more(
        &[("x", "x", 8), ("y", "y", 8), ("x", "z", 1), ("y", "x", 3)],
        Some("x → z (1 of 20)")
    )]
    #[case::shares_that_chance_explains(&[("x", "x", 10), ("x", "y", 4), ("y", "y", 6)], None)]
    #[case::shares_that_it_does_not(
        &[("x", "x", 20), ("x", "y", 40), ("y", "y", 40)],
        Some("x in 60 % → x in 20 % (40 of 100); the same values, in other shares than chance explains")
    )]
    #[case::ids_that_shift(
        &[("1", "1", 1), ("2", "3", 1), ("3", "4", 1), ("4", "5", 1)],
        Some("2 → 3 (3 of 4); varies on either side from one request to the next")
    )]
    #[case::an_id_beside_a_constant(
        &[("a", "1", 1), ("a", "2", 1), ("a", "3", 1)],
        Some("a → 1 (3 of 3)")
    )]
    fn verdicts(#[case] pairs: &[(&str, &str, u64)], #[case] want: Option<&str>) {
        assert_eq!(judged(pairs).as_deref(), want);
    }

    #[test]
    fn elements_are_one_place_and_one_alone_keeps_its_number() {
        let seen = |index: usize, right: &str| Seen {
            place: "$.a[*]".into(),
            exact: format!("$.a[{index}]"),
            left: "x".into(),
            right: right.into(),
            shown: None,
        };
        let mut tally = Tally::default();
        tally.add(seen(1, "y"));
        tally.add(seen(1, "y"));
        assert_eq!(tally.judge("GET /", "$.a[*]").unwrap().place, "$.a[1]");
        tally.add(seen(0, "x"));
        let found = tally.judge("GET /", "$.a[*]").unwrap();
        assert_eq!(
            (found.place.as_str(), found.count, found.of),
            ("$.a[*]", 2, 3)
        );
    }
}
