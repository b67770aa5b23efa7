//! Binds, ConfigMap-like files, and where their mount points come from.

use std::{fs, os::unix::fs::symlink, path::Path};

use devenv_sandbox::{Access, Bind, Exit, FileMount, Limits, PodSpec};

use crate::{
    Scenario,
    cluster::{cluster, ip, run, shell, temp},
};

pub const SCENARIOS: &[Scenario] = &[
    (
        "files_appear_wherever_they_are_wanted",
        files_appear_wherever_they_are_wanted,
    ),
    (
        "pod_files_come_before_container_files",
        pod_files_come_before_container_files,
    ),
    ("large_files_fit", large_files_fit),
    ("binds_are_writable_or_not", binds_are_writable_or_not),
    (
        "a_read_only_bind_is_extended_without_touching_its_source",
        a_read_only_bind_is_extended,
    ),
    (
        "a_hidden_directory_is_empty_wherever_it_would_be_seen",
        a_hidden_directory_is_empty,
    ),
];

fn file(path: &str, contents: &str, mode: u32) -> FileMount {
    FileMount {
        path: path.into(),
        contents: contents.into(),
        mode,
    }
}

fn bind(source: &Path, target: &str, access: Access) -> Bind {
    Bind {
        source: source.to_owned(),
        target: target.into(),
        access,
    }
}

fn files_appear_wherever_they_are_wanted() {
    let cluster = cluster();
    let paths = [
        "/etc/config/deep/app.ini",     // new directories in the overlay
        "/etc/passwd",                  // over a file of the overlay
        "/usr/share/devenv-test/f.txt", // below a read-only directory
        "/usr/bin/env",                 // over a read-only file
        "/data/dir/f",                  // below a new directory of the root
        "/var/run/f",                   // through a link of the host
        "/tmp/f",
        "/dev/shm/f",
    ];
    let mut spec = shell(&format!(
        "cat {0}; stat -c %a {0}; ls /usr/share | wc -l",
        paths.join(" ")
    ));
    for (n, path) in paths.iter().enumerate() {
        spec.files.push(file(path, &format!("file {n}\n"), 0o440));
    }
    let ran = run(&cluster.pod(2), &spec);
    let mut expected: String = (0..paths.len()).map(|n| format!("file {n}\n")).collect();
    expected += &"440\n".repeat(paths.len());
    let host_entries = fs::read_dir("/usr/share").unwrap().count();
    expected += &format!("{}\n", host_entries + 1);
    assert_eq!(ran.stdout, expected, "{ran:?}");
    assert!(!Path::new("/usr/share/devenv-test").exists() && !Path::new("/data/dir").exists());
}

fn pod_files_come_before_container_files() {
    let cluster = cluster();
    let spec = PodSpec {
        hostname: "web".into(),
        ip: ip(2),
        files: vec![
            file("/etc/resolv.conf", "nameserver 10.96.0.10\n", 0o644),
            file("/etc/hosts", "127.0.0.1 localhost\n", 0o644),
        ],
        limits: Limits::default(),
        tmpfs: vec![],
    };
    let pod = cluster.netd.create_pod(&spec).unwrap();
    let mut spec = shell("cat /etc/resolv.conf /etc/hosts /etc/hostname");
    spec.files.push(file("/etc/hosts", "mine\n", 0o644));
    assert_eq!(
        run(&pod, &spec).stdout,
        "nameserver 10.96.0.10\nmine\nweb\n"
    );
}

fn large_files_fit() {
    let cluster = cluster();
    let contents: Vec<u8> = (0..1024 * 1024u32).map(|i| ((i * 31) >> 3) as u8).collect();
    let mut spec = shell("cksum < /etc/big; wc -c < /etc/big");
    let path = "/etc/big".into();
    spec.files.push(FileMount {
        path,
        contents: contents.clone(),
        mode: 0o644,
    });
    let ran = run(&cluster.pod(2), &spec);
    let (_dir, dir) = temp();
    fs::write(dir.join("big"), contents).unwrap();
    let script = format!("cksum < {0}; wc -c < {0}", dir.join("big").display());
    let host = std::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert_eq!(ran.stdout, String::from_utf8(host.stdout).unwrap());
}

