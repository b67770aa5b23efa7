//! From source: the build commands of devenv.toml, run by `up`.

use devenv_tests::project::{Project, Services, build_folder, checkout, kept_folder, output_of};
use devenv_tests::record::record;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

async fn post(base: &str) {
    let answer = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("{base}/api"))
        .json(&record(512.0))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
}

/// `up` of a copy in which nothing is built. What the builds make is kept between
/// runs, so only the first one compiles the dependencies.
#[tokio::test(flavor = "multi_thread")]
async fn up_builds_the_services_as_devenv_toml_says() {
    // Always the same folder: cargo knows a package by its path.
    let project = Project::copy_named(Services::FromSource, "fresh");
    let kept = kept_folder("fresh").join("target");
    let target = project.path().join("target");
    // Across file systems nothing is kept, and all is compiled.
    let _ = fs::rename(&kept, &target);
    let words = ["up", "-d", "--timeout", "30m"];
    let up = project.run_within(Duration::from_secs(1800), &words).await;
    let ok = up.ok();
    println!("up from source took {:.1?}", up.took);
    if ok {
        post(&project.ingress().await).await;
        project.down(&[]).await;
    }
    let _ = fs::rename(&target, &kept);
    assert!(ok, "{up}\n{}", project.supervisor_log());
}

/// From `git clone` to the first 201, with nothing built before.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "compiles everything: `cargo xtask soak cold`"]
async fn cold_from_clone_to_first_201() {
    let folder = tempfile::Builder::new()
        .prefix("bb-cold-")
        .tempdir()
        .unwrap();
    let clone = folder.path().join("clone");
    let limit = Duration::from_secs(3600);
    let none = BTreeMap::new();
    let start = Instant::now();
    let [from, to] = [checkout(), clone.clone()].map(|path| path.to_string_lossy().into_owned());
    output_of(Path::new("git"), &["clone", "-q", &from, &to], &none, limit)
        .await
        .unwrap();
    let manifest = clone.join("Cargo.toml").to_string_lossy().into_owned();
    let cargo = |words: &[&str]| {
        let mut all = vec![
            "run",
            "--locked",
            "-q",
            "--manifest-path",
            &manifest,
            "--",
            "-C",
            &to,
        ];
        all.extend(words);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        // Its own build folder, whatever this run was told.
        let environment = BTreeMap::from([(
            "CARGO_TARGET_DIR",
            clone.join("target").to_string_lossy().into_owned(),
        )]);
        async move {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            output_of(Path::new("cargo"), &all, &environment, limit).await
        }
    };
    let up = cargo(&["up", "--yes", "-d", "--timeout", "60m"]).await;
    let took_up = start.elapsed();
    let url = cargo(&["url", "ingress"]).await;
    if let Ok(url) = &url {
        post(url.trim().trim_end_matches('/')).await;
    }
    let took = start.elapsed();
    let down = cargo(&["down", "-v"]).await;
    up.unwrap();
    url.unwrap();
    down.unwrap();
    println!(
        "cold: up after {took_up:.0?}, first 201 after {took:.0?} (tests built to {})",
        build_folder().display()
    );
}
