//! An exact split by weight that is not a metronome.
//!
//! Requests are dealt in permuted blocks: a block is the smallest whole ratio
//! of weight to total (2 for 50:50, 10 for 30:70), each block holds exactly
//! its share of canary places, and their order inside a block is random. The
//! share is therefore exact over whole blocks and never further off than one
//! block's share in between, yet a client that alternates two kinds of request
//! does not hit the same side with each kind.
//!
//! Random order alone would not keep *each kind* exact, so every method class
//! has a sequence of blocks of its own: neither a browser's preflights nor a
//! page that polls can shift the share that the POSTs get.

use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;

use super::policy::Share;

/// Method classes with a sequence of blocks each.
const CLASSES: usize = 7;

/// Deals requests to canary (`true`) or main (`false`) at an exact ratio.
///
/// Lock-free: one atomic increment and one compare-and-swap per request, exact
/// under concurrency because the compare-and-swap hands out every place of a
/// block once.
#[derive(Debug)]
pub struct Splitter {
    /// Canary places in a block.
    canary: u32,
    /// Places in a block.
    size: u32,
    seed: u64,
    sequences: [Sequence; CLASSES],
}

#[derive(Debug)]
#[repr(align(64))]
struct Sequence {
    /// What is left of the current block: places in the high half, canary
    /// places among them in the low half.
    left: AtomicU64,
    /// Draws made, the position in the stream of random numbers.
    draws: AtomicU64,
}

impl Splitter {
    /// A splitter for a share strictly between never and always; `None` for
    /// the two ends, which need no dealing.
    pub fn new(share: Share, seed: u64) -> Option<Self> {
        let Share::Of { canary, total } = share else {
            return None;
        };
        let divisor = gcd(canary, total);
        let (canary, size) = (canary / divisor, total / divisor);
        Some(Self {
            canary,
            size,
            seed,
            sequences: std::array::from_fn(|_| Sequence {
                left: AtomicU64::new(pack(size, canary)),
                draws: AtomicU64::new(0),
            }),
        })
    }

    /// Whether this splitter deals `share`: then its state may be kept when a
    /// new table is published.
    pub fn deals(&self, share: Share) -> bool {
        // Cross-multiplied, since the share may not be in lowest terms.
        matches!(share, Share::Of { canary, total }
            if u64::from(canary) * u64::from(self.size) == u64::from(total) * u64::from(self.canary))
    }

    /// Places in one block: over that many consecutive picks of a method class
    /// the share is exact.
    pub fn block(&self) -> u32 {
        self.size
    }

    /// Canary places in one block.
    pub fn canary_per_block(&self) -> u32 {
        self.canary
    }

    /// The next request of this method goes to the canary.
    pub fn pick(&self, method: &Method) -> bool {
        let class = class(method);
        let sequence = &self.sequences[class];
        // Selection sampling (Knuth's algorithm S): the next place is a canary
        // place with probability (canary places left) / (places left), which
        // makes every order of the block equally likely without storing one.
        let draw = sequence.draws.fetch_add(1, Ordering::Relaxed);
        let random = mix(self.seed ^ mix(draw ^ ((class as u64) << 56)));
        let mut seen = sequence.left.load(Ordering::Relaxed);
        loop {
            let (places, canaries) = unpack(seen);
            let scaled = ((u128::from(random) * u128::from(places)) >> 64) as u32;
            let canary = scaled < canaries;
            let next = match (places - 1, canaries - u32::from(canary)) {
                (0, _) => pack(self.size, self.canary),
                (places, canaries) => pack(places, canaries),
            };
            // Relaxed: the number guards nothing but itself.
            match sequence.left.compare_exchange_weak(
                seen,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return canary,
                Err(now) => seen = now,
            }
        }
    }
}

fn pack(places: u32, canaries: u32) -> u64 {
    (u64::from(places) << 32) | u64::from(canaries)
}

fn unpack(left: u64) -> (u32, u32) {
    ((left >> 32) as u32, left as u32)
}

