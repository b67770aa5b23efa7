//! On paused time: nothing here waits for a clock.

use rstest::rstest;

use super::*;

const A: &str = "/p/a";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn inbox() -> Inbox {
    Inbox::new(Options::default())
}

fn touch(kind: Kind) -> Touch {
    Touch {
        kind,
        writing: false,
        at: None,
    }
}

const WRITING: Touch = Touch {
    kind: Kind::Changed,
    writing: true,
    at: None,
};

/// What happens at which millisecond.
async fn play(inbox: &Inbox, events: &[(u64, &str, Touch)]) {
    let start = Instant::now();
    for (at, path, touch) in events {
        tokio::time::sleep_until(start + ms(*at)).await;
        inbox.touch(Path::new(path), &[0], *touch);
        inbox.announce();
    }
}

fn paths(burst: &Burst) -> Vec<&str> {
    let paths = burst.owners.values().flatten();
    paths.map(|p| p.to_str().unwrap()).collect()
}

#[rstest]
// One save: the quiet after it.
#[case(&[(5, A, Kind::Changed, false)], 5, 15)]
// Events that follow closely.
#[case(&[(0, A, Kind::Changed, false), (8, A, Kind::Changed, false), (16, A, Kind::Changed, false)], 0, 26)]
// They are still told of at the maximum.
#[case(&[(0, A, Kind::Changed, false), (9, A, Kind::Changed, false), (18, A, Kind::Changed, false),
    (27, A, Kind::Changed, false), (36, A, Kind::Changed, false), (45, A, Kind::Changed, false),
    (54, A, Kind::Changed, false), (63, A, Kind::Changed, false), (72, A, Kind::Changed, false),
    (81, A, Kind::Changed, false), (90, A, Kind::Changed, false), (99, A, Kind::Changed, false),
    (108, A, Kind::Changed, false)], 0, 100)]
// While a file is being written there may be quiet…
#[case(&[(0, A, Kind::Changed, true), (40, A, Kind::Changed, false)], 0, 50)]
// …but not for ever.
#[case(&[(0, A, Kind::Changed, true)], 0, 100)]
// One that is deleted isn't being written any more.
#[case(&[(0, A, Kind::Changed, true), (3, A, Kind::Gone, false)], 0, 13)]
// A temporary file is nothing, not even the beginning of a burst.
#[case(&[(0, "/p/t", Kind::Born, true), (3, "/p/t", Kind::Gone, false), (6, A, Kind::Changed, false)], 6, 16)]
#[tokio::test(start_paused = true)]
async fn a_burst_is_told_once_it_is_over(
    #[case] events: &[(u64, &str, Kind, bool)],
    #[case] detected: u64,
    #[case] told: u64,
) {
    let inbox = inbox();
    let start = Instant::now();
    let events: Vec<_> = events
        .iter()
        .map(|(at, path, kind, writing)| {
            let touch = Touch {
                writing: *writing,
                ..touch(*kind)
            };
            (*at, *path, touch)
        })
        .collect();
    let (burst, ()) = tokio::join!(
        async {
            let burst = inbox.next().await.unwrap();
            assert_eq!(start.elapsed(), ms(told));
            burst
        },
        play(&inbox, &events)
    );
    assert_eq!(paths(&burst), [A]);
    assert_eq!(burst.detected, start + ms(detected));
    assert!(!burst.rescan);
}

