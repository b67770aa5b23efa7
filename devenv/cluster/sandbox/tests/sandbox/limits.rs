//! Limits of memory, CPU and processes, where this machine lets us set them,
//! and what is said where it does not.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use devenv_sandbox::{Access, Bind, Exit, HostProcess, Limits, Pod, PodEvent, PodSpec, Tmpfs};

use crate::{
    Scenario,
    cluster::{
        Cluster, PROGRAM, cluster, collect, container, event, eventually, ip, run, shell, temp,
    },
};

pub const SCENARIOS: &[Scenario] = &[
    ("limits_are_enforced_or_said", limits_are_enforced_or_said),
    ("a_container_out_of_memory_is_told", out_of_memory_is_told),
    (
        "a_busy_container_is_throttled",
        a_busy_container_is_throttled,
    ),
    (
        "a_build_weighs_as_little_as_a_small_pod",
        a_build_weighs_as_little_as_a_small_pod,
    ),
    ("a_fork_bomb_is_bounded", a_fork_bomb_is_bounded),
    ("control_groups_go_with_what_is_in_them", groups_go),
    ("memory_volumes_are_shared_and_bounded", memory_volumes),
    ("a_full_disk_refuses_writes_and_keeps_files", full_disks),
];

/// The groups of a project, by their record.
pub fn recorded(run_dir: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(run_dir.join("cgroups")).unwrap_or_default();
    text.lines()
        .map(|line| line.splitn(3, ' ').nth(2).unwrap().into())
        .collect()
}

pub fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// All of this name, in any hierarchy and at any depth.
pub fn groups_named(name: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = open.pop() {
        // Groups of others come and go while one looks.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name() == *name {
                    found.insert(entry.path());
                }
                open.push(entry.path());
            }
        }
    }
    found
}

fn unlimited(cluster: &Cluster) -> bool {
    let missing = cluster.netd.limits_missing();
    if let Some(why) = missing {
        println!("nothing to see here: {why}");
    }
    missing.is_some()
}

fn pod_with(cluster: &Cluster, limits: Limits, tmpfs: Vec<Tmpfs>) -> Pod {
    let spec = PodSpec {
        hostname: "limited".into(),
        ip: ip(2),
        files: vec![],
        limits,
        tmpfs,
    };
    cluster.netd.create_pod(&spec).unwrap()
}

fn all_limits() -> Limits {
    Limits {
        cpu: Some(500),
        cpu_request: Some(250),
        memory: Some(64 << 20),
        pids: Some(50),
    }
}

/// In both cases the container runs, and sees itself in its group.
fn limits_are_enforced_or_said() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    let mut spec = shell("cat /proc/self/cgroup");
    spec.limits = all_limits();
    let started = pod.start(&spec).unwrap();
    assert_eq!(started.warnings, Vec::<String>::new());
    let groups = collect(started.stdout).join().unwrap();
    event(&pod);
    match cluster.netd.limits_missing() {
        None => {
            for controller in ["cpu", "memory", "pids"] {
                let is_in = |line: &str| {
                    let mut parts = line.splitn(3, ':').skip(1);
                    let names = parts.next().unwrap();
                    let path = parts.next().unwrap();
                    (names.is_empty() || names.split(',').any(|name| name == controller))
                        && path.contains("/devenv-")
                        && path.ends_with("-pod-2/main.1")
                };
                assert!(groups.lines().any(is_in), "{controller}: {groups}");
            }
        }
        Some(why) => {
            for word in ["not enforced", "; ", "memory"] {
                assert!(why.contains(word), "{why}");
            }
            assert!(!groups.contains("/devenv-"), "{groups}");
        }
    }
}

fn out_of_memory_is_told() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    if unlimited(&cluster) {
        return;
    }
    let child = format!("{PROGRAM} allocate 200; exit 3");
    for (mut spec, expected) in [
        (container(&[PROGRAM, "allocate", "200"]), Exit::Signal(9)),
        (shell(&child), Exit::Code(3)),
    ] {
        spec.limits.memory = Some(32 << 20);
        let _started = pod.start(&spec).unwrap();
        match event(&pod) {
            PodEvent::Exited {
                exit,
                out_of_memory: true,
                ..
            } => assert_eq!(exit, expected),
            other => panic!("{other:?}"),
        }
        // Its next run begins anew, with room enough for less.
        let mut spec = shell("head -c 1M /dev/zero > /tmp/x; exit 4");
        spec.limits.memory = Some(32 << 20);
        pod.start(&spec).unwrap();
        assert_eq!(
            event(&pod),
            PodEvent::Exited {
                container: "main".into(),
                exit: Exit::Code(4),
                out_of_memory: false,
            }
        );
    }
    // What it writes to its own files in memory counts too.
    let mut spec = shell("exec head -c 200M /dev/zero > /tmp/x");
    spec.limits.memory = Some(32 << 20);
    pod.start(&spec).unwrap();
    let told = event(&pod);
    assert!(
        matches!(
            told,
            PodEvent::Exited {
                out_of_memory: true,
                ..
            }
        ),
        "{told:?}"
    );
}

