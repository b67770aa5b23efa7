//! Which of the two services a request reaches.

use std::time::Duration;

use devenv_ingress::ServiceStats;
use rstest::rstest;

use crate::support::*;

/// 32 clients, 10,000 POSTs with a preflight before each: both APIs take
/// exactly half of the POSTs, and the preflights count for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_posts_from_32_clients_split_exactly() {
    let (one, two) = (Backend::named("one").await, Backend::named("two").await);
    let running = start(routes(
        (&[one.addr], &[]),
        Some((&[two.addr], &[("canary-weight", "50")])),
    ));
    let clients: Vec<_> = (0..32)
        .map(|n| {
            let addr = running.addr;
            // 16 × 312 + 16 × 313 = 10,000.
            let posts = 312 + n % 2;
            tokio::spawn(async move {
                let mut client = Client::connect(addr).await;
                let mut second = 0;
                for _ in 0..posts {
                    let (status, _) = client.send(request("OPTIONS", &[], "")).await;
                    assert_eq!(status, 200);
                    let (status, body) = client.send(post("{}")).await;
                    assert_eq!(status, 200);
                    second += u32::from(body == "two");
                }
                second
            })
        })
        .collect();
    let mut second = 0;
    for client in clients {
        let got = client.await.unwrap();
        assert!(got > 0, "a client that alternates sees both");
        second += got;
    }
    assert_eq!(second, 5_000);
    assert_eq!(one.hits() + two.hits(), 20_000);
    assert_eq!(one.hits(), two.hits());

    let stats = running.proxy.stats();
    assert_eq!(
        stats.services,
        ["canary", "main"].map(|service| ServiceStats {
            namespace: "n".into(),
            service: service.into(),
            by_class: [0, 10_000, 0, 0, 0],
            in_flight: 0,
            held: 0,
            waiting: 0,
        })
    );
}

#[rstest]
#[case::weight_zero(&[("canary-weight", "0")], &[], "one")]
#[case::weight_all(&[("canary-weight", "100")], &[], "two")]
#[case::total(&[("canary-weight", "200"), ("canary-weight-total", "200")], &[], "two")]
#[case::header_always(&[("canary-by-header", "X-C"), ("canary-weight", "0")], &[("x-c", "always")], "two")]
#[case::header_never(&[("canary-by-header", "X-C"), ("canary-weight", "100")], &[("x-c", "never")], "one")]
#[case::header_value(&[("canary-by-header", "X-C"), ("canary-by-header-value", "v")], &[("x-c", "v")], "two")]
#[case::header_pattern(&[("canary-by-header", "X-C"), ("canary-by-header-pattern", "^a.c$")], &[("x-c", "abc")], "two")]
#[case::header_before_cookie(&[("canary-by-header", "X-C"), ("canary-by-cookie", "c")], &[("x-c", "never"), ("cookie", "c=always")], "one")]
#[case::cookie_before_weight(&[("canary-by-cookie", "c"), ("canary-weight", "100")], &[("cookie", "c=never")], "one")]
#[tokio::test]
async fn header_before_cookie_before_weight(
    #[case] canary: &[(&str, &str)],
    #[case] headers: &[(&str, &str)],
    #[case] expected: &str,
) {
    let (one, two) = (Backend::named("one").await, Backend::named("two").await);
    let running = start(routes((&[one.addr], &[]), Some((&[two.addr], canary))));
    let mut client = Client::connect(running.addr).await;
    for _ in 0..4 {
        let answer = client.send(request("GET", headers, "")).await;
        assert_eq!(answer, (200, expected.to_owned()));
    }
}

#[tokio::test]
async fn a_canary_without_endpoints_loses_nothing_and_a_dead_one_is_502() {
    let one = Backend::named("one").await;
    let always: &[(&str, &str)] = &[("canary-weight", "100")];
    let running = start(routes((&[one.addr], &[]), Some((&[], always))));
    assert_eq!(once(running.addr, post("{}")).await.1, "one");
    // The pick is kept: no falling back to main.
    let table = routes((&[one.addr], &[]), Some((&[refused()], always)));
    running.proxy.publish(table);
    assert_eq!(once(running.addr, post("{}")).await.0, 502);
    // Main without endpoints is 503 even though the canary could serve.
    running
        .proxy
        .publish(routes((&[], &[]), Some((&[one.addr], always))));
    assert_eq!(once(running.addr, post("{}")).await.0, 503);
    assert_eq!(one.hits(), 1);
}

/// The share stays exact while endpoints come and go.
#[tokio::test]
async fn the_split_is_exact_across_tables() {
    let (one, two) = (Backend::named("one").await, Backend::named("two").await);
    let spare = Backend::named("one").await;
    let weight: &[(&str, &str)] = &[("canary-weight", "30")];
    let table = |n: usize| {
        let main = [one.addr, spare.addr];
        routes((&main[n % 2..], &[]), Some((&[two.addr], weight)))
    };
    let running = start(table(0));
    let mut client = Client::connect(running.addr).await;
    for n in 0..200 {
        client.send(post("{}")).await;
        running.proxy.publish(table(n));
    }
    assert_eq!(two.hits(), 60);
    running.proxy.drain(Duration::from_secs(5)).await;
}
