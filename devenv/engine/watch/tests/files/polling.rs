//! Where the kernel doesn't tell.

use super::*;
use devenv_watch::Mode;

fn polling() -> Options {
    Options {
        poll: Duration::from_millis(10),
        always_poll: true,
        ..options()
    }
}

#[tokio::test]
async fn polling_finds_what_events_tell() {
    let prepare = |dir: &Path| {
        fs::create_dir_all(dir.join("src")).unwrap();
        fs::write(dir.join("src/a"), "1").unwrap();
        fs::write(dir.join("Cargo.toml"), "1").unwrap();
    };
    let inputs = vec![input("src", "src"), input("manifest", "Cargo.toml")];
    let mut watched = Watched::new(prepare, inputs, polling()).await;
    let Mode::Polling { why } = watched.watcher.mode() else {
        panic!("it polls");
    };
    assert_eq!(why, "polling was asked for");
    for round in 1..20 {
        watched.write("src/a", &"x".repeat(round + 1));
        until(&mut watched, "src", "src/a").await;
        watched.write("Cargo.toml", &"x".repeat(round + 1));
        until(&mut watched, "manifest", "Cargo.toml").await;
        fs::create_dir_all(watched.path("src/new/deep")).unwrap();
        watched.write("src/new/deep/f", "1");
        until(&mut watched, "src", "src/new/deep/f").await;
        watched.write("src/new/deep/f", "22");
        until(&mut watched, "src", "src/new/deep/f").await;
        fs::remove_dir_all(watched.path("src/new")).unwrap();
        until(&mut watched, "src", "src/new").await;
        fs::remove_file(watched.path("Cargo.toml")).unwrap();
        until(&mut watched, "manifest", "Cargo.toml").await;
        watched.write("Cargo.toml", "1");
        until(&mut watched, "manifest", "Cargo.toml").await;
    }
}

async fn until(watched: &mut Watched, owner: &str, path: &str) {
    loop {
        let burst = watched.burst().await;
        let paths = burst.owners.get(owner).into_iter().flatten();
        if paths.map(|p| watched.relative(p)).any(|p| p == path) {
            return;
        }
    }
}
