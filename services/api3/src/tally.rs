//! Counting rows by id as they appear, without reading any row twice.
//!
//! Ids are given before rows are committed, so a row can appear below one that
//! was seen already. Such ids are remembered as gaps and asked for again until
//! no transaction can still fill them. What this misses (rows deleted, more
//! gaps than are kept) the next recount puts right.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Seconds that the live split looks back.
pub const WINDOW_S: i64 = 60;

/// The write side gives a request up after 10 s; its transaction is gone by then.
const GAP_LIVES: Duration = Duration::from_secs(15);

/// Most gaps that are asked for at a time.
const MAX_GAPS: usize = 64;

/// How far below a row ids are taken for gaps when nothing was seen before it.
const GAP_DEPTH: i64 = 2_000;

/// The lowest id that counts as a gap below `id`, when what lies below was not
/// watched.
pub fn gaps_from(id: i64) -> i64 {
    (id - GAP_DEPTH).max(1)
}

/// Rows of each API.
pub type Counts = BTreeMap<String, u64>;

/// A row as it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Primary key.
    pub id: i64,
    /// Who took it.
    pub api: String,
    /// Unix time at which it was written, whole seconds of the database's clock.
    pub second: i64,
}

/// Ids from `first` to `last` that were not there when they were passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The lowest id.
    pub first: i64,
    /// The highest id.
    pub last: i64,
    until: Instant,
}

/// How many rows there are, and how many came lately.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: Counts,
    last_id: i64,
    gaps: VecDeque<Gap>,
    lately: BTreeMap<i64, Counts>,
}

impl Tally {
    /// A tally that starts from a recount: `counts` of all rows up to
    /// `last_id`, the ids present from [`gaps_from`] that on (ascending), and
    /// the counts of each of the last seconds.
    pub fn recounted(
        counts: Counts,
        last_id: i64,
        newest_ids: &[i64],
        lately: BTreeMap<i64, Counts>,
        now: Instant,
    ) -> Self {
        let mut tally = Self {
            counts,
            last_id,
            gaps: VecDeque::new(),
            lately,
        };
        let mut next = gaps_from(last_id);
        for &id in newest_ids {
            tally.gap(next, id - 1, now);
            next = id + 1;
        }
        tally
    }

    /// Counts rows that were found above [`Self::last_id`] or in a gap, in
    /// ascending order of their ids. Returns how many were new.
    pub fn add(&mut self, rows: &[Row], now: Instant) -> usize {
        let mut new = 0;
        for row in rows {
            if row.id > self.last_id {
                // Of two first rows the second may be seen first.
                let from = if self.last_id == 0 {
                    gaps_from(row.id)
                } else {
                    self.last_id + 1
                };
                self.gap(from, row.id - 1, now);
                self.last_id = row.id;
            } else if !self.fill(row.id) {
                continue;
            }
            new += 1;
            *self.counts.entry(row.api.clone()).or_default() += 1;
            *self
                .lately
                .entry(row.second)
                .or_default()
                .entry(row.api.clone())
                .or_default() += 1;
        }
        new
    }

    /// Forgets gaps that nobody can fill any more, and seconds that are out of
    /// the window at `second`.
    pub fn forget(&mut self, now: Instant, second: i64) {
        self.gaps.retain(|gap| gap.until > now);
        self.lately = self.lately.split_off(&(second - WINDOW_S + 1));
    }

    /// The highest id seen; 0 when there was none.
    pub fn last_id(&self) -> i64 {
        self.last_id
    }

    /// What is to be asked for again.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> + '_ {
        self.gaps.iter().copied()
    }

    /// Rows of each API.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Rows of each API in the `window_s` seconds up to `second`; every API
    /// that ever wrote is named.
    pub fn lately(&self, window_s: i64, second: i64) -> Counts {
        let mut sum: Counts = self.counts.keys().map(|api| (api.clone(), 0)).collect();
        for counts in self
            .lately
            .range(second - window_s + 1..)
            .map(|(_, counts)| counts)
        {
            for (api, n) in counts {
                *sum.entry(api.clone()).or_default() += n;
            }
        }
        sum
    }

    fn gap(&mut self, first: i64, last: i64, now: Instant) {
        if first <= last {
            if self.gaps.len() == MAX_GAPS {
                self.gaps.pop_front();
            }
            self.gaps.push_back(Gap {
                first,
                last,
                until: now + GAP_LIVES,
            });
        }
    }

    /// Takes `id` out of its gap; false when it was in none.
    fn fill(&mut self, id: i64) -> bool {
        let Some(at) = self
            .gaps
            .iter()
            .position(|g| (g.first..=g.last).contains(&id))
        else {
            return false;
        };
        let gap = self.gaps[at];
        let parts = [
            Gap {
                last: id - 1,
                ..gap
            },
            Gap {
                first: id + 1,
                ..gap
            },
        ];
        self.gaps.remove(at);
        for part in parts.into_iter().rev().filter(|g| g.first <= g.last) {
            self.gaps.insert(at, part);
        }
        true
    }
}

/// The sum of all APIs.
pub fn total(counts: &Counts) -> u64 {
    counts.values().sum()
}

