//! Symlinks.

use super::*;
use std::os::unix::fs::symlink;

#[tokio::test]
async fn linked_folders_are_followed_and_named_as_the_owner_does() {
    let outside = tempfile::tempdir().unwrap();
    let shared = outside.path().join("shared");
    fs::create_dir_all(shared.join("deep")).unwrap();
    let prepare = |dir: &Path| {
        fs::create_dir_all(dir.join("app")).unwrap();
        fs::create_dir_all(dir.join("other")).unwrap();
        symlink(&shared, dir.join("app/lib")).unwrap();
        symlink(&shared, dir.join("link")).unwrap();
        // Within one owner's tree, and a loop.
        symlink("..", dir.join("app/up")).unwrap();
        symlink("../other", dir.join("other/self")).unwrap();
        symlink("missing", dir.join("app/broken")).unwrap();
    };
    let inputs = vec![
        input("app", "app"),
        input("link", "link"),
        input("deep", "link/deep"),
    ];
    let mut watched = Watched::new(prepare, inputs, options()).await;
    for round in 0..50 {
        fs::write(shared.join("deep/a"), "1").unwrap();
        let heard = watched.heard().await;
        assert_eq!(heard.of("app"), ["app/lib/deep/a"], "round {round}");
        assert_eq!(heard.of("link"), ["link/deep/a"], "round {round}");
        assert_eq!(heard.of("deep"), ["link/deep/a"], "round {round}");
        watched.write("other/x", "1");
        assert_eq!(
            watched.heard().await.of("app"),
            ["app/up/other/x"],
            "round {round}"
        );
        watched.write("app/y", "1");
        assert_eq!(watched.heard().await.of("app"), ["app/y"], "round {round}");
    }
}

#[tokio::test]
async fn a_link_may_be_turned_to_another_folder() {
    let prepare = |dir: &Path| {
        for version in ["1", "2"] {
            fs::create_dir_all(dir.join(format!("releases/{version}/bin"))).unwrap();
            fs::write(dir.join(format!("releases/{version}/bin/app")), "").unwrap();
        }
        symlink("releases/1", dir.join("current")).unwrap();
    };
    let inputs = vec![input("top", "current"), input("below", "current/bin")];
    let mut watched = Watched::new(prepare, inputs, options()).await;
    for round in 0..50 {
        let (new, old) = if round % 2 == 0 {
            ("2", "1")
        } else {
            ("1", "2")
        };
        symlink(format!("releases/{new}"), watched.path("next")).unwrap();
        fs::rename(watched.path("next"), watched.path("current")).unwrap();
        let heard = watched.heard().await;
        for owner in ["top", "below"] {
            let told = heard.of(owner);
            assert!(
                told.contains(&"current/bin/app"),
                "round {round}: {heard:?}"
            );
        }
        watched.write(&format!("releases/{new}/bin/app"), "1");
        let heard = watched.heard().await;
        assert_eq!(heard.of("top"), ["current/bin/app"], "round {round}");
        assert_eq!(heard.of("below"), ["current/bin/app"], "round {round}");
        watched.write(&format!("releases/{old}/bin/app"), "1");
        assert!(watched.heard().await.owners.is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn a_file_behind_a_link_is_watched() {
    let outside = tempfile::tempdir().unwrap();
    let real = outside.path().join("real.toml");
    fs::write(&real, "").unwrap();
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("etc")).unwrap();
        symlink(&real, dir.join("etc/app.toml")).unwrap();
        symlink(&real, dir.join("top.toml")).unwrap();
    };
    let inputs = vec![input("etc", "etc"), input("top", "top.toml")];
    let mut watched = Watched::new(prepare, inputs, options()).await;
    for round in 0..50 {
        fs::write(&real, "1").unwrap();
        let heard = watched.heard().await;
        assert_eq!(heard.of("etc"), ["etc/app.toml"], "round {round}");
        assert_eq!(heard.of("top"), ["top.toml"], "round {round}");
        fs::write(outside.path().join("real.tmp"), "2").unwrap();
        fs::rename(outside.path().join("real.tmp"), &real).unwrap();
        let heard = watched.heard().await;
        assert_eq!(heard.of("etc"), ["etc/app.toml"], "round {round}");
        assert_eq!(heard.of("top"), ["top.toml"], "round {round}");
    }
    fs::remove_file(watched.path("etc/app.toml")).unwrap();
    assert_eq!(watched.heard().await.of("etc"), ["etc/app.toml"]);
    fs::write(&real, "3").unwrap();
    assert_eq!(watched.heard().await.of("etc"), Vec::<&str>::new());
}

#[tokio::test]
async fn many_folders_that_link_to_each_other_end() {
    const MANY: usize = 30;
    let mut watched = Watched::all(|dir| {
        for a in 0..MANY {
            fs::create_dir_all(dir.join(format!("p{a}/deps"))).unwrap();
            for b in 0..MANY {
                let link = dir.join(format!("p{a}/deps/p{b}"));
                symlink(format!("../../p{b}"), link).unwrap();
            }
        }
    })
    .await;
    watched.write("p7/a", "1");
    assert_eq!(watched.all_heard().await, ["p7/a"]);
}

#[tokio::test]
async fn a_new_link_is_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("a"), "").unwrap();
    let mut watched = Watched::all(|_| {}).await;
    for round in 0..50 {
        symlink(outside.path(), watched.path("link")).unwrap();
        let told = watched.all_heard().await;
        assert!(
            told.contains(&"link/a".to_owned()),
            "round {round}: {told:?}"
        );
        fs::write(outside.path().join("a"), "1").unwrap();
        assert_eq!(watched.all_heard().await, ["link/a"], "round {round}");
        fs::remove_file(watched.path("link")).unwrap();
        assert_eq!(watched.all_heard().await, ["link"], "round {round}");
        fs::write(outside.path().join("a"), "1").unwrap();
        assert_eq!(
            watched.all_heard().await,
            Vec::<String>::new(),
            "round {round}"
        );
    }
}

