use super::*;
use crate::pod::configs::tests::Fixed as Objects;
use rstest::rstest;
use serde_json::{Value, json};

fn run(dir: &Path, volume: Value, mount: Value) -> Result<Vec<Bind>, VolumeError> {
    let mut volume = volume;
    volume["name"] = json!("v");
    let mut mount = mount;
    mount["name"] = json!("v");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "x"}},
        "spec": {"containers": [], "volumes": [volume]},
    }))
    .expect("a pod");
    let container: Container =
        serde_json::from_value(json!({"name": "c", "volumeMounts": [mount]})).expect("a container");
    let configs = Objects::default()
        .config_map("cm", &[("a.txt", "A"), ("b.txt", "B")])
        .secret("s", &[("key", "K")])
        .config_map("empty", &[]);
    let uid = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let policy = HostPolicy {
        volumes_dir: dir.join("volumes"),
        allowed: vec![dir.join("project")],
        owner: uid,
    };
    std::fs::create_dir_all(dir.join("project/data")).expect("made");
    let facts = Facts::default();
    let source = Source {
        pod: &pod,
        configs: &configs,
        facts: &facts,
        policy: &policy,
        user: uid,
    };
    mounts(&source, &container, &[("SUB".into(), "a.txt".into())])
}

/// Every file that a bind shows: where, what, and its permission bits.
fn files(binds: &[Bind]) -> Vec<(String, String, u32)> {
    fn walk(source: &Path, target: &Path, found: &mut Vec<(String, String, u32)>) {
        let real = source.metadata().expect("there");
        if !real.is_dir() {
            let text = std::fs::read_to_string(source).expect("text");
            let mode = real.permissions().mode() & 0o777;
            return found.push((target.display().to_string(), text, mode));
        }
        for entry in std::fs::read_dir(source).expect("there") {
            let name = entry.expect("readable").file_name();
            if !name.as_encoded_bytes().starts_with(b"..") {
                walk(&source.join(&name), &target.join(&name), found);
            }
        }
    }
    let mut found = Vec::new();
    for bind in binds {
        walk(&bind.source, &bind.target, &mut found);
    }
    found.sort();
    found
}

#[rstest]
#[case(json!({"configMap": {"name": "cm"}}), json!({"mountPath": "/etc/c"}),
    &[("/etc/c/a.txt", "A", 0o644), ("/etc/c/b.txt", "B", 0o644)])]
#[case(json!({"configMap": {"name": "cm", "defaultMode": 0o400, "items": [{"key": "b.txt", "path": "d/x", "mode": 0o755}]}}),
    json!({"mountPath": "/etc/c"}), &[("/etc/c/d/x", "B", 0o755)])]
#[case(json!({"configMap": {"name": "cm"}}), json!({"mountPath": "/etc/only", "subPath": "a.txt"}), &[("/etc/only", "A", 0o644)])]
#[case(json!({"configMap": {"name": "cm"}}), json!({"mountPath": "/etc/only", "subPathExpr": "$(SUB)"}), &[("/etc/only", "A", 0o644)])]
#[case(json!({"secret": {"secretName": "s", "defaultMode": 0o600}}), json!({"mountPath": "/s"}), &[("/s/key", "K", 0o600)])]
#[case(json!({"projected": {"sources": [{"secret": {"name": "s"}},
    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}),
    json!({"mountPath": "/p"}), &[("/p/key", "K", 0o644), ("/p/labels", "app=\"x\"", 0o644)])]
fn object_volumes(
    #[case] volume: Value,
    #[case] mount: Value,
    #[case] expected: &[(&str, &str, u32)],
) {
    let dir = tempfile::tempdir().expect("a folder");
    let mounts = run(dir.path(), volume, mount).expect("resolves");
    let expected: Vec<_> = expected
        .iter()
        .map(|(p, c, m)| ((*p).to_owned(), (*c).to_owned(), *m))
        .collect();
    assert_eq!(files(&mounts), expected);
    assert!(mounts.iter().all(|bind| bind.access == Access::ReadOnly));
}

#[rstest]
#[case(json!({"configMap": {"name": "no"}}), json!({"mountPath": "/c"}), r#"configmap "no" not found in namespace "ns""#)]
#[case(json!({"secret": {"secretName": "no"}}), json!({"mountPath": "/c"}), r#"secret "no" not found in namespace "ns""#)]
#[case(json!({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}), json!({"mountPath": "/c"}),
    r#"references non-existent key "z" of "cm""#)]
