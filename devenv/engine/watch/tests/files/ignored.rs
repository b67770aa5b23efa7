//! What doesn't count.

use super::*;

#[tokio::test]
async fn what_git_ignores_does_not_count() {
    let mut watched = Watched::all(|dir| {
        for folder in [
            ".git/info",
            "src/gen",
            "target/debug",
            "node_modules/x",
            ".devenv",
            "logs/keep",
        ] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(
            dir.join(".gitignore"),
            "/target\nnode_modules/\n*.log\n/logs/*\n!/logs/keep\n",
        )
        .unwrap();
        fs::write(dir.join("src/.gitignore"), "gen/\n!important.log\n").unwrap();
        fs::write(dir.join(".git/info/exclude"), "private\n").unwrap();
    })
    .await;
    for ignored in [
        "target/debug/a",
        "node_modules/x/index.js",
        "a.log",
        "src/b.log",
        "src/gen/c.rs",
        ".git/index",
        ".devenv/store",
        "private",
        "logs/x",
    ] {
        watched.write(ignored, "1");
    }
    for counts in ["src/important.log", ".env", "logs/keep/a", "src/target"] {
        watched.write(counts, "1");
    }
    assert_eq!(
        watched.all_heard().await,
        [".env", "logs/keep/a", "src/important.log", "src/target"]
    );
}

#[tokio::test]
async fn rules_that_change_hold_at_once() {
    let mut watched = Watched::all(|dir| {
        fs::create_dir_all(dir.join("out/deep")).unwrap();
        fs::write(dir.join("out/deep/old"), "1").unwrap();
        fs::write(dir.join("out/deep/old~"), "1").unwrap();
        fs::write(dir.join(".gitignore"), "out\n").unwrap();
    })
    .await;
    for round in 0..50 {
        watched.write("out/deep/a", "1");
        assert_eq!(
            watched.all_heard().await,
            Vec::<String>::new(),
            "round {round}"
        );
        watched.write(".gitignore", "");
        let told = watched.all_heard().await;
        // What counts from now on is told of.
        assert_eq!(
            told,
            [".gitignore", "out/deep/a", "out/deep/old"],
            "round {round}"
        );
        watched.write("out/deep/a", "2");
        assert_eq!(watched.all_heard().await, ["out/deep/a"], "round {round}");
        watched.write(".gitignore", "out\n");
        assert_eq!(watched.all_heard().await, [".gitignore"], "round {round}");
    }
}

#[tokio::test]
async fn rules_above_an_input_hold_and_are_watched() {
    let prepare = |dir: &Path| {
        fs::create_dir_all(dir.join(".git/info")).unwrap();
        fs::create_dir_all(dir.join("services/api/gen")).unwrap();
        fs::write(dir.join(".gitignore"), "gen\n").unwrap();
    };
    let mut watched = Watched::new(prepare, vec![input("api", "services/api")], options()).await;
    watched.write("services/api/gen/a", "1");
    watched.write("services/api/b", "1");
    assert_eq!(watched.heard().await.of("api"), ["services/api/b"]);
    watched.write(".gitignore", "b\n");
    let told = watched.heard().await;
    assert_eq!(told.of("api"), [".gitignore", "services/api/gen/a"]);
    watched.write("services/api/gen/a", "2");
    watched.write("services/api/b", "2");
    assert_eq!(watched.heard().await.of("api"), ["services/api/gen/a"]);
    watched.write(".git/info/exclude", "gen\n");
    watched.heard().await;
    watched.write("services/api/gen/a", "3");
    assert_eq!(watched.heard().await.of("api"), Vec::<&str>::new());
}

#[tokio::test]
async fn each_owner_has_rules_of_its_own() {
    let prepare = |dir: &Path| {
        fs::create_dir_all(dir.join("web/dist")).unwrap();
        fs::write(dir.join(".gitignore"), "dist\n*.tmp\n").unwrap();
    };
    let mut everything = input("everything", "web");
    everything.gitignore = false;
    let mut no_docs = input("no docs", "web");
    no_docs.ignore = vec!["docs/".to_owned(), "*.md".to_owned(), "!b.tmp".to_owned()];
    let inputs = vec![everything, no_docs, input("dist", "web/dist")];
    let mut watched = Watched::new(prepare, inputs, options()).await;
    fs::create_dir(watched.path("web/docs")).unwrap();
    for file in [
        "web/dist/a",
        "web/docs/a",
        "web/a.md",
        "web/a.tmp",
        "web/b.tmp",
        "web/c",
    ] {
        watched.write(file, "1");
    }
    let heard = watched.heard().await;
    assert_eq!(heard.of("dist"), ["web/dist/a"]);
    assert_eq!(heard.of("no docs"), ["web/b.tmp", "web/c"]);
    assert_eq!(heard.of("everything").len(), 6);
}

#[tokio::test]
async fn a_repository_may_be_made_and_have_rules_of_its_own() {
    let mut watched = Watched::all(|dir| {
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join(".gitignore"), "*.log\n").unwrap();
    })
    .await;
    watched.write("sub/a.log", "1");
    assert_eq!(watched.all_heard().await, Vec::<String>::new());
    // As `git init` does it, with time between the two to look.
    for folder in ["sub/.git", "sub/.git/info"] {
        fs::create_dir(watched.path(folder)).unwrap();
        watched.heard().await;
        watched.write("sub/a.log", folder);
        assert_eq!(watched.all_heard().await, ["sub/a.log"]);
    }
    watched.write("sub/.git/info/exclude", "*.tmp\n");
    assert_eq!(watched.all_heard().await, ["sub/.git/info/exclude"]);
    watched.write("sub/a.tmp", "1");
    assert_eq!(watched.all_heard().await, Vec::<String>::new());
}