/// The part of each API, 0 to 1; all 0 when nothing came.
pub fn shares(counts: &Counts) -> BTreeMap<String, f64> {
    let total = total(counts).max(1) as f64;
    counts
        .iter()
        .map(|(api, n)| (api.clone(), *n as f64 / total))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(ids: &[i64]) -> Vec<Row> {
        ids.iter()
            .map(|&id| Row {
                id,
                api: if id % 2 == 0 { "b" } else { "a" }.into(),
                second: id / 10,
            })
            .collect()
    }

    fn gaps(tally: &Tally) -> Vec<(i64, i64)> {
        tally.gaps().map(|g| (g.first, g.last)).collect()
    }

    #[test]
    fn rows_in_order_are_counted_once() {
        let now = Instant::now();
        let mut tally = Tally::default();
        assert_eq!(tally.add(&rows(&[1, 2, 3]), now), 3);
        assert_eq!(
            tally.add(&rows(&[2, 3, 4]), now),
            1,
            "seen rows don't count again"
        );
        assert_eq!(
            tally.counts(),
            &Counts::from([("a".into(), 2), ("b".into(), 2)])
        );
        assert_eq!((tally.last_id(), gaps(&tally)), (4, vec![]));
    }

    #[test]
    fn a_row_that_commits_late_is_counted_in_its_gap() {
        let now = Instant::now();
        let mut tally = Tally::default();
        tally.add(&rows(&[1, 2, 7]), now);
        assert_eq!(gaps(&tally), [(3, 6)]);
        assert_eq!(tally.add(&rows(&[4, 8]), now), 2);
        assert_eq!(gaps(&tally), [(3, 3), (5, 6)]);
        assert_eq!(tally.add(&rows(&[3, 5, 6]), now), 3);
        assert_eq!(gaps(&tally), []);
        assert_eq!(total(tally.counts()), 8);
    }

    #[test]
    fn gaps_end_when_no_transaction_can_fill_them() {
        let now = Instant::now();
        let mut tally = Tally::default();
        tally.add(&rows(&[1, 3]), now);
        tally.forget(now + GAP_LIVES - Duration::from_millis(1), 0);
        assert_eq!(gaps(&tally), [(2, 2)]);
        tally.forget(now + GAP_LIVES, 0);
        assert_eq!(gaps(&tally), []);
    }

    #[test]
    fn the_first_row_may_commit_second() {
        let now = Instant::now();
        let mut tally = Tally::default();
        tally.add(&rows(&[2]), now);
        assert_eq!(tally.add(&rows(&[1, 3]), now), 2);
        assert_eq!(gaps(&tally), []);
        let mut tally = Tally::default();
        tally.add(&rows(&[1_000_000]), now);
        assert_eq!(gaps(&tally), [(998_000, 999_999)], "not down to 1");
    }

    #[test]
    fn gaps_are_bounded() {
        let ids: Vec<i64> = (1..=200).map(|n| n * 3).collect();
        let mut tally = Tally::default();
        tally.add(&rows(&ids), Instant::now());
        assert_eq!(tally.gaps().count(), MAX_GAPS);
        assert_eq!(
            gaps(&tally).last(),
            Some(&(598, 599)),
            "the newest are kept"
        );
    }

    #[test]
    fn a_recount_knows_the_gaps_of_the_newest_rows() {
        let now = Instant::now();
        let counts = Counts::from([("a".into(), 900)]);
        let mut ids: Vec<i64> = (2..=997).collect();
        ids.push(1000);
        let mut tally = Tally::recounted(counts, 1000, &ids, BTreeMap::new(), now);
        assert_eq!(gaps(&tally), [(1, 1), (998, 999)]);
        assert_eq!(tally.add(&rows(&[999]), now), 1);
        assert_eq!(tally.counts()["a"], 901);
    }

    #[test]
    fn the_window_slides() {
        let now = Instant::now();
        let mut tally = Tally::default();
        // Seconds 0, 0, 1, 2 and 65.
        tally.add(&rows(&[3, 4, 11, 24, 651]), now);
        assert_eq!(
            tally.lately(60, 59),
            Counts::from([("a".into(), 3), ("b".into(), 2)])
        );
        assert_eq!(
            tally.lately(60, 61),
            Counts::from([("a".into(), 1), ("b".into(), 1)])
        );
        assert_eq!(
            tally.lately(10, 200),
            Counts::from([("a".into(), 0), ("b".into(), 0)])
        );
        tally.forget(now, 61);
        assert_eq!(
            tally.lately(60, 61),
            Counts::from([("a".into(), 1), ("b".into(), 1)])
        );
        assert_eq!(
            tally.lately(600, 61),
            tally.lately(60, 61),
            "older seconds are gone"
        );
    }

    #[test]
    fn shares_add_up_or_are_nothing() {
        let shares_of = |a, b| shares(&Counts::from([("a".into(), a), ("b".into(), b)]));
        assert_eq!(shares_of(3, 1)["a"], 0.75);
        assert_eq!(shares_of(0, 0)["b"], 0.0);
    }
}