fn a_busy_container_is_throttled() {
    let cluster = cluster();
    let pod = cluster.pod(2);
    if unlimited(&cluster) {
        return;
    }
    let mut spec = shell("while :; do :; done");
    spec.limits.cpu = Some(100);
    spec.limits.cpu_request = Some(500);
    let started = pod.start(&spec).unwrap();
    let group = group_of(started.pid, "cpu");
    let read = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
    eventually("the kernel throttles it", || {
        let stat = read("cpu.stat");
        let count = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        count.filter(|count| count.trim() != "0").map(drop)
    });
    assert!(["512\n", "20\n"].contains(&(read("cpu.shares") + &read("cpu.weight")).as_str()));
    pod.signal("main", 9).unwrap();
    event(&pod);
    assert!(!group.exists());
}

fn a_build_weighs_as_little_as_a_small_pod() {
    let cluster = cluster();
    if unlimited(&cluster) {
        return;
    }
    let build = HostProcess {
        argv: vec!["sleep".into(), "600".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        run_as: None,
    };
    let builds = [(); 2].map(|()| cluster.netd.run_host(&build).unwrap());
    for build in &builds {
        let group = group_of(build.pid(), "cpu");
        assert!(group.ends_with("builds"), "{group:?}");
        let read = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
        assert!(["51\n", "2\n"].contains(&(read("cpu.shares") + &read("cpu.weight")).as_str()));
    }
}

fn a_fork_bomb_is_bounded() {
    let cluster = cluster();
    let limits = Limits {
        pids: Some(64),
        ..Limits::default()
    };
    let pod = pod_with(&cluster, limits, vec![]);
    if unlimited(&cluster) {
        return;
    }
    let started = pod
        .start(&shell("bomb() { bomb | bomb & }; bomb; sleep 1000"))
        .unwrap();
    let group = group_of(started.pid, "pids");
    let pod_group = group.parent().unwrap();
    eventually("the bomb meets its limit", || {
        let events = fs::read_to_string(pod_group.join("pids.events")).unwrap_or_default();
        let own = fs::read_to_string(group.join("pids.events")).unwrap_or_default();
        (events + &own)
            .lines()
            .any(|line| line.starts_with("max ") && line != "max 0")
            .then_some(())
    });
    let count: u64 = fs::read_to_string(pod_group.join("pids.current"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(count <= 64, "{count} processes");
    // It keeps nobody from ending it.
    pod.kill();
    assert_eq!(event(&pod), PodEvent::PodGone);
    eventually("its group goes", || (!pod_group.exists()).then_some(()));
}

/// Where a process is in the hierarchy of a controller.
fn group_of(pid: u32, controller: &str) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let names = parts.next()?;
            let is = names.split(',').any(|name| name == wanted);
            is.then(|| parts.next().unwrap().trim_start_matches('/').to_owned())
        })
    };
    let v1 = path(controller).map(|path| Path::new("/sys/fs/cgroup").join(controller).join(path));
    v1.unwrap_or_else(|| Path::new("/sys/fs/cgroup").join(path("").unwrap()))
}

fn groups_go() {
    let cluster = cluster();
    if unlimited(&cluster) {
        return;
    }
    let run_dir = cluster.run_dir().to_owned();
    let projects = recorded(&run_dir);
    assert!(!projects.is_empty() && projects.iter().all(|path| path.is_dir()));
    let pods = || -> usize {
        let dirs = |path: &PathBuf| {
            let entries = fs::read_dir(path).unwrap();
            entries
                .flatten()
                .filter(|e| e.file_type().unwrap().is_dir())
                .count()
        };
        projects.iter().map(dirs).sum()
    };
    let pod = cluster.pod(2);
    let with_pod = pods();
    assert_eq!(with_pod, projects.len());
    let other = cluster.pod(3);
    for _ in 0..10 {
        run(&pod, &shell("(setsid sleep 1000 &); exit 0"));
    }
    let left = |group: &PathBuf| {
        let mut entries = fs::read_dir(group).unwrap().flatten();
        entries.any(|pod| {
            fs::read_dir(pod.path())
                .is_ok_and(|mut runs| runs.any(|run| run.is_ok_and(|run| run.path().is_dir())))
        })
    };
    // The kernel lets go of a group's last process a moment after its end was told.
    eventually("groups of ended containers go", || {
        (!projects.iter().any(left)).then_some(())
    });
    // Also with something in it.
    other.start(&shell("sleep 1000")).unwrap();
    drop(other);
    eventually("a killed pod's group goes", || {
        (pods() == with_pod).then_some(())
    });
    drop(pod);
    drop(cluster);
    assert!(!projects.iter().any(|path| path.exists()));
}

