//! What this machine uses: the Node's own usage, pods or not.

use std::fs;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use devenv_sandbox::Usage;

use crate::pod::runtime::{Meter, Reading, RuntimeError};

/// Reads `/proc/stat` and `/proc/meminfo`. The Node's capacity is that of this machine, so its
/// usage is, too, as the kubelet tells the whole machine's.
#[derive(Debug)]
pub(super) struct Machine;

#[async_trait]
impl Meter for Machine {
    async fn read(&self) -> Result<Reading, RuntimeError> {
        static SINCE: OnceLock<Instant> = OnceLock::new();
        let at = SINCE.get_or_init(Instant::now).elapsed();
        // Files of the kernel's memory: reading them takes microseconds.
        let stat = fs::read_to_string("/proc/stat")?;
        let info = fs::read_to_string("/proc/meminfo")?;
        let ticks = rustix::param::clock_ticks_per_second();
        match (cpu_in(&stat, ticks), memory_in(&info)) {
            (Some(cpu), Some(memory)) => Ok(Reading {
                at,
                usage: Usage { cpu, memory },
            }),
            _ => {
                let what = "/proc/stat or /proc/meminfo is not as expected";
                Err(io::Error::new(io::ErrorKind::InvalidData, what).into())
            }
        }
    }
}

/// CPU time of all processors together, but when idle, waiting for a disk, or taken by the
/// hypervisor: user, nice, system, irq and softirq of proc_stat(5). Guests are in user. Each is
/// rounded to a hundredth of a second, so that a busy machine may seem to use a little more than
/// it has.
fn cpu_in(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields[..] else {
        return None;
    };
    let ticks: u128 = [user, nice, system, irq, softirq]
        .map(u128::from)
        .iter()
        .sum();
    let nanoseconds = ticks * 1_000_000_000 / u128::from(ticks_per_second.max(1));
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

/// The working set of the machine in bytes, as the kubelet counts it with control groups of
/// version 2: all that is not free, but the inactive pages of files.
fn memory_in(info: &str) -> Option<u64> {
    let kibibytes = |name: &str| -> Option<u64> {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(found, _)| *found == name)?;
        value.split_whitespace().next()?.parse().ok()
    };
    let used = kibibytes("MemTotal")?.saturating_sub(kibibytes("MemFree")?);
    let working = used.saturating_sub(kibibytes("Inactive(file)")?);
    working.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::all(
        "cpu  100 20 30 4000 500 6 7 80 90 0\ncpu0 1 1 1 1 1 1 1\n",
        Some(1630)
    )]
    #[case::old("cpu 1 0 0 9 9 0 0\n", Some(10))]
    #[case::short("cpu 1 0 0 9\n", None)]
    #[case::no_number("cpu 1 0 0 9 9 x 0\n", None)]
    #[case::nothing("intr 1\n", None)]
    fn cpu(#[case] stat: &str, #[case] milliseconds: Option<u64>) {
        assert_eq!(cpu_in(stat, 100), milliseconds.map(Duration::from_millis));
    }

    #[rstest]
    #[case(
        "MemTotal: 1000 kB\nMemFree: 300 kB\nInactive: 250 kB\nInactive(file): 200 kB\n",
        Some(512_000)
    )]
    #[case(
        "MemTotal: 1000 kB\nMemFree: 900 kB\nInactive(file): 200 kB\n",
        Some(0)
    )]
    #[case("MemTotal: 1000 kB\nMemFree: 900 kB\n", None)]
    #[case("", None)]
    fn memory(#[case] info: &str, #[case] bytes: Option<u64>) {
        assert_eq!(memory_in(info), bytes);
    }
}
