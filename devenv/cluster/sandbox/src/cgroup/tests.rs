//! Tests of what is decided from texts, and of version 2 with a folder as data:
//! its files are there, and the kernel behind them is not.

use std::{collections::BTreeMap, fs, path::Path};

use rstest::rstest;

use super::{
    Controller::{Cpu, Memory, Pids},
    Dir, Group, Version, find, limits,
};
use crate::spec::Limits;

/// Of mount points: those that have controllers of ours, with the group there.
fn places(mounts: &str, groups: &str) -> BTreeMap<String, String> {
    find::places(mounts, groups)
        .into_iter()
        .map(|place| {
            let controllers: Vec<_> = place.controllers.iter().map(|c| c.name()).collect();
            let own = place.own.display().to_string();
            (
                format!("{:?} {}", place.version, controllers.join(",")),
                own,
            )
        })
        .collect()
}

const V1: &str = "\
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
const V1_GROUPS: &str = "12:memory:/user.slice/u\n9:cpu,cpuacct:/\n1:name=systemd:/a\n0::/a\n";
const DOCKER_V1: &str =
    "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
const V2: &str = "25 23 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

#[rstest]
#[case::version_1(V1, V1_GROUPS, &[
    ("V1 cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
    ("V1 memory", "/sys/fs/cgroup/memory/user.slice/u"),
    ("V2 cpu,memory,pids", "/sys/fs/cgroup/unified/a"),
])]
#[case::in_a_container(DOCKER_V1, "4:memory:/docker/abc/x\n", &[("V1 memory", "/sys/fs/cgroup/memory/x")])]
#[case::a_container_that_sees_only_itself(DOCKER_V1, "4:memory:/\n", &[("V1 memory", "/sys/fs/cgroup/memory")])]
#[case::version_2(V2, "0::/user.slice/a.scope\n", &[("V2 cpu,memory,pids", "/sys/fs/cgroup/user.slice/a.scope")])]
#[case::covered("1 0 0:1 / /c rw - cgroup2 c rw\n2 1 0:2 / /c rw - tmpfs t rw\n", "0::/\n", &[])]
#[case::none("", "0::/\n", &[])]
fn groups_are_found(#[case] mounts: &str, #[case] groups: &str, #[case] expected: &[(&str, &str)]) {
    let expected = expected
        .iter()
        .map(|(what, own)| (what.to_string(), own.to_string()))
        .collect();
    assert_eq!(places(mounts, groups), expected);
}

#[rstest]
#[case::limits(Limits { cpu: Some(500), cpu_request: Some(250), memory: Some(1 << 20), pids: Some(9) },
    "cpu.shares=256 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 memory.limit_in_bytes=1048576 memory.memsw.limit_in_bytes=1048576? pids.max=9",
    "cpu.weight=10 cpu.max=50000 100000 memory.max=1048576 memory.swap.max=0? memory.oom.group=1? pids.max=9")]
#[case::tiny(Limits { cpu: Some(1), cpu_request: Some(0), ..Limits::default() },
    "cpu.shares=2 cpu.cfs_period_us=100000 cpu.cfs_quota_us=1000", "cpu.weight=1 cpu.max=1000 100000")]
#[case::huge(Limits { cpu_request: Some(u64::MAX), ..Limits::default() }, "cpu.shares=262144", "cpu.weight=10000")]
#[case::none(Limits::default(), "", "")]
fn limits_are_written_as_the_kubelet_does(
    #[case] limits: Limits,
    #[case] version_1: &str,
    #[case] version_2: &str,
) {
    for (version, expected) in [(Version::V1, version_1), (Version::V2, version_2)] {
        let written: Vec<_> = [Cpu, Memory, Pids]
            .into_iter()
            .flat_map(|controller| super::limits::settings(version, controller, &limits))
            .map(|s| {
                format!(
                    "{}={}{}",
                    s.file,
                    s.value,
                    if s.optional { "?" } else { "" }
                )
            })
            .collect();
        assert_eq!(written.join(" "), expected);
    }
}

#[rstest]
#[case("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", 2)]
#[case("low 0\nhigh 0\nmax 7\noom 3\noom_kill 1\noom_group_kill 1\n", 1)]
#[case("oom_kill_disable 0\nunder_oom 1\n", 0)]
fn kills_are_counted(#[case] text: &str, #[case] count: u64) {
    assert_eq!(limits::oom_kills(text), count);
}

#[test]
fn a_record_names_groups_of_projects_only() {
    let dir = |path: &str| Dir {
        version: Version::V1,
        controllers: vec![Cpu, Memory],
        path: path.into(),
    };
    let ours = dir("/sys/fs/cgroup/a b/devenv-0123456789abcdef");
    let mut text = limits::to_line(&ours);
    for other in ["/home/me", "/x/devenv-0123", "devenv-0123456789abcdef"] {
        text += &limits::to_line(&dir(other));
    }
    text += "what?\nv3 cpu /x/devenv-0123456789abcdef\n";
    assert_eq!(limits::from_text(&text), Group { dirs: vec![ours] });
}

