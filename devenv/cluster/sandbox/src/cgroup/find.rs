//! Where this process may make groups, and why not.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
};

use super::{Controller, Dir, Group, Version};
use crate::{readonly::unescape, spec::Limits};

/// What the names of projects' groups begin with.
const PREFIX: &str = "devenv-";
/// The group that version 2 makes necessary for the supervisor itself.
const SUPERVISOR: &str = "devenv-supervisor";

/// Makes the group of the project with this run directory, and says why some
/// limits can't be enforced, if so.
pub(crate) fn make_project(run_dir: &Path) -> (Group, Option<String>) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let places = places(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    let name = project_name(run_dir);
    let mut group = Group::default();
    let mut refusals: Vec<Refusal> = Vec::new();
    for place in places {
        let (made, refused) = place.make(&name, &mut |dir| super::record(run_dir, dir));
        group.dirs.extend(made);
        refusals.extend(refused);
    }
    let missing: Vec<_> = Controller::LIMITING
        .into_iter()
        .filter(|c| !group.dirs.iter().any(|dir| dir.controllers.contains(c)))
        .collect();
    // As the kubelet does for all of its pods: together they weigh as much as
    // the machine has CPUs, so that a busy program beside them takes one.
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let weight = Limits {
        cpu_request: u64::try_from(cpus).ok().map(|cpus| cpus * 1000),
        ..Limits::default()
    };
    let mut problems = group.limit(&weight);
    if !missing.is_empty() {
        problems.insert(0, say(&missing, &refusals));
    }
    let problems = (!problems.is_empty()).then(|| problems.join("; "));
    (group, problems)
}

/// One project has one name, whatever its path holds.
fn project_name(run_dir: &Path) -> String {
    // FNV-1a: the name must not change with the compiler, as std's hashes may.
    let hash = run_dir
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{PREFIX}{hash:016x}")
}

/// Whether a path is that of a project's group.
pub(super) fn is_project(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix(PREFIX))
        .is_some_and(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// This process's own group in one hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub version: Version,
    /// In version 2 all that we know: the files say which there are.
    pub controllers: Vec<Controller>,
    pub mount: PathBuf,
    pub own: PathBuf,
}

/// Why no group could be made.
#[derive(Debug)]
pub(super) struct Refusal {
    pub dir: PathBuf,
    pub error: io::Error,
}

/// From the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn places(mounts: &str, groups: &str) -> Vec<Place> {
    // By mount point: of mounts at one place the last one counts.
    let mut found = BTreeMap::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(mount)) = (left.next(), left.next()) else {
            continue;
        };
        let (root, mount) = (unescape(root), unescape(mount));
        let mut right = right.split(' ');
        let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
        let (version, controllers) = match kind {
            Some("cgroup") => {
                let ours = |c: &Controller| options.split(',').any(|option| option == c.name());
                (
                    Version::V1,
                    Controller::ALL.into_iter().filter(ours).collect(),
                )
            }
            Some("cgroup2") => (Version::V2, Controller::LIMITING.to_vec()),
            _ => {
                found.remove(&mount);
                continue;
            }
        };
        let Some(own) = own_group(groups, version, &controllers) else {
            continue;
        };
        // In a container the mount may show a part of the tree only.
        let rest = own.strip_prefix(&root).unwrap_or(Path::new(""));
        let own = if rest.as_os_str().is_empty() {
            mount.clone()
        } else {
            mount.join(rest)
        };
        let place = Place {
            version,
            controllers,
            mount: mount.clone(),
            own,
        };
        found.insert(mount, place);
    }
    found
        .into_values()
        .filter(|place| !place.controllers.is_empty())
        .collect()
}

/// This process's path in a hierarchy, from lines such as `4:memory:/a` and `0::/a`.
fn own_group(groups: &str, version: Version, controllers: &[Controller]) -> Option<PathBuf> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is = match version {
            Version::V1 => names
                .split(',')
                .any(|name| controllers.iter().any(|c| c.name() == name)),
            Version::V2 => names.is_empty(),
        };
        is.then(|| PathBuf::from(path))
    })
}

