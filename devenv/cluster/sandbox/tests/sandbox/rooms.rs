//! What a container can see and do.

use std::{path::Path, process::Command};

use crate::{
    Scenario,
    cluster::{PROGRAM, cluster, cluster_of, collect, container, me, run, shell},
    host,
};
use devenv_sandbox::Exit;

pub const SCENARIOS: &[Scenario] = &[
    ("the_host_is_read_only", the_host_is_read_only),
    (
        "containers_see_their_pod_only",
        containers_see_their_pod_only,
    ),
    ("containers_have_few_rights", containers_have_few_rights),
    ("containers_inherit_nothing", containers_inherit_nothing),
    (
        "no_program_starts_with_signals_blocked",
        no_program_starts_with_signals_blocked,
    ),
    (
        "the_owner_and_run_as_are_honoured",
        the_owner_and_run_as_are_honoured,
    ),
    (
        "ways_out_of_the_room_are_shut",
        ways_out_of_the_room_are_shut,
    ),
];

fn the_host_is_read_only() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let ran = run(
        &pod,
        &shell(
            "for d in /usr /var /sys /opt /home; do touch $d/devenv-test 2>/dev/null && echo wrote $d; done
             for d in /etc /tmp /run /dev/shm; do touch $d/devenv-test || echo cannot write $d; done
             grep -c ' /usr ' /proc/self/mountinfo; ls /etc/passwd; echo ok > /dev/stdout; echo x > /dev/null",
        ),
    );
    assert_eq!(ran.stdout, "1\n/etc/passwd\nok\n", "{ran:?}");
    for dir in ["/etc", "/tmp", "/run", "/dev/shm"] {
        assert!(
            !Path::new(dir).join("devenv-test").exists(),
            "{dir} of the host was written"
        );
    }
    // The next container of the pod starts afresh.
    let again = run(&pod, &shell("ls /etc/devenv-test /tmp/devenv-test"));
    assert_eq!(again.exit, Exit::Code(2), "{again:?}");
}

/// Without SIGCHLD a program waits for its children for ever.
fn no_program_starts_with_signals_blocked() {
    const MASK: &str = "grep -h SigBlk /proc/self/status";
    let cluster = cluster();
    let ran = run(&cluster.pod(2), &shell(MASK));
    assert_eq!(ran.stdout, "SigBlk:\t0000000000000000\n", "{ran:?}");
    let mut build = host::start(&cluster.netd, MASK);
    let said = collect(build.stdout.take().unwrap());
    assert_eq!(said.join().unwrap(), "SigBlk:\t0000000000000000\n");
}

fn containers_see_their_pod_only() {
    let cluster = cluster();
    let (pod, _other) = (cluster.pod(2), cluster.pod(3));
    let ran = run(
        &pod,
        &shell(
            "hostname; cat /etc/hostname; ls -d /proc/[0-9]* | wc -l; ls /sys > /dev/null; cat /proc/1/cmdline | tr '\\0' ' '; ip -o link 2>/dev/null | wc -l; cat /proc/net/dev | grep -c :",
        ),
    );
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[..2], ["pod-2", "pod-2"], "{ran:?}");
    // pod-init, the shell, ls and wc.
    assert!(lines[2].parse::<u32>().unwrap() <= 4, "{ran:?}");
    assert!(lines[3].starts_with("devenv pod-init pod-2"), "{ran:?}");
    assert_eq!(lines.last().unwrap(), &"2", "lo and eth0: {ran:?}");
}

fn containers_have_few_rights() {
    let cluster = cluster();
    let ran = run(
        &cluster.pod(2),
        &shell("grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status"),
    );
    let value = |name: &str| {
        let line = ran
            .stdout
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(value("NoNewPrivs"), "1");
    let effective = u64::from_str_radix(&value("CapEff"), 16).unwrap();
    let bounding = u64::from_str_radix(&value("CapBnd"), 16).unwrap();
    // SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT, NET_ADMIN, MKNOD, DAC_READ_SEARCH
    for dangerous in [16, 17, 19, 21, 22, 12, 27, 2] {
        assert_eq!(
            (effective | bounding) >> dangerous & 1,
            0,
            "capability {dangerous}: {ran:?}"
        );
    }
    if me().0 != 0 {
        assert_eq!(effective, 0);
    }
}

fn containers_inherit_nothing() {
    let cluster = cluster();
    let mut spec = container(&[PROGRAM, "descriptors"]);
    spec.env = vec![("ONLY".into(), "this".into())];
    let expected = "0 /dev/null\n1 pipe\n2 pipe\n";
    assert_eq!(run(&cluster.pod(2), &spec).stdout, expected);

    // Also when the supervisor was started with open descriptors.
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "exec 7</etc/passwd 9</dev/zero; exec {} descriptors-of-a-pod",
        exe.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        expected,
        "{output:?}"
    );

    let mut spec = container(&["/usr/bin/env"]);
    spec.env = vec![("ONLY".into(), "this".into())];
    assert_eq!(run(&cluster.pod(3), &spec).stdout, "ONLY=this\n");
}

fn the_owner_and_run_as_are_honoured() {
    let id = "id -u; id -g; id -G";
    let owner = if me().0 == 0 { (1234, 2345) } else { me() };
    let cluster = cluster_of(owner);
    let pod = cluster.pod(2);
    let ran = run(&pod, &shell(id));
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines[..2],
        [owner.0.to_string(), owner.1.to_string()],
        "{ran:?}"
    );

    for user in [(0, 0), (1000, 3000), (65534, 65534)] {
        let mut spec = shell(&format!("{id}; touch /tmp/x && stat -c '%u %g' /tmp/x"));
        spec.run_as = Some(user);
        let ran = run(&pod, &spec);
        let expected = format!("{0}\n{1}\n{1}\n{0} {1}\n", user.0, user.1);
        assert_eq!(ran.stdout, expected, "{ran:?}");
    }
}

fn ways_out_of_the_room_are_shut() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let mut spec = shell(
        "ls -A /run
         ls /proc/1/root/ 2>/dev/null && echo saw the root of pod-init
         mount -o remount,rw /usr 2>/dev/null && echo remounted
         umount /usr 2>/dev/null && echo unmounted
         mknod /tmp/disk b 254 0 2>/dev/null && echo made a device
         (echo x > /proc/sysrq-trigger) 2>/dev/null && echo sysrq
         (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo core_pattern
         kill -9 1 2>/dev/null; kill -TERM 1 2>/dev/null
         unshare -m true 2>/dev/null && echo unshared mounts
         ls /.host /var/.host 2>/dev/null; echo end",
    );
    spec.run_as = Some((0, 0));
    let ran = run(&pod, &spec);
    assert_eq!(ran.stdout, "lock\nuser\nend\n", "{ran:?}");
    assert_eq!(ran.exit, Exit::Code(0));
}
