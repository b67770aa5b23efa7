//! What devenv itself takes while nothing happens: supervisor and netd with its
//! helpers, without the services and the engine.

use crate::figures::{Report, Series};
use crate::project::Project;
use crate::{Failure, built};
use std::fs;
use std::time::Duration;

/// How long the system is left alone before it is measured.
const REST: Duration = Duration::from_secs(5);
const SAMPLES: usize = 5;

/// Brings the system up and reads the memory of every process of the devenv binary.
pub fn run() -> Result<Report, Failure> {
    let project = Project::new()?;
    project.run(&["up", "-d"])?;
    let supervisor = project.supervisor()?;
    std::thread::sleep(REST);
    let (mut pss, mut anonymous, mut count) = (vec![], vec![], vec![]);
    for _ in 0..SAMPLES {
        let family = of_devenv(&family(supervisor))?;
        if family.is_empty() {
            return Err("the supervisor is gone".into());
        }
        let sum = |file: &str, field: &str| -> f64 {
            let kib: u64 = family.iter().filter_map(|pid| kib(*pid, file, field)).sum();
            // Exact below 2^53.
            kib as f64 / 1024.0
        };
        pss.push(sum("smaps_rollup", "Pss:"));
        anonymous.push(sum("status", "RssAnon:"));
        count.push(family.len() as f64);
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(Report {
        bench: "memory",
        series: vec![
            Series::new("Pss of supervisor and netd's tree", "MiB", pss),
            Series::new("RssAnon of the same", "MiB", anonymous),
            Series::new("their processes", "", count),
        ],
        ratio_min: None,
        ratio_median: None,
        goal: "at most 40 MB",
    })
}

/// Those of these processes that run devenv's program.
pub fn of_devenv(pids: &[u64]) -> Result<Vec<u64>, Failure> {
    let binary = built("devenv")?.canonicalize()?;
    let is = |pid: &&u64| fs::read_link(format!("/proc/{pid}/exe")).ok().as_ref() == Some(&binary);
    Ok(pids.iter().filter(is).copied().collect())
}

/// A field of a /proc file, in KiB.
pub fn kib(pid: u64, file: &str, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The process and all below it.
pub fn family(root: u64) -> Vec<u64> {
    let parents: Vec<(u64, u64)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u64| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == pid)
                .map(|(child, _)| *child),
        );
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_its_child_are_a_family_with_memory() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let own = u64::from(std::process::id());
        let found = family(own);
        let memory = kib(own, "status", "RssAnon:");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&own) && found.contains(&u64::from(child.id())));
        assert!(memory.is_some_and(|kib| kib > 0));
    }
}
