//! Overlays of host directories: programs write beside their code, and the
//! checkout stays as it is.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use devenv_sandbox::{Access, Bind, ContainerSpec, Exit};
use tempfile::TempDir;

use crate::{
    Scenario, USER,
    cluster::{cluster, cluster_of, collect, event, me, run, shell},
    program_for_all,
};

pub const SCENARIOS: &[Scenario] = &[
    (
        "writes_to_an_overlay_stay_in_the_container",
        writes_stay_in_the_container,
    ),
    (
        "an_overlay_is_one_layer_in_all_its_places",
        one_layer_in_all_places,
    ),
    (
        "an_overlay_hides_what_is_hidden",
        what_is_hidden_stays_hidden,
    ),
    (
        "a_file_saved_by_rename_is_seen_by_the_next_container",
        a_saved_file_is_seen_by_the_next_container,
    ),
    (
        "the_owner_can_write_wherever_the_host_lets_it",
        the_owner_can_write_everywhere,
    ),
    (
        "an_overlay_works_below_a_foreign_directory",
        a_foreign_directory_is_passed,
    ),
    (
        "directories_are_replaced_in_an_overlay",
        directories_are_replaced,
    ),
    ("mounts_in_an_overlay_are_kept", mounts_are_kept),
    (
        "a_refused_overlay_is_read_only_and_said",
        a_refused_overlay_is_said,
    ),
];

/// A source tree, not in /tmp, of which a container has its own.
fn tree() -> (TempDir, PathBuf) {
    let guard = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = guard.path().canonicalize().unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(dir.join("svc/deep")).unwrap();
    fs::write(dir.join("svc/main.py"), "source").unwrap();
    fs::write(dir.join("svc/deep/old"), "old").unwrap();
    (guard, dir)
}

fn own(spec: &mut ContainerSpec, dir: &Path) {
    spec.binds.push(at(dir, dir));
}

