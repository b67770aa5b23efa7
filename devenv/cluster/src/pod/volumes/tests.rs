use super::*;
use crate::pod::configs::tests::Fixed;
use rstest::rstest;
use serde_json::{Value, json};

fn run(dir: &Path, volume: Value, mount: Value) -> Result<Mounts, VolumeError> {
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
    let configs = Fixed::default()
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
    mounts(
        &pod,
        &container,
        &configs,
        &Facts::default(),
        &policy,
        &[("SUB".into(), "a.txt".into())],
    )
}

fn files(mounts: &Mounts) -> Vec<(String, String, u32)> {
    let text = |f: &File| String::from_utf8(f.contents.clone()).expect("text");
    mounts
        .files
        .iter()
        .map(|f| (f.path.display().to_string(), text(f), f.mode))
        .collect()
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
    assert_eq!(mounts.binds, []);
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
        assert_eq!((mounts.files.len(), mounts.binds.len()), (0, 1));
        assert!(mounts.binds[0].source.is_dir());
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
        mounts.binds,
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
    assert_eq!(mounts.binds[0].access, Access::ReadOnly);
    std::os::unix::fs::symlink("/etc", root.join("project/link")).expect("linked");
    for bad in ["project/link", "project/../other", "other"] {
        run(&root, path(bad), mount.clone()).expect_err(bad);
    }
    assert!(!root.join("other").exists());
}