fn class(method: &Method) -> usize {
    match *method {
        Method::POST => 0,
        Method::GET | Method::HEAD => 1,
        Method::OPTIONS => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        _ => 6,
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// SplitMix64's finaliser: every input bit reaches every output bit.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn splitter(canary: u32, total: u32, seed: u64) -> Splitter {
        Splitter::new(Share::Of { canary, total }, seed).unwrap()
    }

    #[test]
    fn a_block_is_the_smallest_whole_ratio() {
        for (canary, total, block) in [(50, 100, 2), (30, 100, 10), (1, 3, 3), (33, 100, 100)] {
            assert_eq!(splitter(canary, total, 1).block(), block);
        }
        assert!(Splitter::new(Share::Never, 1).is_none());
        assert!(Splitter::new(Share::Always, 1).is_none());
    }

    #[test]
    fn the_same_seed_deals_the_same_and_another_seed_does_not() {
        let deal = |seed| -> Vec<bool> {
            let s = splitter(50, 100, seed);
            (0..64).map(|_| s.pick(&Method::POST)).collect()
        };
        assert_eq!(deal(7), deal(7));
        assert_ne!(deal(7), deal(8));
    }

    /// The reason for permuted blocks: a strict alternation would send every
    /// preflight to one API and every POST to the other.
    #[test]
    fn a_client_that_alternates_options_and_post_reaches_both_sides_exactly() {
        let s = splitter(50, 100, 42);
        let mut posts = 0;
        for _ in 0..10_000 {
            s.pick(&Method::OPTIONS);
            posts += u32::from(s.pick(&Method::POST));
        }
        assert_eq!(posts, 5_000);
    }

    /// Not a metronome: consecutive picks repeat as often as independent
    /// halves of blocks make them (a quarter of all neighbours in 50:50).
    #[test]
    fn neighbours_repeat_as_often_as_random_blocks_make_them() {
        let s = splitter(50, 100, 3);
        let picks: Vec<bool> = (0..40_000).map(|_| s.pick(&Method::POST)).collect();
        let repeats = picks.windows(2).filter(|w| w[0] == w[1]).count();
        assert!((9_500..10_500).contains(&repeats), "{repeats}");
    }

    /// Every place of a block is a canary place equally often.
    #[test]
    fn each_place_in_a_block_gets_its_share() {
        let s = splitter(30, 100, 11);
        let mut hits = [0u32; 10];
        for _ in 0..20_000 {
            for hit in &mut hits {
                *hit += u32::from(s.pick(&Method::GET));
            }
        }
        for hit in hits {
            // 6,000 expected, standard deviation 65: five of them.
            assert!((5_675..6_325).contains(&hit), "{hits:?}");
        }
    }

    #[test]
    fn exact_over_whole_blocks_from_several_threads() {
        let s = Arc::new(splitter(37, 100, 5));
        let canaries: u32 = (0..4)
            .map(|_| {
                let s = s.clone();
                thread::spawn(move || {
                    (0..25_000)
                        .map(|_| u32::from(s.pick(&Method::POST)))
                        .sum::<u32>()
                })
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|t| t.join().unwrap())
            .sum();
        assert_eq!(canaries, 37_000);
    }

    proptest! {
        #[test]
        fn exact_after_every_block_and_never_further_off_than_one(
            total in 1u32..500, part in 0.0f64..1.0, seed: u64, blocks in 1u32..6,
        ) {
            let canary = ((f64::from(total) * part) as u32).clamp(1, total);
            prop_assume!(canary < total);
            let s = splitter(canary, total, seed);
            let mut got = 0u64;
            for n in 1..=u64::from(s.block() * blocks) {
                got += u64::from(s.pick(&Method::POST));
                let exact = n * u64::from(canary);
                let off = (got * u64::from(total)).abs_diff(exact);
                prop_assert!(off <= u64::from(s.canary_per_block()) * u64::from(total));
                if n % u64::from(s.block()) == 0 {
                    prop_assert_eq!(off, 0);
                }
            }
        }

        #[test]
        fn other_methods_do_not_upset_the_share(
            seed: u64, kinds in proptest::collection::vec(0usize..7, 200..600),
        ) {
            let methods = [Method::POST, Method::GET, Method::OPTIONS, Method::PUT,
                Method::PATCH, Method::DELETE, Method::TRACE];
            let s = splitter(50, 100, seed);
            let mut balance = [0i64; 7];
            for kind in kinds {
                balance[kind] += if s.pick(&methods[kind]) { 1 } else { -1 };
                prop_assert!(balance[kind].abs() <= 1);
            }
        }
    }
}
