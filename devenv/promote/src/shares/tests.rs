use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn percent(text: &str) -> Percent {
    text.parse().unwrap()
}

fn shown(parts: &[Part]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .map(|part| format!("{} {}", part.service, part.weight))
        .collect();
    parts.join(", ")
}

fn half() -> Vec<Part> {
    vec![Part::new("api1", 50), Part::new("api2", 50)]
}

#[rstest]
#[case(Stage::Declared, "api1 50, api2 50")]
#[case(Stage::Attached, "api1 50, api1-canary 0, api2 50")]
#[case(Stage::Shared(percent("10")), "api1 45, api1-canary 5, api2 50")]
// 2.5 is no weight, so all are doubled.
#[case(Stage::Shared(percent("5")), "api1 95, api1-canary 5, api2 100")]
#[case(Stage::Shared(percent("25")), "api1 75, api1-canary 25, api2 100")]
#[case(Stage::Shared(percent("50")), "api1 25, api1-canary 25, api2 50")]
#[case(Stage::Shared(Percent::ALL), "api1 0, api1-canary 50, api2 50")]
fn a_step_takes_its_share_of_the_workloads_own_part(#[case] stage: Stage, #[case] says: &str) {
    let found = weights(
        &half(),
        "api1",
        "api1-canary",
        stage,
        LARGEST_ON_GOOGLE_CLOUD,
    )
    .unwrap();
    assert_eq!(shown(&found), says);
}

/// What would be too large is divided before it is refused.
#[rstest]
#[case("50", "api1 250000, api1-canary 250000, api2 500000", LARGEST)]
#[case("50", "api1 1, api1-canary 1, api2 2", LARGEST_ON_GOOGLE_CLOUD)]
#[case("0.1", "api1 999, api1-canary 1, api2 1000", LARGEST_ON_GOOGLE_CLOUD)]
fn large_weights_are_reduced(#[case] share: &str, #[case] says: &str, #[case] largest: u32) {
    let declared = [Part::new("api1", 500_000), Part::new("api2", 500_000)];
    let stage = Stage::Shared(percent(share));
    let found = weights(&declared, "api1", "api1-canary", stage, largest).unwrap();
    assert_eq!(shown(&found), says);
}

#[rstest]
#[case(
    "api3",
    "x",
    "5",
    "no backend is called api3: the rule has api1, api2, api0"
)]
#[case(
    "api1",
    "api2",
    "5",
    "a backend is called api2 already: remove it, or finish the promotion that it is of"
)]
#[case(
    "api0",
    "x",
    "5",
    "api0 has the weight 0, so its canary would have no request to be judged by: give it a weight, or promote it without steps"
)]
#[case(
    "api1",
    "x",
    "0.01",
    "0.01 % of api1's part would need weights up to 10000, and the largest is 1000: choose a coarser step, or weights with a common divisor"
)]
fn what_cant_be_said_is_an_error(
    #[case] service: &str,
    #[case] canary: &str,
    #[case] share: &str,
    #[case] says: &str,
) {
    let declared = [
        Part::new("api1", 1),
        Part::new("api2", 1),
        Part::new("api0", 0),
    ];
    let stage = Stage::Shared(percent(share));
    let error = weights(&declared, service, canary, stage, LARGEST_ON_GOOGLE_CLOUD).unwrap_err();
    assert_eq!(error.to_string(), says);
}

#[test]
fn stages_begin_and_end_without_a_share() {
    let found = stages(&[percent("25"), percent("5"), percent("25")]);
    assert_eq!(
        found,
        [
            Stage::Attached,
            Stage::Shared(percent("5")),
            Stage::Shared(percent("25")),
            Stage::Shared(Percent::ALL),
            Stage::Attached,
            Stage::Declared
        ]
    );
}

