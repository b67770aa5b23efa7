//! What a group uses, from its files, as the kubelet reads them (cAdvisor and
//! runc's libcontainer): CPU time, and memory without the pages of files that
//! nobody has used lately.

use std::{fs, io, path::Path, time::Duration};

use super::{Controller, Group, Version};

impl Group {
    /// CPU time of everything that ever ran in the group; `None` where no
    /// hierarchy counts it.
    ///
    /// # Errors
    /// What the system says, or that a file is not as expected: above all when
    /// the group is gone.
    pub fn cpu(&self) -> io::Result<Option<Duration>> {
        let counts = |version, controllers: &[Controller]| {
            version == Version::V2 || controllers.contains(&Controller::Accounting)
        };
        let mut dirs = self.dirs.iter();
        let Some(dir) = dirs.find(|dir| counts(dir.version, &dir.controllers)) else {
            return Ok(None);
        };
        match dir.version {
            Version::V1 => number(&dir.path.join("cpuacct.usage")).map(Duration::from_nanos),
            Version::V2 => {
                field(&dir.path.join("cpu.stat"), "usage_usec").map(Duration::from_micros)
            }
        }
        .map(Some)
    }

    /// The working set in bytes: all memory of the group but the inactive pages
    /// of files, which the kernel takes back first. `None` where no hierarchy
    /// counts memory.
    ///
    /// # Errors
    /// As [`cpu`](Self::cpu).
    pub fn working_set(&self) -> io::Result<Option<u64>> {
        let mut dirs = self.dirs.iter();
        let Some(dir) = dirs.find(|dir| dir.controllers.contains(&Controller::Memory)) else {
            return Ok(None);
        };
        let (usage, inactive) = match dir.version {
            Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
            Version::V2 => ("memory.current", "inactive_file"),
        };
        let usage = number(&dir.path.join(usage))?;
        let inactive = field(&dir.path.join("memory.stat"), inactive)?;
        // Not read at one moment.
        Ok(Some(usage.saturating_sub(inactive)))
    }
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| unexpected(path))
}

/// The number after a name, in a file of such lines.
fn field(path: &Path, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(found, _)| *found == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .ok_or_else(|| unexpected(path))
}

fn unexpected(path: &Path) -> io::Error {
    let what = format!("{} is not as expected", path.display());
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{super::Dir, *};
    use Controller::{Accounting, Cpu, Memory, Pids};

    const V2_CPU: &str = "usage_usec 2500001\nuser_usec 2000000\nsystem_usec 500001\n";
    const V1_MEMORY: &str = "cache 900\nrss 5000\ninactive_file 100\ntotal_inactive_file 700\n";
    const V2_MEMORY: &str = "anon 5000\nfile 900\ninactive_anon 1\ninactive_file 300\n";

    /// One directory, with files.
    fn read(
        version: Version,
        controllers: &[Controller],
        files: &[(&str, &str)],
    ) -> (io::Result<Option<Duration>>, io::Result<Option<u64>>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let group = Group {
            dirs: vec![Dir {
                version,
                controllers: controllers.to_vec(),
                path: dir.path().to_owned(),
            }],
        };
        (group.cpu(), group.working_set())
    }

    #[rstest]
    #[case::version_1(Version::V1, &[Cpu, Accounting], &[("cpuacct.usage", "2500000001\n")], Some(2_500_000_001), None)]
    #[case::version_1_memory(Version::V1, &[Memory],
        &[("memory.usage_in_bytes", "8192\n"), ("memory.stat", V1_MEMORY)], None, Some(7492))]
    #[case::version_1_without_accounts(Version::V1, &[Cpu, Pids], &[("cpu.stat", "nr_periods 0\n")], None, None)]
    #[case::version_2(Version::V2, &[Cpu, Memory, Pids],
        &[("cpu.stat", V2_CPU), ("memory.current", "8192\n"), ("memory.stat", V2_MEMORY)],
        Some(2_500_001_000), Some(7892))]
    // CPU time is counted whatever systemd delegated.
    #[case::version_2_in_part(Version::V2, &[Pids], &[("cpu.stat", V2_CPU)], Some(2_500_001_000), None)]
    #[case::mostly_files(Version::V2, &[Memory],
        &[("cpu.stat", V2_CPU), ("memory.current", "100\n"), ("memory.stat", V2_MEMORY)],
        Some(2_500_001_000), Some(0))]
    fn usage_is_read(
        #[case] version: Version,
        #[case] controllers: &[Controller],
        #[case] files: &[(&str, &str)],
        #[case] nanoseconds: Option<u64>,
        #[case] bytes: Option<u64>,
    ) {
        let (cpu, memory) = read(version, controllers, files);
        assert_eq!(cpu.unwrap(), nanoseconds.map(Duration::from_nanos));
        assert_eq!(memory.unwrap(), bytes);
    }

    #[rstest]
    #[case::gone(&[])]
    #[case::other_words(&[("cpu.stat", "usage 1\n"), ("memory.current", "max\n"), ("memory.stat", V2_MEMORY)])]
    #[case::a_field_is_missing(&[("cpu.stat", "usage_usec\n"), ("memory.current", "1\n"), ("memory.stat", "anon 1\n")])]
    fn what_is_not_understood_is_no_number(#[case] files: &[(&str, &str)]) {
        let (cpu, memory) = read(Version::V2, &[Cpu, Memory], files);
        assert!(cpu.is_err() && memory.is_err(), "{cpu:?} {memory:?}");
    }
}
