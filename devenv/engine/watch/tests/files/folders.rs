//! Folders that come, go and move.

use super::*;

const ROUNDS: usize = 200;

#[tokio::test]
async fn a_file_in_folders_made_just_before_is_never_lost() {
    let mut watched = Watched::all(|_| {}).await;
    for round in 0..ROUNDS {
        let folder = format!("r{round}/a/b/c");
        fs::create_dir_all(watched.path(&folder)).unwrap();
        watched.write(&format!("{folder}/file"), "x");
        watched.write(&format!("r{round}/a/other"), "x");
        let told = watched.all_heard().await;
        let expected = [format!("r{round}/a/b/c/file"), format!("r{round}/a/other")];
        assert_eq!(told, expected, "round {round}");
        // And the folders are watched from now on.
        watched.write(&format!("{folder}/file"), "y");
        assert_eq!(watched.all_heard().await, expected[..1], "round {round}");
    }
}

#[tokio::test]
async fn a_writer_that_never_waits_loses_nothing() {
    let mut watched = Watched::all(|_| {}).await;
    let dir = watched.dir.path().to_owned();
    let writer = tokio::task::spawn_blocking(move || {
        let mut files = Vec::new();
        for round in 0..ROUNDS {
            let folder = format!("d{}/e{}/f{round}", round % 10, round % 20);
            fs::create_dir_all(dir.join(&folder)).unwrap();
            let file = format!("{folder}/file");
            fs::write(dir.join(&file), "x").unwrap();
            files.push(file);
        }
        files
    });
    let mut files: Vec<String> = writer.await.unwrap();
    files.sort();
    assert_eq!(watched.all_heard().await, files);
}

#[tokio::test]
async fn folders_that_move_are_watched_where_they_are() {
    let mut watched = Watched::all(|dir| {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/f"), "1").unwrap();
    })
    .await;
    for round in 0..ROUNDS {
        let (from, to) = if round % 2 == 0 {
            ("a", "z")
        } else {
            ("z", "a")
        };
        fs::rename(watched.path(from), watched.path(to)).unwrap();
        let told = watched.all_heard().await;
        let mut expected = [from.to_owned(), format!("{to}/b/f")];
        expected.sort();
        assert_eq!(told, expected, "round {round}");
        watched.write(&format!("{to}/b/f"), "2");
        assert_eq!(
            watched.all_heard().await,
            [format!("{to}/b/f")],
            "round {round}"
        );
    }
}

#[tokio::test]
async fn a_folder_that_was_moved_out_is_not_watched_any_more() {
    let outside = tempfile::tempdir().unwrap();
    let mut watched = Watched::all(|dir| fs::create_dir_all(dir.join("a/b")).unwrap()).await;
    fs::rename(watched.path("a"), outside.path().join("a")).unwrap();
    assert_eq!(watched.all_heard().await, ["a"]);
    fs::write(outside.path().join("a/b/f"), "x").unwrap();
    assert_eq!(watched.all_heard().await, Vec::<String>::new());
    fs::rename(outside.path().join("a"), watched.path("c")).unwrap();
    assert_eq!(watched.all_heard().await, ["c/b/f"]);
}

#[tokio::test]
async fn what_is_deleted_is_told_of() {
    let mut watched = Watched::all(|dir| {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/f"), "1").unwrap();
        fs::write(dir.join("g"), "1").unwrap();
    })
    .await;
    fs::remove_file(watched.path("g")).unwrap();
    fs::remove_dir_all(watched.path("a")).unwrap();
    assert_eq!(watched.all_heard().await, ["a/b/f", "g"]);
}

#[tokio::test]
async fn inputs_may_come_later_wherever_they_are() {
    let elsewhere = tempfile::tempdir().unwrap();
    let far = elsewhere.path().join("x/y/z.toml");
    let inputs = vec![
        input("file", "deep/er/config.toml"),
        input("folder", "deep/src"),
        input("far", far.to_str().unwrap()),
    ];
    let mut watched = Watched::new(|_| {}, inputs, options()).await;
    for round in 0..60 {
        fs::create_dir_all(watched.path("deep/er")).unwrap();
        fs::create_dir_all(watched.path("deep/src/lib")).unwrap();
        fs::create_dir_all(far.parent().unwrap()).unwrap();
        watched.write("deep/er/config.toml", "1");
        watched.write("deep/er/other.toml", "1");
        watched.write("deep/src/lib/a.rs", "1");
        fs::write(&far, "1").unwrap();
        // The ones elsewhere are in a queue of their own order: until all are heard.
        let mut told = BTreeMap::new();
        while told.len() < 3 {
            let heard = watched.heard().await;
            assert!(!heard.rescan);
            told.extend(heard.owners);
        }
        assert_eq!(
            Vec::from_iter(&told["file"]),
            ["deep/er/config.toml"],
            "round {round}"
        );
        assert_eq!(
            Vec::from_iter(&told["folder"]),
            ["deep/src/lib/a.rs"],
            "round {round}"
        );
        assert_eq!(
            Vec::from_iter(&told["far"]),
            [far.to_str().unwrap()],
            "round {round}"
        );
        match round % 3 {
            0 => fs::remove_dir_all(watched.path("deep")).unwrap(),
            1 => {
                let away = watched.path(&format!("away{round}"));
                fs::rename(watched.path("deep"), away).unwrap();
            }
            _ => fs::remove_dir_all(watched.path("deep/src")).unwrap(),
        }
        fs::remove_dir_all(elsewhere.path().join("x")).unwrap();
        let mut gone = BTreeMap::new();
        while gone.len() < if round % 3 == 2 { 2 } else { 3 } {
            gone.extend(watched.heard().await.owners);
        }
    }
}

