//! Why a verdict doesn't apply.

use std::{collections::BTreeMap, fs};

use devenv_e2e::outcome::Outcome;
use rstest::rstest;

use super::{Project, judge, report, words};
use crate::{Beside, CoverageError, ImageDigests, Level, Look, Policy, Saved, Tree, verify};

#[test]
fn every_change_is_told_in_order() {
    let mut project = Project::new();
    project.pass();
    assert_eq!(project.reasons(), [""; 0]);
    project.write("app/main.rs", "fn main() { }\n");
    project.write("app/new.rs", "");
    fs::remove_file(project.path("app/empty")).unwrap();
    project.chmod("app/run.sh", 0o644);
    fs::remove_file(project.path("migrations/0002_second.sql")).unwrap();
    project.write("tests/e2e/data/body.json", "[]");
    project.write(
        "k8s/more.yaml",
        "# more\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n",
    );
    fs::write(
        project.path("devenv.toml"),
        super::CONFIG.replace("info", "warn"),
    )
    .unwrap();
    project.programs.set("node", "v24.0.0");
    project.programs.set("rustc", "rustc 1.95.0");
    project.database = "MySQL 8.4.0".into();
    assert_eq!(
        project.reasons(),
        [
            "environment database changed: MariaDB 10.11.19 → MySQL 8.4.0",
            "configuration devenv.toml changed",
            "image web changed (devenv.toml:10:8)",
            "source app/empty was removed",
            "source app/main.rs changed",
            "source app/new.rs was added",
            "source app/run.sh changed: it can't be executed any more",
            "manifest ConfigMap/ns/more was added (k8s/more.yaml:2:1)",
            "migration migrations/0002_second.sql was removed",
            "suite tests/e2e/data/body.json changed",
            "toolchain node in app changed: v22.1.0 → v24.0.0",
            "toolchain rustc in app changed: not installed → rustc 1.95.0",
        ]
    );
}

#[rstest]
#[case::failed(Outcome::Failed, "page: «it works» failed (tests/e2e/page.toml:3)")]
#[case::missing(
    Outcome::Missing,
    "page: «it works» could not run, since something was missing (tests/e2e/page.toml:3)"
)]
#[case::unsupported(Outcome::Unsupported, "not one test ran")]
#[case::skipped(Outcome::Skipped, "not one test ran")]
fn a_run_that_did_not_pass(#[case] outcome: Outcome, #[case] why: &str) {
    let project = Project::new();
    let verdict = project.verdict(&report("local", None, &[("it works", outcome)]), None);
    assert!(!verdict.passes);
    project.save(&verdict);
    assert_eq!(project.reasons(), [why]);
    // The latest run decides.
    project.pass();
    assert!(project.verify().applies);
}

#[test]
fn what_is_flaky_or_unsupported_passes_and_is_listed() {
    let project = Project::new();
    let outcomes = [
        ("a", Outcome::Flaky),
        ("b", Outcome::Unsupported),
        ("c", Outcome::Skipped),
    ];
    project.save(&project.verdict(&report("local", None, &outcomes), None));
    let verification = project.verify();
    assert!(verification.applies);
    let verdict = verification.closest.unwrap().verdict;
    let names = |outcome| -> Vec<&str> {
        verdict
            .tests(&[outcome])
            .map(|(_, t)| t.name.as_str())
            .collect()
    };
    assert_eq!(names(Outcome::Flaky), ["a"]);
    assert_eq!(names(Outcome::Unsupported), ["b"]);
    assert_eq!(names(Outcome::Skipped), ["c"]);
}

#[test]
fn a_suite_that_did_not_run_or_could_not() {
    let project = Project::new();
    project.write("tests/e2e/second.toml", "");
    let mut report = project.report();
    report.suites[0].error = Some("no database".into());
    let verdict = project.verdict(&report, None);
    assert!(!verdict.passes);
    project.save(&verdict);
    assert_eq!(
        project.reasons(),
        [
            "suite tests/e2e/second.toml did not run",
            "suite page could not run: no database",
        ]
    );
}

#[test]
fn the_verdict_of_another_profile_or_target() {
    let mut project = Project::new();
    project.pass();
    project.profile = Some("other".into());
    assert_eq!(
        project.reasons(),
        [
            "the verdict is on local, no profile, and local, profile other was asked for",
            "image web changed (devenv.toml:10:8)",
        ]
    );
    project.pass();
    assert!(project.verify().applies);
    project.profile = None;
    assert!(project.verify().applies, "each has its own");
    project.target = "kind".into();
    assert_eq!(
        project.reasons(),
        ["the verdict is on local, no profile, and kind, no profile was asked for"]
    );
}

