//! Whether the analysis keeps its promises, by seeded simulation.
//!
//! The short form runs with the other tests. The long one is asked for by
//! `DEVENV_ANALYSIS_STREAMS=10000 cargo test --release -p devenv-promote simulation -- --nocapture`:
//! so many streams where both sides are the same, and a tenth of it for each bad profile.

use std::{env, thread};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;

/// Requests of both sides in a block, which is a second.
const PER_BLOCK: usize = 200;

/// A stream without steps is as long as this.
const BLOCKS: u32 = 180;

fn streams(short: usize) -> usize {
    match env::var("DEVENV_ANALYSIS_STREAMS") {
        Ok(text) => text.parse().expect("DEVENV_ANALYSIS_STREAMS is a number"),
        Err(_) => short,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    LogNormal {
        sigma: f64,
    },
    /// No variance from 1.5 on, hardly a mean.
    Pareto {
        alpha: f64,
    },
    /// One in ten hits the disk.
    Bimodal,
    /// Every request as long as the other.
    Constant,
}

const SHAPES: [Shape; 6] = [
    Shape::LogNormal { sigma: 0.3 },
    Shape::LogNormal { sigma: 0.6 },
    Shape::LogNormal { sigma: 1.0 },
    Shape::Pareto { alpha: 1.5 },
    Shape::Bimodal,
    Shape::Constant,
];

impl Shape {
    /// In milliseconds, and whether it is one of the slowest tenth.
    fn draw(self, rng: &mut SmallRng) -> (f64, bool) {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        match self {
            Shape::LogNormal { sigma } => {
                let z = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                (20.0 * (sigma * z).exp(), z > 1.281_551_6)
            }
            Shape::Pareto { alpha } => (10.0 * (1.0 - u).powf(-1.0 / alpha), u > 0.9),
            Shape::Bimodal if u > 0.9 => (150.0 + 100.0 * v, true),
            Shape::Bimodal => (8.0 + 4.0 * v, false),
            Shape::Constant => (15.0, false),
        }
    }
}

/// What is wrong with the canary.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Profile {
    /// Nothing at all.
    Same,
    /// It is exactly as much worse as is tolerated: the edge of the null hypothesis.
    Edge,
    /// So much of its requests fails.
    Errors(f64),
    /// The slowest tenth takes twice as long, so p95 is twice what it was.
    TailDoubled,
    /// Everything takes twice as long.
    AllDoubled,
    /// From this block on every request fails.
    Crash(u32),
    /// So much of its answers is not kept.
    Unkept(f64),
}

#[derive(Debug, Clone, Copy)]
struct World {
    error_rate: f64,
    shape: Shape,
    /// Every now and then both sides fail more and are slow for some seconds.
    bursts: bool,
    /// Each pod stops for a second now and then, for itself: what the method does not
    /// assume. The canary is one pod, stable twenty.
    pauses: bool,
    /// The canary's share at each step.
    steps: &'static [f64],
    blocks_per_step: u32,
}

/// What ends a step is left out, so that a stream is looked at for as long as it goes.
fn endless(steps: usize) -> Limits {
    Limits {
        steps: steps as u32,
        min_blocks: u32::MAX,
        budget_blocks: u32::MAX,
        ..Limits::default()
    }
}

/// The block of the alarm and its reason, if there was one.
fn run(world: World, profile: Profile, limits: Limits, seed: u64) -> Option<(u32, Reason)> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let tolerated = limits.clone();
    let mut analysis = Analysis::new(limits).unwrap();
    let (mut at, mut burst) = (0, 0);
    for (step, share) in world.steps.iter().enumerate() {
        if step > 0 {
            analysis.next_step();
        }
        for _ in 0..world.blocks_per_step {
            if world.bursts && burst == 0 && rng.random::<f64>() < 0.025 {
                burst = 3 + (rng.random::<f64>() * 4.0) as u32;
            }
            let in_burst = burst > 0;
            burst = burst.saturating_sub(1);
            let block = block(&mut rng, world, profile, *share, at, in_burst, &tolerated);
            at += 1;
            match analysis.observe(&block).unwrap() {
                Decision::Worse(worse) => return Some((at, worse.reason)),
                Decision::Good(_) => return None,
                _ => {}
            }
        }
    }
    None
}