/// A group of version 2 with its files.
fn group(path: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(path).unwrap();
    for (name, contents) in files {
        fs::write(path.join(name), contents).unwrap();
    }
}

const NAME: &str = "devenv-0123456789abcdef";

fn make(mount: &Path, own: &str) -> (Option<Dir>, Option<String>, Vec<Dir>) {
    let place = find::Place {
        version: Version::V2,
        controllers: vec![Cpu, Memory, Pids],
        mount: mount.to_owned(),
        own: mount.join(own),
    };
    let mut noted = Vec::new();
    let (made, refused) = place.make(NAME, &mut |dir| {
        noted.push(dir.clone());
        Ok(())
    });
    (made, refused.map(|r| r.error.to_string()), noted)
}

/// `systemd-run --scope --property=Delegate=yes devenv up`: nothing else is in it.
#[test]
fn a_delegated_group_is_divided() {
    let mount = tempfile::tempdir().unwrap();
    let me = std::process::id().to_string();
    group(
        &mount.path().join("a/b.scope"),
        &[
            ("cgroup.type", "domain\n"),
            ("cgroup.procs", &format!("{me}\n")),
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("cgroup.subtree_control", ""),
        ],
    );
    let (made, refused, noted) = make(mount.path(), "a/b.scope");
    let made = made.unwrap();
    let own = mount.path().join("a/b.scope");
    assert_eq!((made.path.clone(), refused), (own.join(NAME), None));
    assert!(made.path.is_dir() && noted == [made]);
    let read = |name: &str| fs::read_to_string(own.join(name)).unwrap();
    assert_eq!(read("cgroup.subtree_control"), "+cpu +memory +pids");
    // It left the group itself, which may have no processes then.
    assert_eq!(read("devenv-supervisor/cgroup.procs"), "0");
}

/// A terminal's own scope: the shell is in it, so the group is made beside it.
#[test]
fn beside_a_shared_group_there_is_room() {
    let mount = tempfile::tempdir().unwrap();
    let slice = mount.path().join("app.slice");
    group(
        &slice,
        &[
            ("cgroup.type", "domain\n"),
            ("cgroup.controllers", "memory pids\n"),
            ("cgroup.subtree_control", "memory pids\n"),
        ],
    );
    group(
        &slice.join("term.scope"),
        &[
            ("cgroup.type", "domain\n"),
            ("cgroup.procs", &format!("1\n{}\n", std::process::id())),
            ("cgroup.controllers", "memory pids\n"),
            ("cgroup.subtree_control", ""),
        ],
    );
    let (made, refused, _) = make(mount.path(), "app.slice/term.scope");
    let made = made.unwrap();
    assert_eq!((made.path, refused), (slice.join(NAME), None));
    // CPU is not among what systemd passed on.
    assert_eq!(made.controllers, [Memory, Pids]);
}

#[test]
fn a_group_that_is_not_ours_to_divide_is_said() {
    let mount = tempfile::tempdir().unwrap();
    group(
        mount.path(),
        &[
            ("cgroup.type", "domain\n"),
            ("cgroup.procs", "1\n2\n"),
            ("cgroup.controllers", "cpu memory pids\n"),
            ("cgroup.subtree_control", ""),
        ],
    );
    let (made, refused, _) = make(mount.path(), "");
    assert_eq!(made, None);
    assert_eq!(refused.as_deref(), Some("2 other processes are in it"));
    let refusal = find::Refusal {
        dir: mount.path().to_owned(),
        error: std::io::Error::other("2 other processes are in it"),
    };
    let said = find::say(&[Cpu, Memory], &[refusal]);
    assert!(
        said.starts_with("limits of cpu, memory are not enforced: ")
            && said.contains("systemd-run --user --scope --property=Delegate=yes"),
        "{said}"
    );
}

#[rstest]
#[case::version_1(
    std::io::ErrorKind::PermissionDenied,
    "systemd.unified_cgroup_hierarchy=1"
)]
#[case::container(std::io::ErrorKind::ReadOnlyFilesystem, "docker run --privileged")]
fn each_refusal_has_its_remedy(#[case] kind: std::io::ErrorKind, #[case] remedy: &str) {
    let refusal = find::Refusal {
        dir: "/no/such/hierarchy".into(),
        error: kind.into(),
    };
    let said = find::say(&[Memory], &[refusal]);
    assert!(
        said.contains("/no/such/hierarchy") && said.contains(remedy),
        "{said}"
    );
}
