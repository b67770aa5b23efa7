//! The state machine, block by block.

use std::mem;

use rstest::rstest;

use super::*;

fn side(requests: u64, errors: u64) -> Side {
    Side {
        requests,
        errors,
        ..Side::default()
    }
}

fn block(canary: Side, stable: Side) -> Block {
    Block {
        canary,
        stable,
        health: None,
    }
}

fn analysis() -> Analysis {
    Analysis::new(Limits::default()).unwrap()
}

/// The last decision of so many equal blocks, and after how many it came.
fn feed(analysis: &mut Analysis, block: &Block, times: u32) -> (u32, Decision) {
    for at in 1..=times {
        let decision = analysis.observe(block).unwrap();
        if !matches!(decision, Decision::Continue { .. }) {
            return (at, decision);
        }
    }
    (times, analysis.decision())
}

#[test]
fn nothing_seen_is_nothing_known() {
    let decision = analysis().decision();
    assert_eq!(
        decision,
        Decision::Continue {
            wealth: 1.0,
            alarm: 100.0
        }
    );
}

#[test]
fn an_outage_of_both_sides_is_evidence_against_neither() {
    let mut analysis = analysis();
    feed(&mut analysis, &block(side(10, 0), side(190, 0)), 15);
    let (_, decision) = feed(&mut analysis, &block(side(10, 10), side(190, 190)), 60);
    assert!(
        matches!(decision, Decision::Continue { .. }),
        "{decision:?}"
    );
    assert!(analysis.wealth() < 2.0);
}

#[test]
fn errors_of_the_canary_alone_are_named_with_both_sides_numbers() {
    let mut analysis = analysis();
    feed(&mut analysis, &block(side(10, 0), side(190, 0)), 10);
    let (_, decision) = feed(&mut analysis, &block(side(10, 5), side(190, 0)), 60);
    let Decision::Worse(worse) = decision else {
        panic!("{decision:?}");
    };
    let text = worse.to_string();
    assert!(text.starts_with("requests fail: "), "{text}");
    assert!(text.ends_with("where 0.2 % more is tolerated"), "{text}");
}

#[test]
fn no_single_second_condemns() {
    let mut analysis = analysis();
    feed(&mut analysis, &block(side(100, 0), side(100, 0)), 10);
    let (_, decision) = feed(&mut analysis, &block(side(100, 100), side(100, 0)), 1);
    assert!(
        matches!(decision, Decision::Continue { .. }),
        "{decision:?}"
    );
}

fn healthy(restarts: u32, ready: u32) -> Block {
    Block {
        health: Some(Health {
            restarts,
            wanted: 2,
            ready,
        }),
        ..block(side(10, 0), side(190, 0))
    }
}

#[test]
fn a_restart_is_worse_at_once() {
    let mut analysis = analysis();
    let decision = analysis.observe(&healthy(1, 2)).unwrap();
    let Decision::Worse(worse) = &decision else {
        panic!("{decision:?}");
    };
    assert_eq!(
        worse.reason,
        Reason::Restarts {
            restarts: 1,
            tolerated: 0
        }
    );
    // And stays it, whatever comes.
    analysis.next_step();
    assert_eq!(analysis.observe(&healthy(0, 2)).unwrap(), decision);
}

