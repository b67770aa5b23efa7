//! A project of 200,000 files while nobody saves.

use crate::Failure;
use crate::figures::{Report, Series};
use crate::memory::{family, kib, of_devenv};
use crate::project::Project;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const FOLDERS: usize = 2_000;
const FILES: usize = 100;
/// After `up`, for what goes on beside it to be over.
const SETTLE: Duration = Duration::from_secs(10);
/// The kernel counts in ticks of 10 ms: a shorter look could not tell 0.1 %.
const LOOK: Duration = Duration::from_secs(10);
const SAMPLES: usize = 3;
/// For one save in the tree to be answered.
const ANSWERED: Duration = Duration::from_secs(60);

/// Brings a small program up whose source is the tree, and looks at the processes.
pub fn run() -> Result<Report, Failure> {
    let project = Project::within(Project::folder("bb-bench-rest")?)?;
    let tree = project.path().join("hello/tree");
    for folder in 0..FOLDERS {
        let folder = tree.join(format!("{}/{folder}", folder % 50));
        fs::create_dir_all(&folder)?;
        for file in 0..FILES {
            fs::write(folder.join(format!("{file}.txt")), "x")?;
        }
    }
    write(project.path())?;
    project.run(&["up", "-d"])?;
    let supervisor = project.supervisor()?;
    std::thread::sleep(SETTLE);
    let (mut own, mut all, mut memory) = (vec![], vec![], vec![]);
    for _ in 0..SAMPLES {
        let everybody = family(supervisor);
        let devenvs = of_devenv(&everybody)?;
        let before = (ticks(&devenvs), ticks(&everybody));
        let start = Instant::now();
        std::thread::sleep(LOOK);
        let second = start.elapsed().as_secs_f64() * ticks_per_second()?;
        own.push((ticks(&devenvs) - before.0) / second * 100.0);
        all.push((ticks(&everybody) - before.1) / second * 100.0);
        let sum: u64 = devenvs
            .iter()
            .filter_map(|pid| kib(*pid, "status", "RssAnon:"))
            .sum();
        memory.push(sum as f64 / 1024.0);
    }
    // At rest, not asleep: a save is still seen.
    fs::write(tree.join("0/0/0.txt"), "y")?;
    let saved = Instant::now();
    while project.reloads()?.is_empty() {
        if saved.elapsed() > ANSWERED {
            return Err("a save in the tree led to no reload".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Report {
        bench: "reload at rest, 200,000 files",
        series: vec![
            Series::new("devenv's processes, of one core", "%", own),
            Series::new("with the service, which is probed", "%", all),
            Series::new("RssAnon of devenv's processes", "MiB", memory),
        ],
        ratio_min: None,
        ratio_median: None,
        goal: "under 0.5 % of one core",
    })
}

/// User and system time of these processes so far, in clock ticks.
fn ticks(pids: &[u64]) -> f64 {
    let of = |pid: &u64| -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let user: u32 = fields.next()?.parse().ok()?;
        let system: u32 = fields.next()?.parse().ok()?;
        Some(f64::from(user) + f64::from(system))
    };
    pids.iter().filter_map(of).sum()
}

fn ticks_per_second() -> Result<f64, Failure> {
    use nix::unistd::{SysconfVar, sysconf};
    let ticks = sysconf(SysconfVar::CLK_TCK)?.ok_or("this system has no clock ticks")?;
    Ok(ticks as f64)
}

fn write(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder.join("k8s"))?;
    fs::write(
        folder.join("devenv.toml"),
        "[project]\nname = \"rest\"\nnamespace = \"rest\"\nmanifests = [\"k8s\"]\n\n\
         [image.hello]\nsource = \"hello\"\nrun = [\"python3\", \"-m\", \"http.server\", \"5000\"]\n",
    )?;
    fs::write(
        folder.join("k8s/app.yaml"),
        super::app::manifests("rest", &[("hello", "/")]),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_has_used_time() {
        let own = [u64::from(std::process::id())];
        let before = ticks(&own);
        let deadline = Instant::now() + Duration::from_secs(30);
        while ticks(&own) <= before {
            assert!(Instant::now() < deadline, "no tick was counted");
            std::hint::black_box((0..100_000u64).sum::<u64>());
        }
        assert!(ticks_per_second().unwrap() > 0.0);
    }
}