fn at(source: &Path, target: &Path) -> Bind {
    Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        access: Access::Overlay,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn writes_stay_in_the_container() {
    let (_dir, dir) = tree();
    let cluster = cluster();
    let pod = cluster.pod(2);
    let mut spec = shell(
        "echo changed > svc/main.py && mkdir svc/__pycache__ && echo x > svc/__pycache__/m.pyc \
         && rm svc/deep/old && echo top > top && cat svc/main.py && ls svc svc/deep .",
    );
    own(&mut spec, &dir);
    spec.cwd = dir.clone();
    let ran = run(&pod, &spec);
    let expected = "changed\n.:\nsvc\ntop\n\nsvc:\n__pycache__\ndeep\nmain.py\n\nsvc/deep:\n";
    assert_eq!(ran.stdout, expected, "{ran:?}");
    assert_eq!(names(&dir), ["svc"]);
    assert_eq!(names(&dir.join("svc")), ["deep", "main.py"]);
    assert_eq!(names(&dir.join("svc/deep")), ["old"]);
    assert_eq!(
        fs::read_to_string(dir.join("svc/main.py")).unwrap(),
        "source"
    );

    // As a container's layer, it is gone with the container.
    let mut spec = shell("ls; cat svc/main.py");
    own(&mut spec, &dir);
    spec.cwd = dir.clone();
    assert_eq!(run(&pod, &spec).stdout, "svc\nsource");
}

/// The project at its own path, and the image's WORKDIR in it.
fn one_layer_in_all_places() {
    let (_dir, dir) = tree();
    let svc = dir.join("svc");
    let cluster = cluster();
    let mut spec = shell(&format!(
        "echo one > here && cat {0}/here && echo two > {0}/there && cat there && pwd",
        svc.display()
    ));
    spec.binds = vec![at(&dir, &dir), at(&svc, "/app".as_ref())];
    spec.cwd = "/app".into();
    let ran = run(&cluster.pod(2), &spec);
    assert_eq!(ran.stdout, "one\ntwo\n/app\n", "{ran:?}");
    assert_eq!(names(&svc), ["deep", "main.py"]);
}

fn what_is_hidden_stays_hidden() {
    let (_dir, dir) = tree();
    let state = dir.join(".state");
    fs::create_dir_all(state.join("venvs/a")).unwrap();
    fs::write(state.join("secret"), "secret").unwrap();
    fs::write(state.join("venvs/a/lib"), "lib").unwrap();
    let cluster = cluster();
    let mut spec = shell(
        "for p in $PLACES; do ls -A $p/.state; touch $p/.state/x 2>/dev/null && echo wrote; \
         cat $p/.state/venvs/a/lib; touch $p/.state/venvs/x 2>/dev/null && echo wrote venvs; \
         rmdir $p/.state 2>/dev/null; mv $p/.state $p/other 2>/dev/null; ls $p; done; exit 0",
    );
    spec.env
        .push(("PLACES".into(), format!("{} /again", dir.display())));
    spec.hidden = vec![state.clone()];
    let venvs = Bind {
        access: Access::ReadOnly,
        ..at(&state.join("venvs"), &state.join("venvs"))
    };
    spec.binds = vec![at(&dir, &dir), venvs, at(&dir, "/again".as_ref())];
    let ran = run(&cluster.pod(2), &spec);
    assert_eq!(ran.stdout, "venvs\nlibsvc\nvenvs\nlibsvc\n", "{ran:?}");

    // Bound on purpose, a hidden directory has a layer of its own.
    let mut spec = shell("cat /state/secret && echo x > /state/x && ls /again/.state");
    spec.hidden = vec![state.clone()];
    spec.binds = vec![at(&dir, "/again".as_ref()), at(&state, "/state".as_ref())];
    let ran = run(&cluster.pod(3), &spec);
    assert_eq!(
        (ran.stdout.as_str(), ran.exit),
        ("secret", Exit::Code(0)),
        "{ran:?}"
    );
    assert_eq!(names(&state), ["secret", "venvs"]);
}

fn a_saved_file_is_seen_by_the_next_container() {
    let (_dir, dir) = tree();
    let cluster = cluster();
    let pod = cluster.pod(2);
    let mut spec = shell("cat svc/main.py");
    own(&mut spec, &dir);
    spec.cwd = dir.clone();
    let mut waiting = shell("cat svc/main.py; read line < /dev/full; sleep 1000");
    own(&mut waiting, &dir);
    waiting.cwd = dir.clone();
    waiting.name = "old".into();
    // One that has it in its caches goes on running.
    pod.start(&waiting).unwrap();
    for round in 0..20 {
        let text = format!("version {round}");
        fs::write(dir.join("svc/.main.py.tmp"), &text).unwrap();
        fs::rename(dir.join("svc/.main.py.tmp"), dir.join("svc/main.py")).unwrap();
        assert_eq!(run(&pod, &spec).stdout, text);
    }
}

/// Also where a directory above belongs to another user.
fn the_owner_can_write_everywhere() {
    let (_dir, dir) = tree();
    let owner = if me().0 == 0 { (1234, 2345) } else { me() };
    if me().0 == 0 {
        for path in ["svc/deep", "svc/deep/old", "svc/main.py"] {
            chown(dir.join(path), Some(owner.0), Some(owner.1)).unwrap();
        }
    }
    let script = "echo new > new && echo more >> old && chmod 600 old && mkdir -p a/b && mv a c && \
         cat new old && ls && echo x >> ../main.py && stat -c '%u %g' old ../main.py";
    let mut spec = shell(script);
    own(&mut spec, &dir);
    spec.cwd = dir.join("svc/deep");
    let ran = run(&cluster_of(owner).pod(2), &spec);
    let ids = format!("{} {}\n", owner.0, owner.1);
    assert_eq!(
        ran.stdout,
        format!("new\noldmore\nc\nnew\nold\n{ids}{ids}"),
        "{ran:?}"
    );
    assert_eq!(fs::metadata(dir.join("svc/deep")).unwrap().uid(), owner.0);
    assert_eq!(names(&dir.join("svc/deep")), ["old"]);
}

/// An ordinary user's folder in a directory of root's, which the kernel would
/// not let it copy.
fn a_foreign_directory_is_passed() {
    if me().0 != 0 {
        return; // the other half of the test needs root to make the directory
    }
    let (_dir, dir) = tree();
    chown(dir.join("svc/deep"), Some(USER), Some(USER)).unwrap();
    chown(dir.join("svc/deep/old"), Some(USER), Some(USER)).unwrap();
    let output = Command::new("setpriv")
        .args([&format!("--reuid={USER}"), &format!("--regid={USER}")])
        .args(["--clear-groups", "--"])
        .arg(program_for_all())
        .args(["overlay-in-foreign-directory", dir.to_str().unwrap()])
        .output();
    let Ok(output) = output else {
        println!("skipped: there is no setpriv program");
        return;
    };
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ok\n",
        "{output:?}"
    );
    assert_eq!(names(&dir.join("svc/deep")), ["old"]);
}