/// How Kubernetes mounts a ConfigMap: a file is a link through a link that is turned.
#[tokio::test]
async fn a_link_further_on_may_be_turned() {
    let outside = tempfile::tempdir().unwrap();
    let mount = outside.path();
    for version in ["1", "2"] {
        fs::create_dir(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("app.toml"), version).unwrap();
    }
    symlink("1", mount.join("data")).unwrap();
    symlink("data/app.toml", mount.join("app.toml")).unwrap();
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("etc")).unwrap();
        symlink(mount.join("app.toml"), dir.join("etc/app.toml")).unwrap();
    };
    let inputs = vec![input("etc", "etc"), input("file", "etc/app.toml")];
    let mut watched = Watched::new(prepare, inputs, options()).await;
    for round in 0..50 {
        let (new, old) = if round % 2 == 0 {
            ("2", "1")
        } else {
            ("1", "2")
        };
        symlink(new, mount.join("next")).unwrap();
        fs::rename(mount.join("next"), mount.join("data")).unwrap();
        let heard = watched.heard().await;
        for owner in ["etc", "file"] {
            assert_eq!(
                heard.of(owner),
                ["etc/app.toml"],
                "round {round}: {heard:?}"
            );
        }
        fs::write(mount.join(new).join("app.toml"), "3").unwrap();
        let heard = watched.heard().await;
        for owner in ["etc", "file"] {
            assert_eq!(
                heard.of(owner),
                ["etc/app.toml"],
                "round {round}: {heard:?}"
            );
        }
        fs::write(mount.join(old).join("app.toml"), "3").unwrap();
        assert!(watched.heard().await.owners.is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn what_a_link_leads_to_may_come_later() {
    let mut watched = Watched::all(|dir| {
        fs::create_dir(dir.join("a")).unwrap();
        fs::create_dir(dir.join("b")).unwrap();
        symlink("../b/later", dir.join("a/link")).unwrap();
    })
    .await;
    for round in 0..50 {
        watched.write("b/later", "1");
        let told = watched.all_heard().await;
        assert_eq!(told, ["a/link", "b/later"], "round {round}");
        fs::remove_file(watched.path("b/later")).unwrap();
        let told = watched.all_heard().await;
        assert_eq!(told, ["a/link", "b/later"], "round {round}");
    }
}
