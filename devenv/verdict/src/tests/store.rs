//! Verdicts as files.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use devenv_e2e::outcome::Outcome;
use rstest::rstest;
use serde_json::{Value, json};

use super::{Project, report};
use crate::Saved;

#[test]
fn what_is_read_is_what_was_written() {
    let project = Project::new();
    let verdict = project.verdict(&project.report(), None);
    let path = project.save(&verdict);
    assert_eq!(
        path,
        project.path(&format!(".devenv/verdicts/{}.json", verdict.coverage.tree))
    );
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let (all, damaged) = project.store().all().unwrap();
    assert_eq!((all.len(), damaged), (1, vec![]));
    assert_eq!(all[0].verdict, verdict);
    assert_eq!(all[0].signed_by, [project.key().public()]);
    assert_eq!(all[0].wrong_signatures, [""; 0]);
    assert_eq!(verdict.ended.to_string(), "2026-01-01T12:00:01.5Z");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

/// Changes the file of a verdict that applies.
fn damaged(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> (Project, PathBuf) {
    let project = Project::new();
    let path = project.pass();
    let bytes = change(fs::read(&path).unwrap());
    fs::write(&path, bytes).unwrap();
    (project, path)
}

fn edited(change: impl FnOnce(&mut Value)) -> impl FnOnce(Vec<u8>) -> Vec<u8> {
    move |bytes| {
        let mut envelope: Value = serde_json::from_slice(&bytes).unwrap();
        let payload = BASE64_STANDARD.decode(envelope["payload"].as_str().unwrap());
        let mut verdict: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
        change(&mut verdict);
        envelope["payload"] = json!(BASE64_STANDARD.encode(verdict.to_string()));
        envelope.to_string().into_bytes()
    }
}

#[rstest]
#[case::empty(damaged(|_| Vec::new()), "it is no signed verdict")]
#[case::half(damaged(|b| b[..b.len() / 2].to_vec()), "it is no signed verdict")]
#[case::no_text(damaged(|_| vec![0xff; 100]), "it is no signed verdict")]
#[case::other_json(damaged(|_| b"{}".to_vec()), "it is no signed verdict")]
#[case::deep(damaged(|_| vec![b'['; 1 << 20]), "it is no signed verdict")]
#[case::other_type(
    damaged(|b| String::from_utf8(b).unwrap().replace("vnd.devenv", "vnd.other").into_bytes()),
    "it holds \"application/vnd.other.verdict+json\", not a verdict"
)]
#[case::other_payload(damaged(edited(|v| *v = json!({"schema": 1}))), "it is no verdict: missing field")]
#[case::later(damaged(edited(|v| v["schema"] = json!(2))), "it is of format 2, and this devenv reads 1")]
#[case::other_inputs(
    damaged(edited(|v| v["coverage"]["inputs"]["source"]["app/main.rs"] = json!("x"))),
    "its tree's hash is not that of its inputs"
)]
fn a_damaged_file_is_named_and_skipped(#[case] made: (Project, PathBuf), #[case] why: &str) {
    let (project, path) = made;
    let verification = project.verify();
    assert!(!verification.applies);
    assert_eq!(verification.damaged.len(), 1);
    assert_eq!(verification.damaged[0].file, path);
    assert!(
        verification.damaged[0].why.starts_with(why),
        "{:?}",
        verification.damaged
    );
    assert_eq!(
        project.reasons(),
        ["there is no verdict: `devenv test e2e` makes one"]
    );
    // The next run mends it.
    project.pass();
    assert!(project.verify().applies);
}

#[test]
fn no_file_at_all_is_one_too_few() {
    let project = Project::new();
    project.pass();
    fs::create_dir(project.path(".devenv/verdicts/folder.json")).unwrap();
    let verification = project.verify();
    assert!(verification.applies);
    assert_eq!(verification.damaged[0].why, "it is no file");
}

/// Every single byte: either it is said to be damaged, or its signature is, or the byte
/// doesn't matter to JSON. What never happens is that another verdict is believed.
#[test]
fn no_byte_of_it_can_change_unnoticed() {
    let project = Project::new();
    let path = project.pass();
    let bytes = fs::read(&path).unwrap();
    let tree = project.tree();
    let original = project.store().all().unwrap().0.remove(0);
    for at in (0..bytes.len()).step_by(7) {
        let mut other = bytes.clone();
        other[at] ^= 1;
        fs::write(&path, &other).unwrap();
        let verification =
            crate::verify(&project.store(), &tree, &crate::Policy::default()).unwrap();
        let believed = verification
            .applies
            .then(|| verification.closest.unwrap().verdict);
        assert!(believed.is_none_or(|v| v == original.verdict), "byte {at}");
    }
}

#[test]
fn a_part_that_passes_does_not_replace_the_whole() {
    let project = Project::new();
    let part = project.verdict(&project.report(), Some("--filter page"));
    assert!(!part.passes);
    project.save(&part);
    assert_eq!(
        project.reasons(),
        ["only a part of the suites ran: --filter page"]
    );
    let path = project.pass();
    let saved = project.store().save(&part, &project.key()).unwrap();
    assert_eq!(saved, Saved::Kept(path));
    assert!(project.verify().applies);
    // One that fails is news.
    let failed = report("local", None, &[("it works", Outcome::Failed)]);
    project.save(&project.verdict(&failed, Some("--filter page")));
    assert!(!project.verify().applies);
}

#[test]
fn the_oldest_go_and_so_does_what_was_left_half_written() {
    let project = Project::new();
    let folder = project.path(".devenv/verdicts");
    fs::create_dir_all(&folder).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(7 * 24 * 3600);
    for i in 0..60 {
        let file = fs::File::create(folder.join(format!("{i:02}.json"))).unwrap();
        file.set_modified(long_ago + Duration::from_secs(i))
            .unwrap();
    }
    let abandoned = fs::File::create(folder.join(".part-abc")).unwrap();
    abandoned.set_modified(long_ago).unwrap();
    fs::write(folder.join(".part-def"), "being written").unwrap();
    let path = project.pass();
    let mut left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left.len(), 51);
    assert!(path.exists());
    assert_eq!(left[0], ".part-def");
    assert!(left.contains(&"11.json".to_owned()) && !left.contains(&"10.json".to_owned()));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let project = Project::new();
    project.write(".devenv/verdicts", "a file");
    let verdict = project.verdict(&project.report(), None);
    let error = project.store().save(&verdict, &project.key()).unwrap_err();
    assert!(error.to_string().contains("verdicts"), "{error}");
}