fn block(
    rng: &mut SmallRng,
    world: World,
    profile: Profile,
    share: f64,
    at: u32,
    burst: bool,
    tolerated: &Limits,
) -> Block {
    let mut block = Block::default();
    let (mut canary, mut stable) = (Vec::new(), Vec::new());
    let paused: [bool; 21] =
        std::array::from_fn(|_| world.pauses && rng.random::<f64>() < 1.0 / 60.0);
    let error_rate = if burst {
        world.error_rate * 10.0 + 0.05
    } else {
        world.error_rate
    };
    for _ in 0..PER_BLOCK {
        let is_canary = rng.random::<f64>() < share;
        let (side, latencies) = if is_canary {
            (&mut block.canary, &mut canary)
        } else {
            (&mut block.stable, &mut stable)
        };
        let (mut ms, slowest) = world.shape.draw(rng);
        let (mut failing, mut unkept) = (error_rate, world.error_rate / 4.0);
        if burst {
            ms *= 3.0;
        }
        let pod = if is_canary {
            20
        } else if world.pauses {
            rng.random_range(0..20)
        } else {
            0
        };
        if paused[pod] {
            ms += 500.0;
        }
        if is_canary {
            match profile {
                Profile::Same => {}
                Profile::Edge => {
                    failing += tolerated.error_margin;
                    unkept += tolerated.check_margin;
                    ms = ms * tolerated.slower + tolerated.slower_ms;
                }
                Profile::Errors(rate) => failing = rate,
                Profile::TailDoubled if slowest => ms *= 2.0,
                Profile::TailDoubled => {}
                Profile::AllDoubled => ms *= 2.0,
                Profile::Crash(from) if at >= from => failing = 1.0,
                Profile::Crash(_) => {}
                Profile::Unkept(rate) => unkept = rate,
            }
        }
        side.requests += 1;
        if rng.random::<f64>() < failing {
            side.errors += 1;
            continue;
        }
        side.checks += 1;
        if rng.random::<f64>() < unkept {
            side.checks_failed += 1;
        }
        latencies.push(ms);
    }
    block.canary.latencies = Latencies::Values(canary);
    block.stable.latencies = Latencies::Values(stable);
    block
}

/// Runs on all processors; what is found depends on the index alone.
fn each<T: Send>(count: usize, of: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    thread::scope(|scope| {
        let of = &of;
        let handles: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || (first..count).step_by(threads).map(of).collect::<Vec<_>>())
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().expect("a stream"))
            .collect()
    })
}