/// Two containers see one emptyDir of medium Memory.
fn memory_volumes() {
    let (_dir, dir) = temp();
    let cluster = cluster();
    let volume = Tmpfs {
        path: dir.clone(),
        size: Some(1 << 20),
    };
    let pod = pod_with(&cluster, Limits::default(), vec![volume]);
    let with_volume = |script: &str| {
        let mut spec = shell(script);
        spec.binds.push(Bind {
            source: dir.clone(),
            target: "/cache".into(),
            access: Access::ReadWrite,
        });
        spec.run_as = Some((1000, 1000));
        spec
    };
    let ran = run(
        &pod,
        &with_volume("stat -f -c %T /cache; echo one > /cache/one"),
    );
    assert_eq!(
        (ran.stdout.as_str(), ran.exit),
        ("tmpfs\n", Exit::Code(0)),
        "{ran:?}"
    );
    let full =
        "cat /cache/one; head -c 2M /dev/zero > /cache/two || echo full; stat -c %s /cache/two";
    let ran = run(&pod, &with_volume(full));
    let size = (1 << 20) - 4096; // a page holds the other file
    assert_eq!(ran.stdout, format!("one\nfull\n{size}\n"), "{ran:?}");
    assert_eq!(
        fs::read_dir(&dir).unwrap().count(),
        0,
        "the host has none of it"
    );
}

/// In what runs and in what starts later: /tmp, /run, copies of the host's folders and
/// volumes in memory, but not what is bound from the host.
fn full_disks() {
    let (_dir, dir) = temp();
    let [volume, layer, bound] = ["volume", "layer", "bound"].map(|name| dir.join(name));
    for path in [&volume, &layer, &bound] {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let cluster = cluster();
    let tmpfs = Tmpfs {
        path: volume.clone(),
        size: None,
    };
    let pod = pod_with(&cluster, Limits::default(), vec![tmpfs]);
    let with_binds = |name: &str, script: &str| {
        let mut spec = shell(script);
        spec.name = name.into();
        for (source, target, access) in [
            (&volume, "/volume", Access::ReadWrite),
            (&layer, "/layer", Access::Overlay),
            (&bound, "/bound", Access::ReadWrite),
        ] {
            spec.binds.push(Bind {
                source: source.clone(),
                target: target.into(),
                access,
            });
        }
        spec
    };
    let tries = "tries() { for dir in /tmp /run /layer /volume /bound; do \
        if (echo more > $dir/new && head -c 8192 /dev/zero >> $dir/log) 2> /dev/null; \
        then echo $dir; rm $dir/new; fi; done; }";
    let writer = format!("{tries}; while echo round; do tries; sleep 0.01; done");
    let started = pod.start(&with_binds("writer", &writer)).unwrap();
    let mut lines = BufReader::new(File::from(started.stdout)).lines();
    // Where it can write, in the first round that begins from now on.
    let mut round = || {
        lines.find(|line| line.as_ref().unwrap() == "round");
        let mut places = Vec::new();
        loop {
            let line = lines.next().unwrap().unwrap();
            if line == "round" {
                return places;
            }
            places.push(line);
        }
    };
    let everywhere = ["/tmp", "/run", "/layer", "/volume", "/bound"];
    assert_eq!(round(), everywhere);
    pod.fill(true).unwrap();
    // Twice is once.
    pod.fill(true).unwrap();
    eventually("the disk is full", || (round() == ["/bound"]).then_some(()));
    let later = with_binds("later", &format!("{tries}; tries; cat /volume/log | wc -c"));
    let ran = run(&pod, &later);
    let mut printed = ran.stdout.lines();
    assert_eq!(printed.next(), Some("/bound"), "{ran:?}");
    let kept: usize = printed.next().unwrap().parse().unwrap();
    assert!(kept >= 8192, "what was written before is there: {ran:?}");
    pod.fill(false).unwrap();
    eventually("there is room again", || {
        (round() == everywhere).then_some(())
    });
    assert!(!volume.join("log").exists() && !layer.join("log").exists());
}