#[test]
fn the_closest_explains_it() {
    let mut project = Project::new();
    project.pass();
    project.write("app/main.rs", "2");
    project.write("app/new.rs", "2");
    let second = project.pass();
    // A verdict of another profile is farther, however little differs.
    project.profile = Some("other".into());
    project.write("app/main.rs", "3");
    project.pass();
    project.profile = None;
    let verification = project.verify();
    assert_eq!(words(&verification), ["source app/main.rs changed"]);
    assert_eq!(verification.closest.unwrap().file, second);
}

#[test]
fn whose_signature_counts() {
    let project = Project::new();
    project.pass();
    let (me, ci) = (project.key().public(), project.key_of("ci").public());
    let trusting = |keys: &[_]| Policy {
        trusted: Some(keys.to_vec()),
    };
    assert!(project.verify_with(&trusting(&[ci, me])).applies);
    assert_eq!(
        words(&project.verify_with(&trusting(&[ci]))),
        [format!(
            "the verdict is signed by {me}, and `gate.trusted_keys` names only {ci}"
        )]
    );
    assert_eq!(
        words(&project.verify_with(&trusting(&[]))),
        [format!(
            "the verdict is signed by {me}, and `gate.trusted_keys` names no key"
        )]
    );
    // As devenv.toml says it.
    let config = format!("{}\n[gate]\ntrusted_keys = [\"{ci}\"]\n", super::CONFIG);
    project.write("devenv.toml", &config);
    project.pass();
    let policy = Policy::of(&project.topology()).unwrap();
    assert!(!project.verify_with(&policy).applies);
    let verdict = project.verdict(&project.report(), None);
    let saved = project
        .store()
        .save(&verdict, &project.key_of("ci"))
        .unwrap();
    assert!(matches!(saved, Saved::Written(_)));
    assert!(project.verify_with(&policy).applies);
}

#[test]
fn a_verdict_that_was_edited() {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let project = Project::new();
    let verdict = project.verdict(
        &report("local", None, &[("it works", Outcome::Failed)]),
        None,
    );
    let path = project.save(&verdict);
    let mut envelope: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let payload = BASE64_STANDARD
        .decode(envelope["payload"].as_str().unwrap())
        .unwrap();
    let payload = String::from_utf8(payload).unwrap();
    let better = payload
        .replace("\"failed\"", "\"passed\"")
        .replace("\"passes\":false", "\"passes\":true");
    assert_ne!(payload, better);
    envelope["payload"] = BASE64_STANDARD.encode(better).into();
    fs::write(&path, envelope.to_string()).unwrap();
    let verification = project.verify();
    assert!(!verification.applies);
    assert_eq!(
        words(&verification),
        [format!(
            "the verdict was changed after it was signed: its contents are not what {} signed",
            project.key().public()
        )]
    );
    envelope["signatures"] = serde_json::json!([]);
    fs::write(&path, envelope.to_string()).unwrap();
    assert_eq!(project.reasons(), ["the verdict is not signed"]);
}

fn look(
    project: &Project,
    level: Level,
    digests: &dyn ImageDigests,
) -> Result<Tree, CoverageError> {
    let topology = project.topology();
    Look {
        level,
        digests,
        database: Some(&project.database),
        programs: &project.programs,
        ..Look::new(&topology, "local")
    }
    .take()
}

/// The seam for runs that use built images: whoever runs them says their digests.
#[test]
fn level_image_is_about_exactly_these_digests() {
    let project = Project::new();
    let digests = |d: &str| BTreeMap::from([("registry.example/web:v1".to_owned(), d.to_owned())]);
    let check = |tree: &Tree| words(&verify(&project.store(), tree, &Policy::default()).unwrap());
    let source = look(&project, Level::Source, &digests("sha256:aa")).unwrap();
    let image = look(&project, Level::Image, &digests("sha256:aa")).unwrap();

    project.save(&judge(&source, &source, &project.report(), None).unwrap());
    assert_eq!(check(&source), [""; 0]);
    assert_eq!(
        check(&image),
        ["the verdict is at level source, and image was asked for"]
    );

    let verdict = judge(&image, &image, &project.report(), None).unwrap();
    assert!(
        !verdict
            .coverage
            .not_covered
            .iter()
            .any(|n| n.starts_with("container images"))
    );
    let path = project.save(&verdict);
    assert_eq!(check(&image), [""; 0]);
    let rebuilt = look(&project, Level::Image, &digests("sha256:bb")).unwrap();
    fs::remove_file(project.store().file_of(&source.hash())).unwrap();
    assert_eq!(
        check(&rebuilt),
        ["image digest registry.example/web:v1 changed: sha256:aa → sha256:bb"]
    );
    // Images are more than sources.
    assert_eq!(check(&source), [""; 0]);
    assert!(path.exists());
}