#[tokio::test]
async fn one_path_may_have_several_owners() {
    let inputs = vec![
        input("all", "."),
        input("api", "services/api"),
        input("shared", "services"),
        input("lock", "Cargo.lock"),
        input("both", "Cargo.lock"),
        input("both", "services/api/src"),
    ];
    let prepare = |dir: &Path| {
        fs::create_dir_all(dir.join("services/api/src")).unwrap();
        fs::create_dir_all(dir.join("services/apix")).unwrap();
    };
    let mut watched = Watched::new(prepare, inputs, options()).await;
    let owners = |heard: Heard| heard.owners.into_keys().collect::<Vec<_>>();
    watched.write("services/api/src/a", "1");
    assert_eq!(
        owners(watched.heard().await),
        ["all", "api", "both", "shared"]
    );
    watched.write("services/apix/a", "1");
    assert_eq!(owners(watched.heard().await), ["all", "shared"]);
    watched.write("Cargo.lock", "1");
    assert_eq!(owners(watched.heard().await), ["all", "both", "lock"]);
    watched.write("Cargo.toml", "1");
    assert_eq!(owners(watched.heard().await), ["all"]);
}

#[tokio::test]
async fn inputs_can_be_swapped_without_losing_a_change() {
    let prepare = |dir: &Path| {
        fs::create_dir_all(dir.join("a/deep")).unwrap();
        fs::create_dir_all(dir.join("b")).unwrap();
    };
    let mut watched = Watched::new(prepare, vec![input("a", "a")], options()).await;
    for round in 0..ROUNDS {
        let path = format!("a/deep/{round}");
        watched.write(&path, "1");
        let mut inputs = vec![input("a", "a"), input("witness", "witness")];
        if round % 2 == 0 {
            inputs.push(input("b", "b"));
        }
        watched.watcher.set(inputs).unwrap();
        let second = format!("a/deep/{round}-2");
        watched.write(&second, "1");
        assert_eq!(
            watched.heard().await.of("a"),
            [path, second],
            "round {round}"
        );
        watched.watcher.ready().await;
        watched.write("b/f", "1");
        let expected = if round % 2 == 0 { vec!["b/f"] } else { vec![] };
        assert_eq!(watched.heard().await.of("b"), expected, "round {round}");
    }
}

#[tokio::test]
async fn a_bad_pattern_is_refused_and_the_inputs_stay() {
    let mut watched = Watched::all(|_| {}).await;
    let mut bad = input("all", ".");
    bad.ignore = vec!["[z-a]".to_owned()];
    let error = watched.watcher.set(vec![bad]).unwrap_err();
    assert_eq!(error.to_string(), "can't read the ignore pattern `[z-a]`");
    watched.write("a", "1");
    assert_eq!(watched.all_heard().await, ["a"]);
}

#[tokio::test]
async fn a_file_may_take_the_place_of_a_folder() {
    let inputs = vec![input("it", "it")];
    let prepare = |dir: &Path| fs::create_dir(dir.join("it")).unwrap();
    let mut watched = Watched::new(prepare, inputs, options()).await;
    for round in 0..ROUNDS {
        watched.write("it/a", "1");
        assert_eq!(watched.heard().await.of("it"), ["it/a"], "round {round}");
        fs::remove_dir_all(watched.path("it")).unwrap();
        watched.write("it", "1");
        assert!(
            watched.heard().await.of("it").contains(&"it"),
            "round {round}"
        );
        // In place, which its folder was not watched for before.
        watched.write("it", "2");
        assert_eq!(watched.heard().await.of("it"), ["it"], "round {round}");
        fs::remove_file(watched.path("it")).unwrap();
        fs::create_dir(watched.path("it")).unwrap();
        assert_eq!(watched.heard().await.of("it"), ["it"], "round {round}");
    }
}

#[tokio::test]
async fn watchers_that_are_dropped_leave_nothing() {
    // More than a user may have inotify instances of.
    for _ in 0..300 {
        let watched = Watched::all(|_| {}).await;
        assert_eq!(watched.watcher.mode(), devenv_watch::Mode::Events);
    }
}
