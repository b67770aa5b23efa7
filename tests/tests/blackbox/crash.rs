//! SIGKILL under load: what was acknowledged is there, once, and nothing else is.

use devenv_tests::database;
use devenv_tests::inventory::{Inventory, Kind};
use devenv_tests::loader::{Ledger, Loader};
use devenv_tests::project::{Project, kill};
use devenv_tests::{rounds, until};
use std::time::{Duration, Instant};

const WORKERS: usize = 16;
const RECOVERY: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(10);

/// The database engine's process, by `status -o json`.
async fn engine(project: &Project) -> Option<u32> {
    let run = project.run(&["status", "-o", "json"]).await;
    let status: serde_json::Value = serde_json::from_str(&run.stdout).ok()?;
    u32::try_from(status["database"]["pid"].as_u64()?).ok()
}

async fn agree(url: &str, prefix: &str, before: u64, ledger: &Ledger) {
    let found = database::disagreements(url, prefix, before, ledger)
        .await
        .expect("the database can be asked");
    assert!(
        found.is_empty(),
        "{} disagreements, the first of them:\n{}",
        found.len(),
        found[..found.len().min(10)].join("\n")
    );
}

fn tell(round: u32, ledger: &Ledger) {
    println!(
        "round {round}: {} acknowledged, {} not, statuses {:?}, {} without an answer, longest {:.1?}",
        ledger.acknowledged.len(),
        ledger.unanswered.len(),
        ledger.statuses,
        ledger.lost,
        ledger.longest
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn database_killed_under_load_loses_and_doubles_nothing() {
    let project = Project::reference();
    let before = Inventory::take(&project.scope());
    project.up().await;
    let base = project.ingress().await;
    let url = project.url("database").await;
    let mut refused = 0;
    for round in 1..=rounds(5) {
        let rows = database::count(&url)
            .await
            .expect("the database can be asked");
        let prefix = format!("db-{}-{round}", std::process::id());
        let mut loader = Loader::start(&base, &prefix, WORKERS);
        loader.wait_for(100, RECOVERY).await;
        let killed = engine(&project)
            .await
            .expect("`status` names the engine's pid");
        kill(killed);
        let start = Instant::now();
        let back = until(RECOVERY, Duration::from_millis(50), || async {
            engine(&project).await.filter(|pid| *pid != killed)
        });
        assert!(
            back.await.is_some(),
            "no new engine\n{}",
            project.supervisor_log()
        );
        loader.wait_for(100, RECOVERY).await;
        println!(
            "round {round}: 100 more records {:.1?} after the kill",
            start.elapsed()
        );
        let ledger = loader.stop(GRACE).await;
        tell(round, &ledger);
        agree(&url, &prefix, rows, &ledger).await;
        assert!(ledger.unexpected.is_empty(), "{:?}", ledger.unexpected);
        assert_eq!(ledger.without_retry_after, 0, "503 without Retry-After");
        assert_eq!(ledger.lost, 0, "the APIs and the Ingress did not die");
        refused += ledger.statuses.get(&503).copied().unwrap_or(0);
    }
    // 16 clients were at it each time: somebody must have met the outage.
    assert!(refused > 0, "no request was ever answered 503");
    let scope = project.scope_of_all().await;
    project.down(&[]).await;
    let left = before.nothing_left(&scope, Duration::from_secs(5)).await;
    left.unwrap_or_else(|left| panic!("{left}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn devenv_killed_under_load_leaves_nothing_and_goes_on() {
    let project = Project::reference();
    let before = Inventory::take(&project.scope());
    project.up().await;
    for round in 1..=rounds(5) {
        let base = project.ingress().await;
        let url = project.url("database").await;
        let rows = database::count(&url)
            .await
            .expect("the database can be asked");
        let prefix = format!("sv-{}-{round}", std::process::id());
        let mut loader = Loader::start(&base, &prefix, WORKERS);
        loader.wait_for(100, RECOVERY).await;

        let supervisor = project.supervisor().expect("the lock names the supervisor");
        // Nobody is there to tidy the state folder after SIGKILL; `up` does.
        let scope = project.scope_of_all().await.without(Kind::RunFile);
        // Somewhere else in the requests' course each round.
        tokio::time::sleep(Duration::from_millis(u64::from(round * 37 % 100))).await;
        kill(supervisor);
        match before.nothing_left(&scope, Duration::from_secs(5)).await {
            Ok(took) => println!("round {round}: nothing left {took:.0?} after SIGKILL"),
            Err(left) => panic!("round {round}: {left}"),
        }

        let up = project.up().await;
        println!("round {round}: up again in {:.1?}", up.took);
        assert_eq!(
            project.ingress().await,
            base,
            "the address is the project's own"
        );
        loader.wait_for(100, RECOVERY).await;
        let ledger = loader.stop(GRACE).await;
        tell(round, &ledger);
        let url = project.url("database").await;
        agree(&url, &prefix, rows, &ledger).await;
        assert!(ledger.unexpected.is_empty(), "{:?}", ledger.unexpected);
    }
    let scope = project.scope_of_all().await;
    project.down(&[]).await;
    let left = before.nothing_left(&scope, Duration::from_secs(5)).await;
    left.unwrap_or_else(|left| panic!("{left}"));
}
