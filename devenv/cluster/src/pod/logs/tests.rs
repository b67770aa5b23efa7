use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::super::fake::FakeMeter;
use super::super::runtime::Started;
use super::*;

struct Rig {
    logs: LogStore,
    uid: String,
    _dir: tempfile::TempDir,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::in_memory();
    let pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c"}]}});
    let uid = store
        .create(&kinds::POD, pod)
        .expect("created")
        .uid()
        .to_owned();
    let logs = LogStore::new(dir.path().join("logs"), store).expect("made");
    Rig {
        logs,
        uid,
        _dir: dir,
    }
}

impl Rig {
    fn run(&self, n: u64) -> (DuplexStream, DuplexStream) {
        let (out, stdout) = tokio::io::duplex(1 << 16);
        let (err, stderr) = tokio::io::duplex(1 << 16);
        let started = Started {
            pid: 1,
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            warnings: Vec::new(),
            meter: std::sync::Arc::new(FakeMeter),
        };
        self.logs.begin(&self.uid, "c", n, started).expect("begun");
        (out, err)
    }

    async fn ended(&self) {
        let mut progress_rx = self.logs.lock()[&(self.uid.clone(), "c".to_owned())]
            .current
            .clone()
            .expect("a run")
            .progress_rx;
        progress_rx.wait_for(|p| p.ended).await.expect("ends");
    }

    async fn read(&self, query: LogQuery) -> String {
        let stream = self.logs.logs("default", "p", query).await.expect("a log");
        let chunks: Vec<Bytes> = stream.collect().await;
        String::from_utf8(chunks.concat()).expect("text")
    }
}

#[tokio::test]
async fn lines_tail_limit_and_timestamps() {
    let rig = rig();
    let (mut out, err) = rig.run(0);
    drop(err);
    out.write_all(b"one\ntwo\nthree").await.expect("written");
    drop(out);
    rig.ended().await;
    let query = LogQuery::default();
    assert_eq!(rig.read(query.clone()).await, "one\ntwo\nthree\n");
    assert_eq!(
        rig.read(LogQuery {
            tail_lines: Some(2),
            ..query.clone()
        })
        .await,
        "two\nthree\n"
    );
    assert_eq!(
        rig.read(LogQuery {
            tail_lines: Some(0),
            ..query.clone()
        })
        .await,
        ""
    );
    assert_eq!(
        rig.read(LogQuery {
            limit_bytes: Some(5),
            ..query.clone()
        })
        .await,
        "one\nt"
    );
    assert_eq!(
        rig.read(LogQuery {
            since: Some(Timestamp::MAX),
            ..query.clone()
        })
        .await,
        ""
    );
    let stamped = rig
        .read(LogQuery {
            timestamps: true,
            tail_lines: Some(1),
            ..query
        })
        .await;
    let (time, text) = stamped.split_once(' ').expect("two parts");
    assert_eq!(
        (text, time.len()),
        ("three\n", "2026-01-01T00:00:00.000000000Z".len())
    );
    time.parse::<Timestamp>().expect("RFC 3339");
}

#[tokio::test]
async fn long_lines_come_back_whole() {
    let rig = rig();
    let (mut out, err) = rig.run(0);
    drop(err);
    let long = "x".repeat(100_000);
    out.write_all(format!("{long}\nend\n").as_bytes())
        .await
        .expect("written");
    drop(out);
    rig.ended().await;
    assert_eq!(
        rig.read(LogQuery::default()).await,
        format!("{long}\nend\n")
    );
    assert_eq!(
        rig.read(LogQuery {
            tail_lines: Some(2),
            ..LogQuery::default()
        })
        .await,
        format!("{long}\nend\n")
    );
}

#[tokio::test]
async fn following_sees_what_comes_and_ends_with_the_container() {
    let rig = rig();
    let (mut out, err) = rig.run(0);
    let mut stream = rig
        .logs
        .logs(
            "default",
            "p",
            LogQuery {
                follow: true,
                ..LogQuery::default()
            },
        )
        .await
        .expect("a log");
    for n in 0..3 {
        out.write_all(format!("line {n}\n").as_bytes())
            .await
            .expect("written");
        assert_eq!(stream.next().await.expect("more"), format!("line {n}\n"));
    }
    drop((out, err));
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_chatty_container_is_bounded_and_followed_across_the_rotation() {
    let rig = rig();
    let (mut out, err) = rig.run(0);
    drop(err);
    let stream = rig
        .logs
        .logs(
            "default",
            "p",
            LogQuery {
                follow: true,
                ..LogQuery::default()
            },
        )
        .await
        .expect("a log");
    let line = format!("{}\n", "y".repeat(999));
    let writer = tokio::spawn(async move {
        for _ in 0..12_000 {
            out.write_all(line.as_bytes()).await.expect("written");
        }
    });
    let followed: usize = stream
        .map(|c| c.len())
        .fold(0, |a, b| async move { a + b })
        .await;
    writer.await.expect("done");
    assert_eq!(
        followed, 12_000_000,
        "one rotation loses nothing for who follows"
    );
    let bytes: u64 = std::fs::read_dir(rig.logs.dir.join(&rig.uid))
        .expect("there")
        .map(|f| f.expect("readable").metadata().expect("there").len())
        .sum();
    assert!(bytes <= 2 * ROTATE_AT, "{bytes}");
    let all = rig.read(LogQuery::default()).await;
    assert!(
        all.len() > 8_000_000 && all.len() % 1000 == 0,
        "{}",
        all.len()
    );
}

#[tokio::test]
async fn previous_is_the_run_before_and_older_ones_go() {
    let rig = rig();
    let previous = LogQuery {
        previous: true,
        ..LogQuery::default()
    };
    for n in 0..3 {
        let (mut out, err) = rig.run(n);
        drop(err);
        if n == 0 {
            let error = rig
                .logs
                .logs("default", "p", previous.clone())
                .await
                .err()
                .expect("none yet");
            assert_eq!(
                error.to_string(),
                r#"previous terminated container "c" in pod "p" not found"#
            );
        }
        out.write_all(format!("run {n}\n").as_bytes())
            .await
            .expect("written");
        drop(out);
        rig.ended().await;
    }
    assert_eq!(rig.read(LogQuery::default()).await, "run 2\n");
    assert_eq!(rig.read(previous).await, "run 1\n");
    let files = std::fs::read_dir(rig.logs.dir.join(&rig.uid))
        .expect("there")
        .count();
    assert_eq!(files, 2);
    rig.logs.forget(&rig.uid);
    assert!(!rig.logs.dir.join(&rig.uid).exists());
}

#[tokio::test]
async fn who_asks_wrongly_is_told() {
    let rig = rig();
    let asked = |c: Option<&str>| LogQuery {
        container: c.map(str::to_owned),
        ..LogQuery::default()
    };
    for (query, message) in [
        (asked(Some("zz")), "container zz is not valid for pod p"),
        (
            asked(None),
            r#"container "c" in pod "p" is waiting to start: ContainerCreating"#,
        ),
    ] {
        let error = rig
            .logs
            .logs("default", "p", query)
            .await
            .err()
            .expect("an error");
        assert_eq!(error.to_string(), message);
    }
}

use jiff::Timestamp;
