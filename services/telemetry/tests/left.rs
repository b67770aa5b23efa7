//! Nothing is left of the tests' databases, even when the tests are killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection, MySqlConnection};
use telemetry::testing::{Choice, TestDatabase};

/// Set where the test is to have its databases until it is killed.
const HOLD: &str = "DEVENV_TEST_HOLD_DATABASES";

#[tokio::test]
async fn a_killed_process_leaves_no_database() {
    let Some(choice) = Choice::made() else {
        return;
    };
    if std::env::var_os(HOLD).is_some() {
        let shared = TestDatabase::start().await.expect("there is a server");
        let own = TestDatabase::alone().await.expect("there is a server");
        println!("\n{}\n{}", shared.url(), own.url());
        std::future::pending::<()>().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = format!("left-{}", std::process::id());
    let mut holder = Holder(
        Command::new(std::env::current_exe().unwrap())
            .args([
                "a_killed_process_leaves_no_database",
                "--exact",
                "--nocapture",
            ])
            .env(HOLD, "")
            .env("DEVENV_TEST_RUN", &run)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let said = BufReader::new(holder.0.stdout.take().unwrap()).lines();
    let urls: Vec<String> = said
        .map_while(Result::ok)
        .filter(|line| line.starts_with("mysql://"))
        .take(2)
        .collect();
    assert_eq!(urls.len(), 2, "it has its databases");
    for url in &urls {
        MySqlConnection::connect(url).await.unwrap();
    }
    let things = || match choice {
        Choice::Container => containers(&run),
        Choice::Local => folder.path().read_dir().unwrap().count(),
    };
    assert_eq!(things(), 2);

    holder.0.kill().unwrap();
    holder.0.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while things() > 0 {
        assert!(Instant::now() < deadline, "{} are left", things());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for url in &urls {
        assert!(MySqlConnection::connect(url).await.is_err(), "{url}");
    }
}

/// Does not outlive a test that fails.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn containers(run: &str) -> usize {
    let label = format!("label=dev.devenv.test.run={run}");
    let output = Command::new("docker")
        .args(["ps", "--all", "--quiet", "--filter", &label])
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).lines().count()
}
