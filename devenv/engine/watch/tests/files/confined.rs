//! Where hardly anything can be watched, and where filesystems come and go: in user
//! namespaces, which have limits and mounts of their own.

use std::process::{Command, Output};

use super::{
    polling::{polling, until},
    *,
};
use devenv_watch::Mode;

/// Set for a test that runs inside.
const INSIDE: &str = "DEVENV_WATCH_TEST_INSIDE";

fn in_a_namespace(script: &str) -> std::io::Result<Output> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(std::env::current_exe()?);
    command.env(INSIDE, "1").output()
}

/// Runs `test`, which is called `name` here, in a namespace that `setup` prepares.
fn confined(setup: &str, name: &str, test: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        return { runtime }.enable_all().build().unwrap().block_on(test);
    }
    if !in_a_namespace(setup).is_ok_and(|o| o.status.success()) {
        println!("SKIP: no user namespaces here");
        return;
    }
    let run = format!("{setup} && exec \"$0\" --exact confined::{name}");
    let output = in_a_namespace(&run).unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("1 passed"), "{stdout}");
}

#[test]
fn past_the_limit_of_watches_it_polls_and_says_so() {
    confined(
        "echo 6 > /proc/sys/user/max_inotify_watches",
        "past_the_limit_of_watches_it_polls_and_says_so",
        with_six_watches(),
    );
}

#[test]
fn without_an_inotify_instance_it_polls_and_says_so() {
    confined(
        "echo 0 > /proc/sys/user/max_inotify_instances",
        "without_an_inotify_instance_it_polls_and_says_so",
        without_an_instance(),
    );
}

#[test]
fn what_was_hidden_by_a_mount_is_watched_once_it_is_seen() {
    confined(
        "mount -t tmpfs none /mnt",
        "what_was_hidden_by_a_mount_is_watched_once_it_is_seen",
        a_mount_that_goes(),
    );
}

async fn with_six_watches() {
    let prepare = |dir: &Path| fs::create_dir(dir.join("0")).unwrap();
    let options = Options {
        always_poll: false,
        ..polling()
    };
    let mut watched = Watched::new(prepare, vec![input("all", ".")], options).await;
    assert_eq!(watched.watcher.mode(), Mode::Events);
    for i in 0..8 {
        write_and_change(&mut watched, &format!("{i}/new/deep")).await;
    }
    let why = why(&watched);
    let mends = "sudo sysctl fs.inotify.max_user_watches=";
    assert!(why.contains(mends), "{why}");
}

async fn without_an_instance() {
    let options = Options {
        always_poll: false,
        ..polling()
    };
    let mut watched = Watched::new(|_| {}, vec![input("all", ".")], options).await;
    let why = why(&watched);
    let mends = "sudo sysctl fs.inotify.max_user_instances=";
    assert!(why.contains(mends), "{why}");
    write_and_change(&mut watched, "a/b").await;
}

async fn a_mount_that_goes() {
    let mount = |args: &[&str], dir: &Path| {
        let done = Command::new(args[0]).args(&args[1..]).arg(dir).status();
        assert!(done.unwrap().success());
    };
    let mut watched = Watched::all(|dir| {
        fs::create_dir_all(dir.join("a/hidden")).unwrap();
        mount(&["mount", "-t", "tmpfs", "none"], &dir.join("a"));
        fs::create_dir(dir.join("a/shown")).unwrap();
    })
    .await;
    watched.write("a/shown/f", "1");
    assert_eq!(watched.all_heard().await, ["a/shown/f"]);
    mount(&["umount"], &watched.path("a"));
    while !watched.burst().await.rescan {}
    watched.write("a/hidden/f", "1");
    assert_eq!(watched.all_heard().await, ["a/hidden/f"]);
}

fn why(watched: &Watched) -> String {
    match watched.watcher.mode() {
        Mode::Polling { why } => why,
        Mode::Events => panic!("it polls"),
    }
}

async fn write_and_change(watched: &mut Watched, folder: &str) {
    fs::create_dir_all(watched.path(folder)).unwrap();
    let file = format!("{folder}/a");
    watched.write(&file, "1");
    until(watched, "all", &file).await;
    watched.write(&file, "22");
    until(watched, "all", &file).await;
}
