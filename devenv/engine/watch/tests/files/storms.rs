//! Many changes at once.

use super::*;

#[tokio::test]
async fn ten_thousand_new_files_are_one_change() {
    const FILES: usize = 10_000;
    let mut watched = Watched::all(|_| {}).await;
    let dir = watched.dir.path().to_owned();
    tokio::task::spawn_blocking(move || {
        for i in 0..FILES {
            let folder = dir.join(format!("m{}/n{}", i % 100, i % 10));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("{i}.js")), "x").unwrap();
        }
    })
    .await
    .unwrap();
    let heard = watched.heard().await;
    assert!(!heard.rescan);
    assert_eq!(heard.of("all").len(), FILES);
}

#[tokio::test]
async fn more_paths_than_can_be_kept_ask_for_a_rescan() {
    let options = Options {
        max_paths: 100,
        ..options()
    };
    let mut watched = Watched::new(|_| {}, vec![input("all", ".")], options).await;
    for i in 0..1000 {
        watched.write(&format!("{i}"), "x");
    }
    let burst = watched.burst().await;
    assert!(burst.rescan);
    assert_eq!(burst.owners.keys().copied().collect::<Vec<_>>(), ["all"]);
    assert!(burst.owners["all"].len() <= 100);
}
