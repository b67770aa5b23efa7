//! Builds: host files and network, but below the janitor.

use std::{net::TcpListener, path::Path};

use devenv_sandbox::{Exit, HostChild, HostProcess, Netd, SandboxError};

use crate::{
    Scenario,
    cluster::{alive, cluster, cluster_of, collect, eventually, me, temp, wait_readable},
};

pub const SCENARIOS: &[Scenario] = &[
    (
        "a_build_has_the_hosts_files_and_network",
        a_build_has_the_hosts_files_and_network,
    ),
    (
        "a_build_can_be_signalled_and_killed",
        a_build_can_be_signalled_and_killed,
    ),
    (
        "a_build_dies_with_its_handle_and_with_the_cluster",
        a_build_dies_with_its_handle,
    ),
    (
        "a_build_that_cannot_start_is_named",
        a_build_that_cannot_start_is_named,
    ),
];

fn process(argv: &[&str], cwd: &Path) -> HostProcess {
    HostProcess {
        argv: argv.iter().map(|argument| argument.to_string()).collect(),
        env: vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("A".into(), "b".into()),
        ],
        cwd: cwd.to_owned(),
        run_as: None,
    }
}

pub fn start(netd: &Netd, script: &str) -> HostChild {
    netd.run_host(&process(&["sh", "-c", script], Path::new("/")))
        .unwrap()
}

fn wait(child: &HostChild) -> Exit {
    wait_readable(child.events());
    child
        .try_wait()
        .unwrap()
        .expect("a readable channel has the exit")
}

fn a_build_has_the_hosts_files_and_network() {
    let owner = if me().0 == 0 { (65534, 65534) } else { me() };
    let cluster = cluster_of(owner);
    let (_dir, dir) = temp();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "pwd; id -u; echo $A; echo made > made; echo problem >&2; bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && head -c5 <&3'; exit 4"
    );
    let mut child = cluster
        .netd
        .run_host(&process(&["sh", "-c", &script], &dir))
        .unwrap();
    let (stdout, stderr) = (
        collect(child.stdout.take().unwrap()),
        collect(child.stderr.take().unwrap()),
    );
    assert_eq!(child.try_wait().unwrap(), None);
    std::io::Write::write_all(&mut listener.accept().unwrap().0, b"hello").unwrap();
    assert_eq!(wait(&child), Exit::Code(4));
    let expected = format!("{}\n{}\nb\nhello", dir.display(), owner.0);
    assert_eq!(stdout.join().unwrap(), expected);
    assert_eq!(stderr.join().unwrap(), "problem\n");
    assert!(dir.join("made").exists());
    assert_eq!(
        child.try_wait().unwrap(),
        Some(Exit::Code(4)),
        "it is told again"
    );
}

fn a_build_can_be_signalled_and_killed() {
    let cluster = cluster();
    let mut child = start(
        &cluster.netd,
        "trap 'exit 9' TERM; echo up; sleep 1000 & wait",
    );
    let out = child.stdout.take().unwrap();
    wait_readable(&out);
    child.signal(15).unwrap();
    assert_eq!(wait(&child), Exit::Code(9));
    // The sleep was in the group, so the output ends.
    assert_eq!(collect(out).join().unwrap(), "up\n");

    let child = start(&cluster.netd, "trap '' TERM; while :; do sleep 1000; done");
    child.kill();
    assert_eq!(wait(&child), Exit::Signal(9));
    assert!(!alive(child.pid()));
    assert!(matches!(child.signal(77), Err(SandboxError::Invalid(_))));
}

fn a_build_dies_with_its_handle() {
    let cluster = cluster();
    let child = start(&cluster.netd, "trap '' TERM HUP; sleep 1000 & wait");
    let pid = child.pid();
    assert!(alive(pid));
    drop(child);
    eventually("a dropped build dies", || (!alive(pid)).then_some(()));

    let mut child = start(&cluster.netd, "setsid sleep 1000 & trap '' TERM HUP; wait");
    let out = collect(child.stdout.take().unwrap());
    drop(cluster);
    assert!(!alive(child.pid()));
    out.join().unwrap();
    assert!(matches!(child.try_wait(), Err(SandboxError::ClusterGone)));
}

fn a_build_that_cannot_start_is_named() {
    let cluster = cluster();
    let error = cluster
        .netd
        .run_host(&process(&["no-such-compiler"], Path::new("/")))
        .unwrap_err();
    assert!(
        matches!(&error, SandboxError::Exec { argv0, .. } if argv0 == "no-such-compiler"),
        "{error:?}"
    );
    let error = cluster
        .netd
        .run_host(&process(&["true"], Path::new("/no/dir")))
        .unwrap_err();
    assert!(matches!(&error, SandboxError::Cwd { .. }), "{error:?}");
    assert_eq!(wait(&start(&cluster.netd, "exit 0")), Exit::Code(0));
}
