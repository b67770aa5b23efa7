//! Starts, signals, exits and the end of pods.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

use devenv_sandbox::{Exit, PodEvent, SandboxError};

use crate::{
    Scenario,
    cluster::{PROGRAM, alive, cluster, collect, container, event, eventually, run, shell},
};

pub const SCENARIOS: &[Scenario] = &[
    ("exits_tell_code_or_signal", exits_tell_code_or_signal),
    ("outputs_are_separate", outputs_are_separate),
    (
        "an_exit_ends_what_the_container_left",
        an_exit_ends_what_the_container_left,
    ),
    (
        "other_containers_survive_an_exit",
        other_containers_survive_an_exit,
    ),
    (
        "a_command_within_a_container_shares_its_root",
        a_command_within_a_container_shares_its_root,
    ),
    (
        "a_killed_pod_says_so_when_it_is_dead",
        a_killed_pod_says_so_when_it_is_dead,
    ),
    ("dropping_ends_everything", dropping_ends_everything),
    ("a_dead_janitor_is_noticed", a_dead_janitor_is_noticed),
    (
        "many_unread_events_do_not_block_a_pod",
        many_unread_events_do_not_block_a_pod,
    ),
];

fn exits_tell_code_or_signal() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    assert_eq!(run(&pod, &shell("exit 42")).exit, Exit::Code(42));
    assert_eq!(run(&pod, &shell("kill -9 $$")).exit, Exit::Signal(9));

    let started = pod.start(&shell("sleep 1000 & echo up; wait")).unwrap();
    let mut out = BufReader::new(File::from(started.stdout));
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(alive(started.pid));
    pod.signal("main", 15).unwrap();
    let exit = Exit::Signal(15);
    assert_eq!(
        event(&pod),
        PodEvent::Exited {
            container: "main".into(),
            exit,
            out_of_memory: false,
        }
    );
    assert!(
        !std::path::Path::new(&format!("/proc/{}", started.pid)).exists(),
        "not reaped"
    );
    // The sleep got the signal as well: it was in the group.
    line.clear();
    assert_eq!(out.read_line(&mut line).unwrap(), 0);
}

fn outputs_are_separate() {
    let cluster = cluster();
    let ran = run(
        &cluster.pod(2),
        &shell("echo out; echo err >&2; echo again > /dev/stdout; echo more > /dev/stderr"),
    );
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\nagain\n", "err\nmore\n")
    );
}

/// A daemon in a session of its own holds the port; the restart needs it.
fn an_exit_ends_what_the_container_left() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let daemon = format!("setsid nohup {PROGRAM} serve 80 >/dev/null 2>&1 &");
    let wait = "until grep -q ':0050 ' /proc/net/tcp; do :; done";
    for _ in 0..3 {
        let ran = run(
            &pod,
            &shell(&format!(
                "grep -q ':0050 00000000:0000 0A' /proc/net/tcp && exit 9; {daemon} {wait}; exit 3"
            )),
        );
        assert_eq!(ran.exit, Exit::Code(3), "{ran:?}");
    }
    let ran = run(&pod, &shell("ls -d /proc/[0-9]* | wc -l"));
    assert!(ran.stdout.trim().parse::<u32>().unwrap() <= 4, "{ran:?}");
}

fn other_containers_survive_an_exit() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let mut server = container(&[PROGRAM, "serve", "80"]);
    server.name = "server".into();
    let server = pod.start(&server).unwrap();
    let mut client = container(&[PROGRAM, "fetch", "127.0.0.1:80"]);
    client.name = "client".into();
    eventually("the neighbour answers over loopback", || {
        let ran = run(&pod, &client);
        (ran.stdout == "pod-2").then_some(())
    });
    assert!(alive(server.pid));
    pod.signal("server", 9).unwrap();
    assert_eq!(
        event(&pod),
        PodEvent::Exited {
            container: "server".into(),
            exit: Exit::Signal(9),
            out_of_memory: false,
        }
    );
}