impl Place {
    /// Makes the group `name` in this hierarchy, after `record` has noted it.
    pub fn make(
        &self,
        name: &str,
        record: &mut dyn FnMut(&Dir) -> io::Result<()>,
    ) -> (Option<Dir>, Option<Refusal>) {
        let parents = match self.version {
            Version::V1 => vec![(self.own.clone(), self.controllers.clone())],
            Version::V2 => self.parents_v2(),
        };
        let mut refused = None;
        for (parent, controllers) in parents {
            if controllers.is_empty() {
                continue;
            }
            let dir = Dir {
                version: self.version,
                controllers,
                path: parent.join(name),
            };
            match record(&dir).and_then(|()| self.make_in(&parent, &dir)) {
                Ok(()) => return (Some(dir), None),
                Err(error) => refused = refused.or(Some(Refusal { dir: parent, error })),
            }
        }
        (None, refused)
    }

    fn make_in(&self, parent: &Path, dir: &Dir) -> io::Result<()> {
        if self.version == Version::V2 {
            self.make_room(parent)?;
            enable(parent, &dir.controllers)?;
        }
        // One that is there without a record: of a run directory that was emptied.
        let _ = super::remove_tree(&dir.path);
        match fs::create_dir(&dir.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Where version 2 allows it: in this process's own group (that of a unit
    /// which systemd delegates), or beside it.
    fn parents_v2(&self) -> Vec<(PathBuf, Vec<Controller>)> {
        let beside = self.own.parent().filter(|_| self.own != self.mount);
        let with_controllers = |dir: &Path| {
            let there = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
            let ours = |c: &Controller| there.split_whitespace().any(|name| name == c.name());
            let controllers = Controller::LIMITING.into_iter().filter(ours).collect();
            (dir.to_owned(), controllers)
        };
        [Some(self.own.as_path()), beside]
            .into_iter()
            .flatten()
            .map(with_controllers)
            .collect()
    }

    /// A group of version 2 has either processes or groups with limits, but for
    /// the machine's root. So this process makes room, if it is alone.
    fn make_room(&self, parent: &Path) -> io::Result<()> {
        let is_root = !parent.join("cgroup.type").exists();
        if parent != self.own || is_root {
            return Ok(());
        }
        let present = fs::read_to_string(parent.join("cgroup.procs"))?;
        let me = std::process::id().to_string();
        let others = present.lines().filter(|pid| *pid != me).count();
        if others > 0 {
            return Err(io::Error::other(format!(
                "{others} other processes are in it"
            )));
        }
        if present.lines().count() > 0 {
            let leaf = parent.join(SUPERVISOR);
            match fs::create_dir(&leaf) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => fs::write(leaf.join("cgroup.procs"), "0")?,
            }
        }
        Ok(())
    }
}

/// Lets groups in `dir` (version 2) have these controllers.
pub(super) fn enable(dir: &Path, controllers: &[Controller]) -> io::Result<()> {
    let path = dir.join("cgroup.subtree_control");
    let present = fs::read_to_string(&path)?;
    let missing: Vec<_> = controllers
        .iter()
        .filter(|c| !present.split_whitespace().any(|name| name == c.name()))
        .map(|c| format!("+{}", c.name()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    fs::write(&path, missing.join(" "))
}

/// One sentence for people: which limits, why, and what would mend it.
pub(super) fn say(missing: &[Controller], refusals: &[Refusal]) -> String {
    let names: Vec<_> = missing.iter().map(|c| c.name()).collect();
    let names = names.join(", ");
    let Some(Refusal { dir, error }) = refusals.first() else {
        return format!(
            "limits of {names} are not enforced: this machine has no control groups for them; mount them, as systemd does"
        );
    };
    let version2 = dir.join("cgroup.controllers").exists();
    let remedy = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "in a container, start that with its control groups writable: docker run --privileged --cgroupns=private"
        }
        _ if version2 => {
            "start devenv in a unit of its own that systemd delegates: systemd-run --user --scope --property=Delegate=yes devenv up"
        }
        _ => {
            "control groups of version 1 are for root; boot with version 2: systemd.unified_cgroup_hierarchy=1 on the kernel's command line"
        }
    };
    format!(
        "limits of {names} are not enforced: no control group can be made in {} ({error}); {remedy}",
        dir.display()
    )
}