#[tokio::test(start_paused = true)]
async fn what_came_while_nobody_asked_is_told_at_once_and_in_one() {
    let inbox = inbox();
    play(
        &inbox,
        &[(0, A, touch(Kind::Changed)), (500, "/p/b", WRITING)],
    )
    .await;
    let asked = Instant::now();
    let burst = inbox.next().await.unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(paths(&burst), [A, "/p/b"]);
    // And once.
    assert!(tokio::time::timeout(ms(5000), inbox.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_loses_nothing() {
    let inbox = inbox();
    inbox.touch(Path::new(A), &[0], touch(Kind::Changed));
    inbox.announce();
    for _ in 0..9 {
        assert!(tokio::time::timeout(ms(1), inbox.next()).await.is_err());
    }
    let burst = tokio::time::timeout(ms(2), inbox.next()).await.unwrap();
    assert_eq!(paths(&burst.unwrap()), [A]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_there_before_is_told_of_when_it_goes() {
    let inbox = inbox();
    for kinds in [
        [Kind::Gone, Kind::Born, Kind::Gone],
        [Kind::Changed, Kind::Gone, Kind::Gone],
        [Kind::Born, Kind::Gone, Kind::Changed],
    ] {
        for kind in kinds {
            inbox.touch(Path::new(A), &[0], touch(kind));
        }
        assert_eq!(paths(&inbox.next().await.unwrap()), [A], "{kinds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn owners_and_times_are_gathered() {
    let inbox = inbox();
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    for (path, owners, time) in [
        (A, &[1, 2][..], at(10)),
        (A, &[2, 3], None),
        ("/p/b", &[1], at(30)),
        ("/p/c", &[], at(99)),
        ("/p/d", &[4], at(20)),
    ] {
        let touch = Touch {
            at: time,
            ..touch(Kind::Changed)
        };
        inbox.touch(Path::new(path), owners, touch);
    }
    let burst = inbox.next().await.unwrap();
    assert_eq!(burst.saved, at(30));
    let of = |owner: u32| -> Vec<&str> {
        burst.owners[&owner]
            .iter()
            .map(|p| p.to_str().unwrap())
            .collect()
    };
    assert_eq!(of(1), [A, "/p/b"]);
    assert_eq!(of(2), [A]);
    assert_eq!(of(3), [A]);
    assert_eq!(of(4), ["/p/d"]);
    assert_eq!(burst.owners.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_one_burst() {
    let inbox = inbox();
    let storm = async {
        // Four seconds, with pauses that would end an ordinary burst.
        for i in 0..10_000u32 {
            inbox.touch(Path::new(&format!("/p/{i}")), &[0], touch(Kind::Born));
            inbox.announce();
            if i % 100 == 99 {
                tokio::time::sleep(ms(40)).await;
            }
        }
    };
    let (burst, ()) = tokio::join!(inbox.next(), storm);
    assert_eq!(paths(&burst.unwrap()).len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_storm_that_begins_slowly_is_seen_for_what_it_is() {
    let inbox = inbox();
    let storm = async {
        for i in 0..100u32 {
            inbox.touch(Path::new(&format!("/p/{i}")), &[0], touch(Kind::Born));
            inbox.announce();
            tokio::time::sleep(ms(20)).await;
        }
    };
    let told = async {
        let mut told = Vec::new();
        while told.iter().sum::<usize>() < 100 {
            told.push(paths(&inbox.next().await.unwrap()).len());
        }
        told
    };
    let (told, ()) = tokio::join!(told, storm);
    // One by one until it is one, and then the rest.
    let expected: Vec<usize> = (1..STORM).map(|_| 1).chain([100 - STORM + 1]).collect();
    assert_eq!(told, expected);
    // A save afterwards is as quick as ever.
    tokio::time::sleep(STORM_MEMORY).await;
    let start = Instant::now();
    inbox.touch(Path::new(A), &[0], touch(Kind::Changed));
    inbox.announce();
    inbox.next().await.unwrap();
    assert_eq!(start.elapsed(), ms(10));
}

#[tokio::test(start_paused = true)]
async fn a_storm_without_end_is_told_of_all_the_same() {
    let inbox = inbox();
    let start = Instant::now();
    let storm = async {
        loop {
            for i in 0..1000 {
                inbox.touch(Path::new(&format!("/p/{i}")), &[0], touch(Kind::Changed));
            }
            inbox.announce();
            tokio::time::sleep(ms(20)).await;
        }
    };
    tokio::select! {
        burst = inbox.next() => assert_eq!(paths(&burst.unwrap()).len(), 1000),
        () = storm => unreachable!("it has no end"),
    }
    assert_eq!(start.elapsed(), STORM_MAX);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let options = Options {
        max_paths: 100,
        ..Options::default()
    };
    let inbox = Inbox::new(options);
    for i in 0..100_000u32 {
        inbox.touch(Path::new(&format!("/p/{i}")), &[i % 7], touch(Kind::Born));
        assert!(inbox.lock().paths.len() <= 100);
    }
    let burst = inbox.next().await.unwrap();
    assert!(burst.rescan);
    assert_eq!(
        burst.owners.into_keys().collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 6]
    );
    // Afterwards all is as before.
    inbox.touch(Path::new(A), &[0], touch(Kind::Changed));
    let burst = inbox.next().await.unwrap();
    assert!(!burst.rescan);
    assert_eq!(paths(&burst), [A]);
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_told_of_without_a_path() {
    let inbox = inbox();
    inbox.lost();
    inbox.announce();
    let burst = inbox.next().await.unwrap();
    assert!(burst.rescan && burst.owners.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_held_burst_waits_until_it_is_let_go() {
    let inbox = inbox();
    let start = Instant::now();
    inbox.touch(Path::new(A), &[0], touch(Kind::Changed));
    inbox.hold(true);
    let (burst, ()) = tokio::join!(inbox.next(), async {
        tokio::time::sleep(ms(60)).await;
        inbox.hold(false);
        inbox.announce();
    });
    assert_eq!(paths(&burst.unwrap()), [A]);
    assert_eq!(start.elapsed(), ms(60));
}

#[tokio::test(start_paused = true)]
async fn the_last_burst_is_told_before_the_end() {
    let inbox = inbox();
    inbox.touch(Path::new(A), &[0], WRITING);
    inbox.close();
    assert_eq!(paths(&inbox.next().await.unwrap()), [A]);
    assert_eq!(inbox.next().await, None);
    assert_eq!(inbox.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_always_written_to_delays_no_save() {
    let inbox = inbox();
    let log = async {
        loop {
            inbox.touch(Path::new("/p/log"), &[0], touch(Kind::Changed));
            inbox.announce();
            tokio::time::sleep(ms(5)).await;
        }
    };
    let saves = async {
        for i in 0..200u32 {
            let save = format!("/p/{i}");
            let start = Instant::now();
            inbox.touch(Path::new(&save), &[0], touch(Kind::Changed));
            while !paths(&inbox.next().await.unwrap()).contains(&save.as_str()) {}
            assert!(
                start.elapsed() <= ms(100),
                "save {i}: {:?}",
                start.elapsed()
            );
            tokio::time::sleep(ms(50)).await;
        }
    };
    tokio::select! {
        () = log => unreachable!("it has no end"),
        () = saves => {}
    }
}