fn binds_are_writable_or_not() {
    let (_dir, dir) = temp();
    fs::create_dir(dir.join("data")).unwrap();
    fs::write(dir.join("data/in"), "in").unwrap();
    fs::write(dir.join("one"), "one").unwrap();
    let cluster = cluster();
    let mut spec = shell(
        "cat /rw/in /ro/in /app/one; echo out > /rw/out || exit 3; (echo out > /ro/out) 2>/dev/null && exit 4; (echo x > /app/one) 2>/dev/null && exit 5; exit 0",
    );
    spec.binds.extend([
        bind(&dir.join("data"), "/rw", Access::ReadWrite),
        bind(&dir.join("data"), "/ro", Access::ReadOnly),
        bind(&dir.join("one"), "/app/one", Access::ReadOnly),
    ]);
    let ran = run(&cluster.pod(2), &spec);
    assert_eq!(
        (ran.stdout.as_str(), ran.exit),
        ("ininone", Exit::Code(0)),
        "{ran:?}"
    );
    assert_eq!(fs::read_to_string(dir.join("data/out")).unwrap(), "out\n");
}

/// A source tree at its own path and at the image's WORKDIR, with a ConfigMap
/// inside: the checkout must not get a mount point for it.
fn a_read_only_bind_is_extended() {
    let (_dir, dir) = temp();
    fs::create_dir(dir.join("src")).unwrap();
    fs::write(dir.join("src/main.py"), "source").unwrap();
    symlink("main.py", dir.join("src/link")).unwrap();
    let own = dir.to_str().unwrap();
    let cluster = cluster();
    let mut spec = shell(&format!(
        "cd /app && cat config/key src/link && cat {own}/src/main.py && pwd"
    ));
    spec.binds.extend([
        bind(&dir, own, Access::ReadOnly),
        bind(&dir, "/app", Access::ReadOnly),
    ]);
    spec.files.push(file("/app/config/key", "value ", 0o444));
    let ran = run(&cluster.pod(2), &spec);
    assert_eq!(ran.stdout, "value sourcesource/app\n", "{ran:?}");
    assert!(!dir.join("config").exists());
}

/// At its place on the host, in the source tree bound there and elsewhere, and
/// below the overlay that a mount point needs; not where it is bound on purpose.
fn a_hidden_directory_is_empty() {
    // Not in /tmp, of which a container has its own.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = dir.path().canonicalize().unwrap();
    fs::create_dir_all(dir.join("src/state/data")).unwrap();
    for name in ["src/main.py", "src/state/secret", "src/state/data/row"] {
        fs::write(dir.join(name), "contents").unwrap();
    }
    symlink(&dir, dir.join("link")).unwrap();
    let (own, source) = (dir.to_str().unwrap(), dir.join("src"));
    let cluster = cluster();
    let pod = cluster.pod(2);
    let state = source.join("state");
    let look = format!(
        "cd {own}/src/state && ls -A && touch x 2>/dev/null; for p in /app /link/src /ro; do ls -A $p | tr '\\n' ' '; ls -A $p/state 2>/dev/null; done; exit 0"
    );
    let mut spec = shell(&look);
    spec.hidden = vec![dir.join("link/src/state"), "/never/there".into()];
    // As the host has it, without any bind.
    assert_eq!(run(&pod, &spec).stdout.trim(), "");

    spec.binds.extend([
        bind(&source, source.to_str().unwrap(), Access::ReadWrite),
        bind(&source, "/app", Access::ReadWrite),
        bind(&dir.join("link"), "/link", Access::ReadWrite),
        bind(&source, "/ro", Access::ReadOnly),
    ]);
    spec.files.push(file("/ro/config/key", "value", 0o444));
    assert_eq!(
        run(&pod, &spec).stdout,
        "main.py state main.py state config main.py state "
    );

    let data = state.join("data");
    let mut spec = shell(&format!(
        "ls -A {0}; cat {0}/data/row; echo new > {0}/data/new; ls /on-purpose",
        state.display()
    ));
    spec.hidden = vec![state.clone()];
    spec.binds.extend([
        bind(&source, source.to_str().unwrap(), Access::ReadWrite),
        bind(&data, data.to_str().unwrap(), Access::ReadWrite),
        bind(&state, "/on-purpose", Access::ReadOnly),
    ]);
    assert_eq!(run(&pod, &spec).stdout, "data\ncontentsdata\nsecret\n");
    assert!(data.join("new").exists() && !state.join("x").exists());
}