fn a_command_within_a_container_shares_its_root() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let host = pod.start(&shell(
        "echo private > /tmp/f; echo; wait; sleep 1000 & wait",
    ));
    let host = host.unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(File::from(host.stdout));
    out.read_line(&mut line).unwrap();
    let mut command = shell(
        "cat /tmp/f; id -u; cut -d' ' -f5 /proc/self/stat; setsid -f sleep 1000 >/dev/null 2>&1; sleep 1000 & exit 5",
    );
    (command.name, command.within) = ("probe".into(), Some("main".into()));
    command.cwd = "/tmp".into();
    command.run_as = Some((1234, 1234));
    let ran = run(&pod, &command);
    let mut lines = ran.stdout.lines();
    assert_eq!(lines.next(), Some("private"), "{ran:?}");
    assert_eq!(lines.next(), Some("1234"), "{ran:?}");
    assert_eq!(ran.exit, Exit::Code(5));
    assert!(
        alive(host.pid),
        "the end of a command is not its container's"
    );

    // And the container's end is that of a command in it.
    command.argv = ["sleep", "1000"].map(str::to_owned).to_vec();
    pod.start(&command).unwrap();
    pod.signal("main", 9).unwrap();
    let mut ended = [event(&pod), event(&pod)].map(|event| match event {
        PodEvent::Exited {
            container, exit, ..
        } => (container, exit),
        PodEvent::PodGone => panic!("the pod lives"),
    });
    ended.sort_by(|a, b| a.0.cmp(&b.0));
    let killed = |name: &str| (name.to_owned(), Exit::Signal(9));
    assert_eq!(ended, [killed("main"), killed("probe")]);
    assert!(matches!(
        pod.start(&command),
        Err(SandboxError::NotRunning { .. })
    ));
}

fn a_killed_pod_says_so_when_it_is_dead() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let started = pod
        .start(&shell(
            "trap '' TERM INT HUP; setsid sleep 1000 & while :; do sleep 1000; done",
        ))
        .unwrap();
    pod.kill();
    assert_eq!(event(&pod), PodEvent::PodGone);
    assert!(!alive(started.pid) && !alive(pod.pid()));
    assert_eq!(event(&pod), PodEvent::PodGone);
    assert!(matches!(
        pod.start(&shell("true")),
        Err(SandboxError::PodGone { .. })
    ));
    assert!(matches!(
        pod.signal("main", 15),
        Err(SandboxError::PodGone { .. })
    ));
    // Output ends with the pod.
    collect(started.stdout).join().unwrap();
}

fn dropping_ends_everything() {
    let cluster = cluster();
    let pods = [2, 3].map(|n| cluster.pod(n));
    let pids = [0, 1].map(|i| {
        pods[i]
            .start(&shell("trap '' TERM; sleep 1000 & wait"))
            .unwrap()
            .pid
    });
    let [first, second] = pods;
    drop(first);
    eventually("a dropped pod dies", || (!alive(pids[0])).then_some(()));
    assert!(alive(pids[1]));
    let janitor = cluster.netd.pid();
    drop(cluster);
    assert!(!alive(pids[1]) && !alive(second.pid()) && !alive(janitor));
    assert_eq!(event(&second), PodEvent::PodGone);
}

fn a_dead_janitor_is_noticed() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let started = pod.start(&shell("sleep 1000")).unwrap();
    let janitor = rustix::process::Pid::from_raw(cluster.netd.pid().cast_signed()).unwrap();
    rustix::process::kill_process(janitor, rustix::process::Signal::KILL).unwrap();
    assert_eq!(event(&pod), PodEvent::PodGone);
    eventually("the pod dies", || (!alive(started.pid)).then_some(()));
    let gone = eventually("the cluster is known to be gone", || {
        cluster.netd.sockets(1).err()
    });
    assert!(matches!(gone, SandboxError::ClusterGone), "{gone:?}");
}

fn many_unread_events_do_not_block_a_pod() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    const COUNT: usize = 700;
    let mut spec = container(&["/bin/true"]);
    let mut started = 0;
    while started < COUNT {
        // As soon as the pod has seen the exit it takes the name again.
        spec.name = format!("c{started}");
        pod.start(&spec).unwrap();
        started += 1;
    }
    for _ in 0..COUNT {
        let event = event(&pod);
        assert!(
            matches!(
                event,
                PodEvent::Exited {
                    exit: Exit::Code(0),
                    ..
                }
            ),
            "{event:?}"
        );
    }
}