#[rstest]
#[case("5", true)]
#[case("12.5 %", true)]
#[case("0.01%", true)]
#[case("100", true)]
#[case("0", false)]
#[case("100.01", false)]
#[case("0.005", false)]
#[case("-5", false)]
#[case("NaN", false)]
#[case("all", false)]
fn shares_are_percentages_by_hundredths(#[case] text: &str, #[case] is_one: bool) {
    assert_eq!(text.parse::<Percent>().is_ok(), is_one);
}

fn declared_split() -> impl Strategy<Value = (Vec<Part>, usize)> {
    prop::collection::vec(0_u32..=1_000, 1..6).prop_flat_map(|weights| {
        let parts: Vec<Part> = weights
            .iter()
            .enumerate()
            .map(|(n, weight)| Part::new(format!("api{n}"), *weight))
            .collect();
        let len = parts.len();
        (Just(parts), 0..len)
    })
}

proptest! {
    /// Sums, ratios of the others, the step's share and the way back, whatever is declared.
    #[test]
    fn only_the_workloads_own_part_is_divided(
        (declared, at) in declared_split(),
        hundredths in prop::collection::vec(1_u32..=10_000, 0..6),
    ) {
        let service = declared[at].service.clone();
        prop_assume!(declared[at].weight > 0);
        let steps: Vec<Percent> = hundredths
            .iter()
            .map(|h| Percent::try_from(f64::from(*h) / 100.0).unwrap())
            .collect();
        let plan = stages(&steps);
        for (index, stage) in plan.iter().enumerate() {
            let found = match weights(&declared, &service, "canary", *stage, LARGEST) {
                Ok(found) => found,
                Err(ShareError::TooFine { needed, .. }) => {
                    prop_assert!(needed > u64::from(LARGEST));
                    continue;
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            };
            let sum = |parts: &[Part]| parts.iter().map(|p| u128::from(p.weight)).sum::<u128>();
            let of = |parts: &[Part], name: &str| {
                parts.iter().find(|p| p.service == name).map_or(0, |p| u128::from(p.weight))
            };
            prop_assert!(found.iter().all(|part| part.weight <= LARGEST));
            // The others, and the workload with its canary, as fractions of all.
            for part in &declared {
                let mut now = of(&found, &part.service);
                if part.service == service {
                    now += of(&found, "canary");
                }
                prop_assert_eq!(now * sum(&declared), u128::from(part.weight) * sum(&found));
            }
            match stage {
                Stage::Declared => prop_assert_eq!(&found, &declared),
                Stage::Attached => {
                    prop_assert_eq!(of(&found, "canary"), 0);
                    let mut without = found.clone();
                    without.retain(|part| part.service != "canary");
                    prop_assert_eq!(&without, &declared);
                }
                Stage::Shared(share) => {
                    let own = of(&found, &service) + of(&found, "canary");
                    prop_assert_eq!(
                        of(&found, "canary") * u128::from(ALL),
                        own * u128::from(share.0)
                    );
                    if *share == Percent::ALL {
                        prop_assert_eq!(of(&found, &service), 0);
                        prop_assert_eq!(index, plan.len() - 3);
                    }
                }
            }
        }
        prop_assert_eq!(plan.first(), Some(&Stage::Attached));
        prop_assert_eq!(plan.last(), Some(&Stage::Declared));
    }

    /// Stable is never touched, there is always a canary, and more pods come nearer.
    #[test]
    fn pods_keep_stable_and_have_a_canary(declared in 0_u32..30, hundredths in 1_u32..10_000, most in 0_u32..60) {
        let wanted = Percent::try_from(f64::from(hundredths) / 100.0).unwrap();
        let found = pods(declared, wanted, most).unwrap();
        prop_assert!(found.stable >= declared.max(1));
        prop_assert!(found.canary >= 1);
        prop_assert!(found.stable + found.canary <= most.max(declared.max(1) + 1));
        let more = pods(declared, wanted, most + 10).unwrap();
        let off = |pods: &Pods| (pods.share() - wanted.fraction()).abs();
        prop_assert!(off(&more) <= off(&found) + 1e-9);
    }
}

#[rstest]
#[case(
    2,
    "50",
    4,
    "2 pods of the new version beside 2 of the old behind one Service: about 50 % of its requests, where 50 % was asked for"
)]
#[case(
    2,
    "5",
    4,
    "1 pods of the new version beside 3 of the old behind one Service: about 25 % of its requests, where 5 % was asked for; for that, 19 pods of the old version would be needed, or a Gateway"
)]
#[case(
    2,
    "5",
    30,
    "1 pods of the new version beside 19 of the old behind one Service: about 5 % of its requests, where 5 % was asked for"
)]
fn pods_say_what_they_come_to(
    #[case] declared: u32,
    #[case] wanted: &str,
    #[case] most: u32,
    #[case] says: &str,
) {
    assert_eq!(
        pods(declared, percent(wanted), most).unwrap().to_string(),
        says
    );
}