#[case(json!({"configMap": {"name": "cm", "items": [{"key": "a.txt", "path": "../z"}]}}), json!({"mountPath": "/c"}), "without `..`")]
#[case(json!({"configMap": {"name": "cm"}}), json!({"mountPath": "/c", "subPath": "zz"}), "is not among the files")]
#[case(json!({"nfs": {"server": "s", "path": "/"}}), json!({"mountPath": "/c"}), "is not supported here")]
#[case(json!({"hostPath": {"path": "/etc"}}), json!({"mountPath": "/c"}), "is outside the project")]
fn refusals(#[case] volume: Value, #[case] mount: Value, #[case] message: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let error = run(dir.path(), volume, mount).expect_err("refused");
    assert!(error.0.contains(message), "{error}");
}

#[test]
fn optional_objects_leave_an_empty_directory() {
    let dir = tempfile::tempdir().expect("a folder");
    for volume in [
        json!({"configMap": {"name": "no", "optional": true}}),
        json!({"configMap": {"name": "empty"}}),
    ] {
        let mounts = run(dir.path(), volume, json!({"mountPath": "/c"})).expect("resolves");
        assert_eq!((files(&mounts), mounts.len()), (vec![], 1));
        assert!(mounts[0].source.is_dir());
    }
}

#[test]
fn empty_dir_is_made_and_shared() {
    let dir = tempfile::tempdir().expect("a folder");
    let mounts = run(
        dir.path(),
        json!({"emptyDir": {}}),
        json!({"mountPath": "/cache"}),
    )
    .expect("resolves");
    let source = dir.path().join("volumes/v");
    assert_eq!(
        mounts,
        [Bind {
            source: source.clone(),
            target: "/cache".into(),
            access: Access::ReadWrite,
        }]
    );
    assert_eq!(
        source.metadata().expect("made").permissions().mode() & 0o777,
        0o777
    );
}

#[test]
fn host_paths_stay_in_the_project_even_through_links() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().canonicalize().expect("real");
    let path = |p: &str| json!({"hostPath": {"path": root.join(p), "type": "DirectoryOrCreate"}});
    let mount = json!({"mountPath": "/d", "readOnly": true});
    let mounts = run(&root, path("project/new/deep"), mount.clone()).expect("allowed");
    assert!(root.join("project/new/deep").is_dir());
    assert_eq!(mounts[0].access, Access::ReadOnly);
    std::os::unix::fs::symlink("/etc", root.join("project/link")).expect("linked");
    for bad in ["project/link", "project/../other", "other"] {
        run(&root, path(bad), mount.clone()).expect_err(bad);
    }
    assert!(!root.join("other").exists());
}

#[test]
fn what_objects_say_later_appears_unless_they_are_immutable() {
    let dir = tempfile::tempdir().expect("a folder");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"containers": [], "volumes": [
            {"name": "live", "configMap": {"name": "cm"}},
            {"name": "fixed", "secret": {"secretName": "fixed-s"}},
            {"name": "late", "configMap": {"name": "late", "optional": true}},
        ]},
    }))
    .expect("a pod");
    let mounted =
        ["live", "fixed", "late"].map(|v| json!({"name": v, "mountPath": format!("/{v}")}));
    let container: Container =
        serde_json::from_value(json!({"name": "c", "volumeMounts": mounted})).expect("a container");
    let policy = HostPolicy {
        volumes_dir: dir.path().join("volumes"),
        allowed: vec![],
        owner: (0, 0),
    };
    let user = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let facts = Facts::default();
    let with = |configs: &Objects, fixed: Option<&mut Fixed>| {
        let source = Source {
            pod: &pod,
            configs,
            facts: &facts,
            policy: &policy,
            user,
        };
        match fixed {
            None => (mounts(&source, &container, &[]).expect("mounted"), vec![]),
            Some(fixed) => (vec![], refresh(&source, &container, fixed)),
        }
    };
    let first = Objects::default()
        .config_map("cm", &[("a", "1")])
        .secret("fixed-s", &[("k", "1")]);
    let (binds, _) = with(&first, None);
    let text = |path: &str, text: &str| (path.to_owned(), text.to_owned(), 0o644);
    assert_eq!(files(&binds), [text("/fixed/k", "1"), text("/live/a", "1")]);
    let mut fixed = Fixed::new();
    assert_eq!(with(&first, Some(&mut fixed)).1, []);
    let second = Objects::default()
        .config_map("cm", &[("a", "2")])
        .config_map("late", &[("z", "9")])
        .secret("fixed-s", &[("k", "2")]);
    assert_eq!(with(&second, Some(&mut fixed)).1, []);
    let now = [
        text("/fixed/k", "1"),
        text("/late/z", "9"),
        text("/live/a", "2"),
    ];
    assert_eq!(files(&binds), now);
    // An object that is gone leaves what there was, and is told.
    let (_, failed) = with(&Objects::default(), Some(&mut fixed));
    let told: Vec<String> = failed.iter().map(|(v, e)| format!("{v}: {e}")).collect();
    assert_eq!(
        told,
        [r#"live: configmap "cm" not found in namespace "ns""#]
    );
    assert_eq!(files(&binds), [now[0].clone(), now[2].clone()]);
}