#[rstest]
#[case(&[2, 1, 1, 1, 2, 1, 1, 1], None)]
#[case(&[1, 1, 1, 0], Some("0 of 2 replicas for 4 looks"))]
fn readiness_may_be_lost_for_a_moment(#[case] ready: &[u32], #[case] found: Option<&str>) {
    let mut analysis = analysis();
    let mut last = analysis.decision();
    for ready in ready {
        last = analysis.observe(&healthy(0, *ready)).unwrap();
    }
    match (last, found) {
        (Decision::Worse(worse), Some(text)) => {
            assert!(worse.to_string().contains(text), "{worse}");
        }
        (Decision::Continue { .. }, None) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_step_is_good_once_much_worse_is_excluded() {
    let mut analysis = analysis();
    let (blocks, decision) = feed(&mut analysis, &block(side(100, 0), side(100, 0)), 200);
    assert!(matches!(
        decision,
        Decision::Good(Good {
            evidence: Evidence::Shown { .. },
            ..
        })
    ));
    assert_eq!(blocks, 20, "not before a step's least blocks");
}

#[test]
fn a_step_with_little_evidence_is_good_when_its_budget_is_used_up() {
    let mut analysis = analysis();
    let (blocks, decision) = feed(&mut analysis, &block(side(1, 0), side(19, 0)), 200);
    assert_eq!(blocks, 120);
    assert!(matches!(
        decision,
        Decision::Good(Good {
            evidence: Evidence::BudgetUsed { blocks: 120 },
            ..
        })
    ));
}

#[test]
fn no_traffic_is_not_good() {
    let mut analysis = analysis();
    let (blocks, decision) = feed(&mut analysis, &block(side(0, 0), side(200, 0)), 200);
    assert_eq!(blocks, 120);
    assert_eq!(
        decision,
        Decision::TooFew {
            requests: 0,
            needed: 100,
            blocks: 120
        }
    );
}

#[test]
fn evidence_goes_on_over_steps_and_numbers_begin_anew() {
    let mut analysis = Analysis::new(Limits {
        min_blocks: 10_000,
        budget_blocks: 10_000,
        ..Limits::default()
    })
    .unwrap();
    feed(&mut analysis, &block(side(10, 0), side(190, 0)), 10);
    feed(&mut analysis, &block(side(10, 1), side(190, 0)), 4);
    let wealth = analysis.wealth();
    assert!(wealth > 2.0, "{wealth}");
    analysis.next_step();
    assert_eq!(analysis.wealth(), wealth);
    assert_eq!(analysis.numbers().canary, Count::default());
}

/// At 100 % there is no stable to compare with.
#[test]
fn without_stable_its_rates_so_far_are_what_is_compared_with() {
    let mut analysis = analysis();
    feed(&mut analysis, &block(side(100, 0), side(100, 0)), 200);
    analysis.next_step();
    let (at, decision) = feed(&mut analysis, &block(side(200, 20), side(0, 0)), 30);
    assert!(matches!(decision, Decision::Worse(_)), "{decision:?}");
    assert!(at < 10, "{at}");
}

#[test]
fn what_is_remembered_survives_being_written_down() {
    let mut analysis = analysis();
    let mut block = block(side(10, 1), side(190, 1));
    block.canary.latencies = Latencies::Values(vec![5.0; 9]);
    block.stable.latencies = Latencies::Values((0..189).map(f64::from).collect());
    feed(&mut analysis, &block, 5);
    let text = serde_json::to_string(&analysis).unwrap();
    let mut again: Analysis = serde_json::from_str(&text).unwrap();
    // Numbers lose their last digit in JSON.
    for _ in 0..3 {
        let (wealth, other) = (analysis.wealth(), again.wealth());
        assert!((wealth / other - 1.0).abs() < 1e-9, "{wealth} {other}");
        let of = |analysis: &mut Analysis| analysis.observe(&block).map(|d| mem::discriminant(&d));
        assert_eq!(of(&mut again), of(&mut analysis));
    }
    assert!(
        text.len() < 16_384,
        "fits an annotation's half: {}",
        text.len()
    );
}

#[rstest]
#[case(
    side(1, 2),
    "canary: 2 of 1 requests failed, which can't be: check what counts them"
)]
#[case(
    Side { latencies: Latencies::Values(vec![f64::NAN]), ..Side::default() },
    "canary: a latency of NaN ms, expected a number from 0 on"
)]
#[case(
    Side { latencies: Latencies::Histogram { bounds: vec![2.0, 1.0], counts: vec![0; 3] }, ..Side::default() },
    "canary: a histogram of 3 counts for 2 bounds, expected ascending bounds and one count more"
)]
fn a_block_that_cant_be_is_refused_and_changes_nothing(#[case] canary: Side, #[case] says: &str) {
    let mut analysis = analysis();
    let before = analysis.clone();
    let error = analysis
        .observe(&block(canary, Side::default()))
        .unwrap_err();
    assert_eq!(error.to_string(), says);
    assert_eq!(analysis, before);
}

#[rstest]
#[case(Limits { false_alarms: 0.0, ..Limits::default() }, "analysis: false-alarms is 0, expected between 0 and 1")]
#[case(Limits { slower: 0.5, ..Limits::default() }, "analysis: slower is 0.5, expected from 1 to 1000")]
#[case(Limits { steps: 0, ..Limits::default() }, "analysis: steps is 0, expected 1 or more")]
fn limits_that_nothing_meets_are_refused(#[case] limits: Limits, #[case] says: &str) {
    assert_eq!(Analysis::new(limits).unwrap_err().to_string(), says);
}