/// Runs as the ordinary user.
pub fn overlay_in_foreign_directory(dir: &str) {
    let dir = Path::new(dir);
    let mut spec = shell("echo new > new && echo er >> old && cat new old && ls .. && ls ../..");
    own(&mut spec, dir);
    spec.cwd = dir.join("svc/deep");
    let ran = run(&cluster().pod(2), &spec);
    let expected = "new\nolder\ndeep\nmain.py\nsvc\n";
    assert_eq!(ran.stdout, expected, "{ran:?}");
    println!("ok");
}

/// What package managers do: a directory goes and another takes its name.
fn directories_are_replaced() {
    let (_dir, dir) = tree();
    symlink("main.py", dir.join("svc/link")).unwrap();
    let mut spec = shell(
        "rm -r svc/deep && mkdir svc/deep && touch svc/deep/fresh && ls svc/deep && \
         mkdir new && touch new/file && mv new svc/new && ls svc/new && \
         ln -sf deep svc/link && readlink svc/link && mv svc/main.py svc/other.py && cat svc/other.py",
    );
    own(&mut spec, &dir);
    spec.cwd = dir.clone();
    let ran = run(&cluster().pod(2), &spec);
    assert_eq!(ran.stdout, "fresh\nfile\ndeep\nsource", "{ran:?}");
    assert_eq!(names(&dir.join("svc")), ["deep", "link", "main.py"]);
}

/// A project folder can have mounts in it: a data disk, a bind of a file.
fn mounts_are_kept() {
    let (_dir, dir) = tree();
    fs::create_dir_all(dir.join("disk")).unwrap();
    fs::create_dir_all(dir.join("other")).unwrap();
    fs::write(dir.join("one"), "covered").unwrap();
    let script = format!(
        "mount -t tmpfs disk {0}/disk && echo data > {0}/disk/data && mount --bind {0}/svc/main.py {0}/one && exec {1} overlay-with-mounts {0}",
        dir.display(),
        std::env::current_exe().unwrap().display(),
    );
    let mut unshare = Command::new("unshare");
    if me().0 != 0 {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare.args(["--mount", "sh", "-c", &script]).output();
    let Ok(output) = output else {
        println!("skipped: there is no unshare program");
        return;
    };
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ok\n",
        "{output:?}"
    );
    assert_eq!(names(&dir.join("svc")), ["deep", "main.py"]);
}

/// Runs in a mount namespace where the tree has mounts in it.
pub fn overlay_with_mounts(dir: &str) {
    let dir = Path::new(dir);
    let cluster = cluster();
    let pod = cluster.pod(2);
    let mut spec = shell(
        "cat ../disk/data ../one; echo x > written && cat written; (echo x > ../one) 2>/dev/null && echo wrote; exit 0",
    );
    own(&mut spec, dir);
    spec.cwd = dir.join("svc");
    let started = pod.start(&spec).unwrap();
    let out = collect(started.stdout);
    let end = event(&pod);
    assert_eq!(out.join().unwrap(), "data\nsourcex\n", "{end:?}");
    // An ordinary user's overlay would uncover what lies below another's mounts,
    // so only the program's own folder is writable.
    match started.warnings.as_slice() {
        [] if cluster.netd.is_privileged() => {}
        [warning] if !cluster.netd.is_privileged() => {
            let only = format!("only below {}", spec.cwd.display());
            assert!(warning.contains(&only), "{warning}");
        }
        other => panic!("{other:?}"),
    }
    println!("ok");
}

/// The kernel's own file systems cannot be below an overlay.
fn a_refused_overlay_is_said() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let mut spec = shell("cat /x/ostype; (echo y > /x/ostype) 2>/dev/null || echo refused");
    spec.binds
        .push(at("/proc/sys/kernel".as_ref(), "/x".as_ref()));
    let started = pod.start(&spec).unwrap();
    let out = collect(started.stdout);
    event(&pod);
    assert_eq!(out.join().unwrap(), "Linux\nrefused\n");
    let [warning] = started.warnings.as_slice() else {
        panic!("{:?}", started.warnings)
    };
    assert!(
        warning.starts_with("/x is read-only in the container")
            && warning.contains("/proc/sys/kernel"),
        "{warning}"
    );
    // What needs none says nothing.
    assert!(pod.start(&shell("true")).unwrap().warnings.is_empty());
}
