//! Where the kernel doesn't tell.

use super::*;
use devenv_watch::Mode;

pub fn polling() -> Options {
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
    for round in 1..8 {
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

#[tokio::test]
async fn folders_that_move_are_polled_where_they_are() {
    let prepare = |dir: &Path| {
        fs::create_dir_all(dir.join("m/a/b")).unwrap();
        fs::write(dir.join("m/a/b/f"), "1").unwrap();
        fs::create_dir_all(dir.join("z")).unwrap();
    };
    let mut watched = Watched::new(prepare, vec![input("all", ".")], polling()).await;
    let places = ["m/a", "z/a", "a/a", "m/b"];
    fs::create_dir(watched.path("a")).unwrap();
    for round in 0..12 {
        let (from, to) = (places[round % 4], places[(round + 1) % 4]);
        fs::rename(watched.path(from), watched.path(to)).unwrap();
        until(&mut watched, "all", &format!("{to}/b/f")).await;
        watched.write(&format!("{to}/b/f"), &"x".repeat(round + 2));
        until(&mut watched, "all", &format!("{to}/b/f")).await;
        watched.write(&format!("{to}/b/g{round}"), "");
        until(&mut watched, "all", &format!("{to}/b/g{round}")).await;
    }
}

/// A folder that takes another's place within one round is that folder from then on: the
/// number of the old one may be given to the next that is made, somewhere else.
#[tokio::test]
async fn a_folder_in_place_of_another_is_polled() {
    let prepare = |dir: &Path| {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/f"), "1").unwrap();
    };
    let mut watched = Watched::new(prepare, vec![input("all", ".")], polling()).await;
    for round in 0..12 {
        fs::create_dir_all(watched.path("new/b")).unwrap();
        watched.write("new/b/f", "1");
        until(&mut watched, "all", "new/b/f").await;
        fs::remove_dir_all(watched.path("a")).unwrap();
        fs::rename(watched.path("new"), watched.path("a")).unwrap();
        watched.heard().await;
        // They take the numbers that are free.
        for folder in ["x", "y"] {
            fs::create_dir(watched.path(&format!("{folder}{round}"))).unwrap();
        }
        watched.heard().await;
        watched.write("a/b/f", &"x".repeat(round + 2));
        until(&mut watched, "all", "a/b/f").await;
        watched.write(&format!("a/g{round}"), "");
        until(&mut watched, "all", &format!("a/g{round}")).await;
    }
}

pub async fn until(watched: &mut Watched, owner: &str, path: &str) {
    loop {
        let burst = watched.burst().await;
        let paths = burst.owners.get(owner).into_iter().flatten();
        if paths.map(|p| watched.relative(p)).any(|p| p == path) {
            return;
        }
    }
}