/// A histogram says less than values do, never more.
#[rstest]
#[case(15.0, 3, 7)]
#[case(20.0, 3, 3)]
#[case(25.0, 0, 3)]
fn histograms_count_on_the_canarys_side(
    #[case] ms: f64,
    #[case] surely: u64,
    #[case] possibly: u64,
) {
    let latencies = Latencies::Histogram {
        bounds: vec![10.0, 20.0],
        counts: vec![5, 4, 3],
    };
    assert_eq!(latencies.surely_above(ms), surely);
    assert_eq!(latencies.possibly_above(ms), possibly);
}

/// Doubled latency is found in histograms as well, where bounds are near enough.
#[test]
fn a_slow_canary_is_found_in_histograms() {
    let bounds: Vec<f64> = (1..=40).map(|n| 5.0 * f64::from(n)).collect();
    let around = |ms: f64, requests: u64| {
        let mut counts = vec![0; bounds.len() + 1];
        for k in 0..requests {
            let value = ms * (0.7 + 0.6 * k as f64 / requests as f64);
            let bucket = bounds.iter().position(|bound| value <= *bound).unwrap();
            counts[bucket] += 1;
        }
        Side {
            latencies: Latencies::Histogram {
                bounds: bounds.clone(),
                counts,
            },
            ..side(requests, 0)
        }
    };
    let mut slow = analysis();
    let (_, decision) = feed(&mut slow, &block(around(80.0, 10), around(40.0, 190)), 60);
    let Decision::Worse(worse) = decision else {
        panic!("{decision:?}");
    };
    assert!(
        worse.to_string().starts_with("requests are slow: p"),
        "{worse}"
    );
    let mut same = analysis();
    let (_, decision) = feed(&mut same, &block(around(40.0, 10), around(40.0, 190)), 119);
    assert!(!matches!(decision, Decision::Worse(_)), "{decision:?}");
}

/// Not enough for an alarm, and too much to go on.
#[test]
fn suspicion_makes_a_step_longer() {
    let mut analysis = Analysis::new(Limits {
        budget_blocks: 20,
        ..Limits::default()
    })
    .unwrap();
    feed(&mut analysis, &block(side(10, 0), side(190, 0)), 16);
    feed(&mut analysis, &block(side(10, 1), side(190, 0)), 4);
    assert!(analysis.wealth() > 10.0 && analysis.wealth() < 100.0);
    let decision = analysis.decision();
    assert!(
        matches!(decision, Decision::Continue { .. }),
        "{decision:?}"
    );
    let (more, decision) = feed(&mut analysis, &block(side(10, 0), side(190, 0)), 100);
    assert!(matches!(decision, Decision::Good(_)), "{decision:?}");
    assert!(more > 1 && more <= 20, "{more}");
}

#[test]
fn workloads_in_turn_share_the_rate_of_false_alarms() {
    let limits = Limits::default().shared_by(2);
    assert_eq!(Analysis::new(limits).unwrap().alarm(), 200.0);
}

/// Who pauses after a good step still wants to know.
#[test]
fn a_good_step_can_become_worse_and_never_back() {
    let mut analysis = analysis();
    let fine = block(side(100, 0), side(100, 0));
    feed(&mut analysis, &fine, 200);
    assert!(matches!(analysis.decision(), Decision::Good(_)));
    assert!(matches!(
        analysis.observe(&fine).unwrap(),
        Decision::Good(_)
    ));
    for _ in 0..10 {
        analysis
            .observe(&block(side(100, 50), side(100, 0)))
            .unwrap();
    }
    assert!(matches!(analysis.decision(), Decision::Worse(_)));
    assert!(matches!(
        analysis.observe(&fine).unwrap(),
        Decision::Worse(_)
    ));
}

/// Probes that come late are better than none.
#[test]
fn too_few_requests_may_become_enough() {
    let mut analysis = analysis();
    feed(&mut analysis, &block(side(0, 0), side(200, 0)), 120);
    assert!(matches!(analysis.decision(), Decision::TooFew { .. }));
    let decision = analysis
        .observe(&block(side(100, 0), side(100, 0)))
        .unwrap();
    assert!(matches!(decision, Decision::Good(_)), "{decision:?}");
}
