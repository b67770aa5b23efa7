//! ingress-nginx by a manifest of the project's, from a registry.
//!
//! The real images could not be had where this was made. Two others stand in for them, in a
//! manifest of the same shape: Jobs that make the webhook's certificate, a controller that
//! waits for it, and a webhook that refuses snippets (`tests/offline/nginx`).

use super::kind::{SEEN, UP, main_job};
use devenv_tests::containers::{self, docker, everything, new_since};
use devenv_tests::project::{Project, binary};
use devenv_tests::registry::Registry;
use devenv_tests::{proven, until};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

const IN_KIND: [&str; 5] = ["up", "-d", "--target", "kind", "--timeout=4m"];
const NAME: &str = "bb-kind-nginx";
const MANIFEST: &str = "kind/ingress-nginx.yaml";
/// What the tests' other images build on: a smaller one is sooner in the registry.
const BASE: &str = "devenv-test/debian:bookworm";
const NAMESPACE: &str = "ingress-nginx";

/// Builds the two images and brings them to the registry; their names there.
fn images(project: &Project, registry: &Registry) -> [String; 2] {
    let folder = project.path().join("tests/offline/nginx");
    let program = folder.join("devenv");
    // What debuggers read is most of it.
    let stripped = Command::new("strip")
        .arg("-o")
        .arg(&program)
        .arg(binary())
        .status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(binary(), &program).expect("the program is copied");
    }
    let folder = folder.to_string_lossy().into_owned();
    let base = format!("BASE={BASE}");
    ["controller", "certgen"].map(|target| {
        let image = format!("devenv-test/ingress-nginx-{target}:1");
        let words = ["build", "--quiet", "--target", target, "--tag", &image];
        let words = [&words[..], &["--build-arg", &base, &folder]].concat();
        docker(&words).unwrap_or_else(|e| panic!("{target}: {e}"));
        registry.take(&image, &format!("ingress-nginx/{target}"))
    })
}

/// What kubectl prints, or what it says when it fails.
fn kubectl(project: &Project, words: &[&str]) -> Result<String, String> {
    let output = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(project.kubeconfig())
        .args(words)
        .output()
        .expect("kubectl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// A field of an object of the controller's.
fn field(project: &Project, object: &str, path: &str) -> String {
    let output = format!("jsonpath={{{path}}}");
    let found = kubectl(project, &["-n", NAMESPACE, "get", object, "-o", &output]);
    found.unwrap_or_else(|e| panic!("{object}: {e}"))
}

async fn up(project: &Project) -> Duration {
    let start = Instant::now();
    let up = project.run_within(UP, &IN_KIND).await;
    assert!(up.ok(), "{up}\n{}", project.supervisor_log());
    start.elapsed()
}

/// Saves an Ingress that the webhook refuses, then the good one again.
async fn a_snippet_is_refused(project: &Project) {
    let file = "kind/base/ingress.yaml";
    let good = fs::read_to_string(project.path().join(file)).expect("there");
    let known = "    nginx.ingress.kubernetes.io/proxy-body-size: \"2m\"\n";
    assert!(good.contains(known), "{good}");
    let snippet = "    nginx.ingress.kubernetes.io/configuration-snippet: \"return 418;\"\n";
    project.write(file, &good.replace(known, &format!("{known}{snippet}")));
    let refused = until(SEEN, Duration::from_millis(100), async || {
        let troubles = project.status().await["troubles"].clone();
        (troubles[0]["what"] == "project").then_some(troubles)
    });
    let refused = refused.await.expect("a trouble").to_string();
    for said in [
        file,
        "Ingress telemetry was refused",
        "validate.nginx.ingress.kubernetes.io",
        "Snippet directives are disabled",
    ] {
        assert!(refused.contains(said), "{said}: {refused}");
    }
    project.write(file, &good);
    let mended = until(SEEN, Duration::from_millis(100), async || {
        let troubles = project.status().await["troubles"].clone();
        (troubles == serde_json::json!([])).then_some(())
    });
    assert!(mended.await.is_some(), "{:#}", project.status().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_comes_from_where_devenv_toml_says() {
    let Some(project) = containers::reference_for_kind(NAME) else {
        return;
    };
    let Some(registry) = Registry::start() else {
        return;
    };
    let begin = Instant::now();
    let before = everything();
    let images = images(&project, &registry);
    println!("images in the registry: {:.1?}", begin.elapsed());
    let text = fs::read_to_string(project.path().join("tests/offline/nginx/deploy.yaml"));
    let text = text.expect("the manifest");
    let text = text
        .replace("image: CONTROLLER", &format!("image: {}", images[0]))
        .replace("image: CERTGEN", &format!("image: {}", images[1]));
    project.write(MANIFEST, &text);
    project.configure(|config| {
        let table: toml::Table = format!("[nginx]\nmanifest = \"{MANIFEST}\"\n")
            .parse()
            .expect("TOML");
        config.insert("kind".into(), table.into());
    });

    println!("cold up: {:.1?}", up(&project).await);
    let status = project.status().await;
    assert_eq!(status["ready"], true, "{status:#}");
    let controller = &status["endpoints"]["ingress_controller"];
    assert_eq!(controller, "nginx", "{status:#}");
    let spec = "deployment/ingress-nginx-controller";
    let container = ".spec.template.spec.containers[0]";
    let image = field(&project, spec, &format!("{container}.image"));
    assert!(image.starts_with("devenv.local/ingress-nginx-"), "{image}");
    main_job(&project, ["api1", "api2"], 2_000).await;
    a_snippet_is_refused(&project).await;
    println!("a snippet was refused: {:.1?}", begin.elapsed());

    // Jobs can't be changed: one that is the same stays, another one takes its place.
    let jobs = ["create", "patch"].map(|name| format!("job/ingress-nginx-admission-{name}"));
    let uids = || {
        jobs.each_ref()
            .map(|job| field(&project, job, ".metadata.uid"))
    };
    let [create, patch] = uids();
    project.down(&[]).await;
    let changed = text.replace("--patch-mutating=false", "--patch-mutating=no");
    project.write(MANIFEST, &changed);
    println!("warm up: {:.1?}", up(&project).await);
    let [same, other] = uids();
    assert_eq!(same, create);
    assert_ne!(other, patch);
    main_job(&project, ["api1", "api2"], 100).await;
    let snippet = "nginx.ingress.kubernetes.io/server-snippet=x";
    let words = ["-n", "so1-fase2", "annotate", "ingress/telemetry", snippet];
    let refused = kubectl(&project, &words).expect_err("the webhook refuses");
    assert!(refused.contains("denied the request"), "{refused}");
    project.down(&["-v"]).await;
    proven(
        "kind, a stand-in for ingress-nginx",
        "rust",
        "records half and half, its webhook, its Jobs twice",
    );

    // What can't be had is said before anything is made, and nothing is swapped for it.
    drop(registry);
    for image in &images {
        docker(&["image", "rm", image]).expect("it was pulled");
    }
    let refused = project.run_within(UP, &IN_KIND).await;
    assert_eq!(refused.code, Some(1), "{refused}");
    let said = [
        "ingress-nginx can't be had",
        "ingress-nginx/certgen:1@sha256:",
        "--ingress devenv",
        "[kind.nginx]",
    ];
    for said in said {
        assert!(refused.stderr.contains(said), "{said}: {refused}");
    }
    let names = [NAME.to_owned(), containers::compose_project(&project)];
    let mut made = new_since(&before);
    made.retain(|found| names.iter().any(|name| found.contains(name)));
    assert_eq!(made, [""; 0]);
    println!("all of it: {:.1?}", begin.elapsed());
}
