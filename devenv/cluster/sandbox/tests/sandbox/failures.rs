//! What cannot be done is said, with its object, and leaves the pod usable.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::Command,
};

use devenv_sandbox::{Access, Bind, Exit, FileMount, SandboxError};

use crate::{
    Scenario,
    cluster::{cluster, container, run, shell, temp},
};

pub const SCENARIOS: &[Scenario] = &[
    (
        "what_cannot_be_started_is_named",
        what_cannot_be_started_is_named,
    ),
    (
        "namespaces_that_are_forbidden_are_explained",
        namespaces_that_are_forbidden_are_explained,
    ),
    ("a_person_cannot_play_a_role", a_person_cannot_play_a_role),
];

fn what_cannot_be_started_is_named() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let (_dir, dir) = temp();
    fs::write(dir.join("plain"), "no program").unwrap();
    fs::create_dir(dir.join("closed")).unwrap();
    fs::set_permissions(dir.join("closed"), Permissions::from_mode(0o000)).unwrap();
    let with_dir = |mut spec: devenv_sandbox::ContainerSpec| {
        spec.binds.push(Bind {
            source: dir.clone(),
            target: "/b".into(),
            access: Access::ReadOnly,
        });
        spec
    };

    let errno = |error: &std::io::Error| error.raw_os_error().unwrap();
    for (argv0, expected) in [
        ("no-such-program", libc::ENOENT),
        ("/b/plain", libc::EACCES),
    ] {
        match pod.start(&with_dir(container(&[argv0]))).unwrap_err() {
            SandboxError::Exec {
                argv0: named,
                source,
            } => {
                assert_eq!((named.as_str(), errno(&source)), (argv0, expected));
            }
            other => panic!("{other:?}"),
        }
    }
    for (cwd, expected) in [
        ("/no/such/dir", libc::ENOENT),
        ("/b/plain", libc::ENOTDIR),
        ("/b/closed", libc::EACCES),
    ] {
        let mut spec = with_dir(shell("true"));
        spec.cwd = cwd.into();
        spec.run_as = Some((1000, 1000));
        match pod.start(&spec).unwrap_err() {
            SandboxError::Cwd { cwd: named, source } => {
                assert_eq!((named.to_str().unwrap(), errno(&source)), (cwd, expected));
            }
            other => panic!("{other:?}"),
        }
    }
    // Lets an ordinary user remove it.
    fs::set_permissions(dir.join("closed"), Permissions::from_mode(0o700)).unwrap();

    let mut spec = shell("true");
    spec.binds.push(Bind {
        source: "/no/source".into(),
        target: "/x".into(),
        access: Access::ReadOnly,
    });
    let error = pod.start(&spec).unwrap_err();
    assert!(matches!(&error, SandboxError::Bind { .. }), "{error:?}");
    assert!(error.to_string().contains("/no/source"), "{error}");

    let mut spec = shell("true");
    let path = "/etc/passwd/x".into();
    spec.files.push(FileMount {
        path,
        contents: vec![],
        mode: 0o644,
    });
    let error = pod.start(&spec).unwrap_err();
    assert!(matches!(&error, SandboxError::File { .. }), "{error:?}");

    let error = pod.signal("main", 15).unwrap_err();
    assert!(
        matches!(error, SandboxError::NotRunning { .. }),
        "{error:?}"
    );
    let error = pod.signal("main", 999).unwrap_err();
    assert!(matches!(error, SandboxError::Invalid(_)), "{error:?}");

    // None of that left an event or harmed the pod.
    assert_eq!(pod.next_event().unwrap(), None);
    assert_eq!(run(&pod, &shell("exit 7")).exit, Exit::Code(7));
    pod.start(&shell("sleep 1000")).unwrap();
    let error = pod.start(&shell("true")).unwrap_err();
    assert!(
        matches!(error, SandboxError::AlreadyRunning { .. }),
        "{error:?}"
    );
}

/// In a user namespace of its own, the limit of namespaces can be set to 0.
fn namespaces_that_are_forbidden_are_explained() {
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all -- {} try-start",
        exe.display()
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", &script])
        .output();
    let Ok(output) = output else {
        println!("skipped: there is no unshare program");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("NamespacesForbidden"), "{output:?}");
    assert!(
        said.contains("sudo sysctl -w user.max_user_namespaces=15000"),
        "{output:?}"
    );
}

fn a_person_cannot_play_a_role() {
    // Without the parent's socket the word is an ordinary argument, here a
    // filter for tests that matches none. The role would fail for want of its
    // arguments.
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("netd")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("running 0 tests"),
        "{output:?}"
    );
}