/// A run knows its images only when it has begun: the look of before is raised then.
#[test]
fn a_look_is_raised_to_what_ran() {
    let project = Project::new();
    let digests = |d: &str| BTreeMap::from([("registry.example/web:v1".to_owned(), d.to_owned())]);
    let ran = |d: &str| project.tree().of_images(&digests(d)).unwrap();
    assert_eq!(
        ran("sha256:aa"),
        look(&project, Level::Image, &digests("sha256:aa")).unwrap()
    );
    let error = judge(
        &ran("sha256:aa"),
        &ran("sha256:bb"),
        &project.report(),
        None,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "no verdict, since images were built anew while it was tested: \
         image digest registry.example/web:v1 changed: sha256:aa → sha256:bb"
    );
    let verdict = judge(
        &ran("sha256:aa"),
        &ran("sha256:aa"),
        &project.report(),
        None,
    );
    let verdict = verdict.unwrap();
    assert_eq!(verdict.level, Level::Image);
    assert_eq!(
        verdict.digests().collect::<Vec<_>>(),
        [("registry.example/web:v1", "sha256:aa")]
    );
    project.save(&verdict);
    // One of processes that fits the tree as well explains nothing of a rebuilt image.
    project.pass();
    let rebuilt = verify(&project.store(), &ran("sha256:bb"), &Policy::default()).unwrap();
    assert_eq!(
        words(&rebuilt),
        ["image digest registry.example/web:v1 changed: sha256:aa → sha256:bb"]
    );
}

/// Beside containers the database is one, too: the Compose file and the image say which.
#[test]
fn the_database_beside_containers() {
    let project = Project::new();
    let file = project.path("compose/compose.yaml");
    project.write("compose/compose.yaml", "services: {}\n");
    let look = |mysql: &str| {
        let topology = project.topology();
        let digests = BTreeMap::from([
            ("registry.example/web:v1".to_owned(), "sha256:aa".to_owned()),
            ("mysql:8.4".to_owned(), mysql.to_owned()),
        ]);
        let look = Look {
            beside: Some(Beside {
                service: "cloudsql",
                file: &file,
                image: "mysql:8.4",
            }),
            programs: &project.programs,
            ..Look::new(&topology, "local")
        };
        let tree = look.take().unwrap();
        assert_eq!(
            tree.images().collect::<Vec<_>>(),
            ["mysql:8.4", "registry.example/web:v1"]
        );
        tree.of_images(&digests).unwrap()
    };
    let check = |tree: &Tree| words(&verify(&project.store(), tree, &Policy::default()).unwrap());
    let tree = look("sha256:dd");
    let gap = "what compose/compose.yaml takes from variables";
    assert!(tree.not_covered().iter().any(|g| g.starts_with(gap)));
    project.save(&judge(&tree, &tree, &project.report(), None).unwrap());
    assert_eq!(check(&tree), [""; 0]);
    // Processes would have another one, which says nothing against the images.
    assert_eq!(check(&project.tree()), [""; 0]);
    project.write("app/main.rs", "2");
    assert_eq!(check(&project.tree()), ["source app/main.rs changed"]);
    project.write("app/main.rs", "fn main() {}\n");
    assert_eq!(
        check(&look("sha256:ee")),
        ["image digest mysql:8.4 changed: sha256:dd → sha256:ee"]
    );
    project.write("compose/compose.yaml", "services: {x: {}}\n");
    assert_eq!(check(&look("sha256:dd")), ["environment database changed"]);
}

/// Somebody who can't tell.
struct Unreachable;

impl ImageDigests for Unreachable {
    fn digest(&self, _image: &str) -> Result<Option<String>, String> {
        Err("the registry doesn't answer".into())
    }
}

#[test]
fn an_image_without_a_digest_is_named() {
    let project = Project::new();
    let error = look(&project, Level::Image, &BTreeMap::new()).unwrap_err();
    assert!(
        error.to_string().contains("registry.example/web:v1"),
        "{error}"
    );
    let error = look(&project, Level::Image, &Unreachable).unwrap_err();
    assert!(
        error.to_string().ends_with("the registry doesn't answer"),
        "{error}"
    );
}

#[test]
fn it_is_told_as_json() {
    let project = Project::new();
    project.pass();
    project.write("app/main.rs", "2");
    let json = serde_json::to_value(project.verify()).unwrap();
    assert_eq!(json["applies"], false);
    assert_eq!(
        json["reasons"][0],
        serde_json::json!({
            "reason": "input",
            "group": "source",
            "input": "app/main.rs",
            "how": "changed",
        })
    );
    let again: crate::Verification = serde_json::from_value(json).unwrap();
    assert_eq!(again, project.verify());
}