#[test]
fn all_of_it_is_no_matter_of_pods() {
    assert_eq!(pods(2, Percent::ALL, 10), None);
}

fn route() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "telemetry" },
        "spec": { "rules": [
            {
                "matches": [{ "path": { "value": "/api" } }],
                "backendRefs": [
                    { "name": "api1-service", "port": 5000, "weight": 50 },
                    { "name": "api2-service", "port": 3000, "weight": 50 },
                ],
            },
            { "backendRefs": [{ "name": "api3-service", "port": 8080 }] },
            { "filters": [{ "type": "RequestRedirect" }] },
            {
                "backendRefs": [
                    { "name": "api1-service", "port": 5000, "weight": 0 },
                    { "name": "api2-service", "port": 3000, "weight": 1 },
                ],
            },
        ]},
    })
}

fn moving() -> Moving<'static> {
    Moving {
        service: "api1-service",
        canary: "api1-canary",
        largest: LARGEST_ON_GOOGLE_CLOUD,
    }
}

#[test]
fn a_route_is_changed_where_the_workload_has_traffic_and_nowhere_else() {
    let found = route_at(&route(), &moving(), Stage::Shared(percent("10"))).unwrap();
    assert_eq!(
        found["spec"]["rules"][0]["backendRefs"],
        json!([
            { "name": "api1-service", "port": 5000, "weight": 45 },
            { "name": "api1-canary", "port": 5000, "weight": 5 },
            { "name": "api2-service", "port": 3000, "weight": 50 },
        ])
    );
    for rule in 1..4 {
        assert_eq!(found["spec"]["rules"][rule], route()["spec"]["rules"][rule]);
    }
    assert_eq!(
        route_at(&route(), &moving(), Stage::Declared).unwrap(),
        route()
    );
}

/// The default weight is 1, and a lone backend is split as well.
#[test]
fn a_backend_without_a_weight_has_one() {
    let moving = Moving {
        service: "api3-service",
        canary: "api3-canary",
        largest: LARGEST,
    };
    let found = route_at(&route(), &moving, Stage::Shared(percent("5"))).unwrap();
    assert_eq!(
        found["spec"]["rules"][1]["backendRefs"],
        json!([
            { "name": "api3-service", "port": 8080, "weight": 19 },
            { "name": "api3-canary", "port": 8080, "weight": 1 },
        ])
    );
}

#[rstest]
#[case(json!({ "kind": "Ingress", "metadata": { "name": "x" } }), "HTTPRoute x: is of another kind")]
#[case(json!({ "kind": "HTTPRoute" }), "HTTPRoute : has no rules")]
#[case(
    json!({ "kind": "HTTPRoute", "spec": { "rules": [{ "backendRefs": [{ "name": "a", "weight": "5" }] }] } }),
    "HTTPRoute : has a weight that is no number from 0 to 1000000"
)]
fn what_is_no_route_is_said(#[case] object: Value, #[case] says: &str) {
    let error = route_at(&object, &moving(), Stage::Attached).unwrap_err();
    assert_eq!(error.to_string(), says);
}