/// The exact 95 % interval of a rate (Clopper and Pearson, 1934).
fn interval(hits: usize, of: usize) -> (f64, f64) {
    let mut ln_factorial = vec![0.0; of + 1];
    for n in 1..=of {
        ln_factorial[n] = ln_factorial[n - 1] + (n as f64).ln();
    }
    let at_most = |k: usize, p: f64| -> f64 {
        (0..=k)
            .map(|i| {
                let ln = ln_factorial[of] - ln_factorial[i] - ln_factorial[of - i]
                    + i as f64 * p.ln()
                    + (of - i) as f64 * (1.0 - p).ln();
                ln.exp()
            })
            .sum()
    };
    let find = |reached: &dyn Fn(f64) -> bool| {
        let (mut low, mut high) = (1e-12, 1.0 - 1e-12);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if reached(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    };
    let low = if hits == 0 {
        0.0
    } else {
        find(&|p| 1.0 - at_most(hits - 1, p) >= 0.025)
    };
    let high = if hits == of {
        1.0
    } else {
        find(&|p| at_most(hits, p) <= 0.025)
    };
    (low, high)
}

#[test]
fn the_interval_is_clopper_and_pearsons() {
    // From tables: 0 of 100, 1 of 100, 5 of 100.
    for (hits, low, high) in [(0, 0.0, 0.0362), (1, 0.0003, 0.0545), (5, 0.0164, 0.1128)] {
        let (l, h) = interval(hits, 100);
        assert!(
            (l - low).abs() < 1e-4 && (h - high).abs() < 1e-4,
            "{hits}: {l}..{h}"
        );
    }
}

/// Error rates, latencies, bursts and shares in all combinations.
fn world(index: usize) -> World {
    const RATES: [f64; 5] = [0.0, 0.001, 0.005, 0.01, 0.02];
    const SHARES: [&[f64]; 5] = [&[0.05], &[0.1], &[0.25], &[0.5], &[0.05, 0.25, 0.5, 1.0]];
    let steps = SHARES[index % 5];
    World {
        error_rate: RATES[index / 5 % 5],
        shape: SHAPES[index / 25 % 6],
        bursts: index / 150 % 2 == 1,
        pauses: false,
        steps,
        blocks_per_step: BLOCKS / steps.len() as u32,
    }
}

fn false_alarms(profile: Profile, pauses: bool, count: usize, what: &str) -> (f64, f64) {
    let found = each(count, |index| {
        // Coprime with the number of worlds, so that a few streams see many of them.
        let world = world(index * 7);
        // At 100 % history stands in for stable, and a burst is a change of the world,
        // which that part of the guarantee excludes.
        let bursts = world.bursts && world.steps.last() != Some(&1.0);
        let world = World {
            bursts,
            pauses,
            ..world
        };
        run(
            world,
            profile,
            endless(world.steps.len()),
            1_000 + index as u64,
        )
        .map(|alarm| (world, alarm))
    });
    let alarms: Vec<_> = found.into_iter().flatten().collect();
    let (low, high) = interval(alarms.len(), count);
    println!(
        "{what}: {} false alarms in {count} streams, {:.3} % ({:.3} to {:.3} %)",
        alarms.len(),
        100.0 * alarms.len() as f64 / count as f64,
        100.0 * low,
        100.0 * high
    );
    for (world, (block, reason)) in alarms.iter().take(10) {
        println!("  at {block}: {reason:?} in {world:?}");
    }
    (low, high)
}

#[test]
fn false_alarms_are_as_rare_as_stated() {
    let count = streams(24);
    let (low, high) = false_alarms(Profile::Same, false, count, "A/A");
    assert!(low <= 0.01, "more than 1 %");
    if count >= 1_000 {
        assert!(high <= 0.01, "not shown to be at most 1 %");
    }
}

/// The null hypothesis is all that is tolerated, and its edge is where a test without a
/// guarantee shows.
#[test]
fn what_is_just_tolerated_is_no_alarm_either() {
    let (low, _) = false_alarms(Profile::Edge, false, streams(24), "at the edge");
    assert!(low <= 0.01, "more than 1 %");
}

/// Outside of what is assumed: half a second of silence, of each pod for itself.
#[test]
fn pauses_of_single_pods_are_rarely_alarms() {
    let (low, _) = false_alarms(Profile::Same, true, streams(24), "pauses of pods");
    assert!(low <= 0.01, "more than 1 %");
}

/// What is found, in which world, within how many seconds at a share of 5 %, 10 requests a
/// second of the canary.
const BAD: [(&str, Profile, Shape, u32, &[Metric]); 8] = [
    (
        "5xx at 3 %",
        Profile::Errors(0.03),
        NORMAL,
        65,
        &[Metric::Errors],
    ),
    (
        "201 without commit at 5 %",
        Profile::Unkept(0.05),
        NORMAL,
        32,
        &[Metric::Checks],
    ),
    (
        "crash after 20 s",
        Profile::Crash(20),
        NORMAL,
        27,
        &[Metric::Errors],
    ),
    ("p50 doubled", Profile::AllDoubled, NORMAL, 12, LATENCY),
    ("p50 doubled, wide", Profile::AllDoubled, WIDE, 32, LATENCY),
    (
        "p95 doubled",
        Profile::TailDoubled,
        NORMAL,
        40,
        &[Metric::Tail],
    ),
    (
        "p95 doubled, heavy tail",
        Profile::TailDoubled,
        HEAVY,
        140,
        LATENCY,
    ),
    (
        "p95 doubled, bimodal",
        Profile::TailDoubled,
        Shape::Bimodal,
        24,
        &[Metric::Tail],
    ),
];

const NORMAL: Shape = Shape::LogNormal { sigma: 0.5 };
const WIDE: Shape = Shape::LogNormal { sigma: 1.0 };
const HEAVY: Shape = Shape::Pareto { alpha: 1.5 };
const LATENCY: &[Metric] = &[Metric::Median, Metric::Tail];

#[test]
fn bad_releases_are_found_in_time() {
    let count = streams(200) / 10;
    let mut late = Vec::new();
    for (name, profile, shape, bound, metrics) in BAD {
        let world = World {
            error_rate: 0.001,
            shape,
            bursts: false,
            pauses: false,
            steps: &[0.05],
            blocks_per_step: 3 * bound,
        };
        let found = each(count, |index| {
            // As in a promotion of four steps, in its first one.
            run(world, profile, endless(4), 9_000 + index as u64)
        });
        let mut times: Vec<u32> = found
            .iter()
            .map(|alarm| alarm.as_ref().map_or(u32::MAX, |(block, _)| *block))
            .collect();
        times.sort_unstable();
        let in_time = times.iter().filter(|t| **t <= bound).count();
        let named = found
            .iter()
            .flatten()
            .filter(|(_, reason)| {
                matches!(reason, Reason::Metric { metric, .. } if metrics.contains(metric))
            })
            .count();
        let at = |share: f64| times[((count - 1) as f64 * share) as usize];
        // With the limits as they are, which let a step end.
        let passed = each(count, |index| {
            let limits = Limits::default();
            run(world, profile, limits, 9_000 + index as u64).is_none()
        });
        let passed = passed.iter().filter(|passed| **passed).count();
        println!(
            "{name}: {in_time} of {count} within {bound} s; half within {} s, 95 % within {} s; \
             {named} named rightly, {passed} passed their step",
            at(0.5),
            at(0.95)
        );
        if (in_time as f64) < 0.95 * count as f64 || (named as f64) < 0.95 * count as f64 {
            late.push(name);
        }
    }
    assert!(late.is_empty(), "found too late or named wrongly: {late:?}");
}

/// How long a step takes with a canary that is fine.
#[test]
fn a_good_release_goes_on() {
    let count = streams(100) / 10;
    let times = each(count, |index| {
        let world = World {
            error_rate: 0.001,
            shape: NORMAL,
            bursts: false,
            pauses: false,
            steps: &[0.05],
            blocks_per_step: 0,
        };
        let mut rng = SmallRng::seed_from_u64(70_000 + index as u64);
        let limits = Limits::default();
        let mut analysis = Analysis::new(limits.clone()).unwrap();
        for at in 0.. {
            let block = block(&mut rng, world, Profile::Same, 0.05, at, false, &limits);
            match analysis.observe(&block).unwrap() {
                Decision::Continue { .. } => {}
                Decision::Good(good) => {
                    let shown = matches!(good.evidence, Evidence::Shown { .. });
                    return (at + 1, shown);
                }
                other => panic!("{other:?}"),
            }
        }
        unreachable!("a step has a budget")
    });
    let mut blocks: Vec<u32> = times.iter().map(|(at, _)| *at).collect();
    blocks.sort_unstable();
    let shown = times.iter().filter(|(_, shown)| *shown).count();
    println!(
        "a good canary's first step: half within {} s, all within {} s, {shown} of {count} by evidence",
        blocks[count / 2],
        blocks[count - 1]
    );
    assert!(shown * 2 > count, "the budget decides too often");
}
