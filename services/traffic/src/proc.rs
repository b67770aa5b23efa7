//! Reads what a record says from Linux's `/proc` (proc_meminfo(5), proc_stat(5), proc_pid_stat(5)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::TrafficError;
use crate::record::{Record, hora_now};

/// Reads `/proc`; keeps the last CPU times, because CPU use is a difference between two readings.
#[derive(Debug)]
pub struct ProcReader {
    root: PathBuf,
    last: CpuTimes,
}

/// What one look at `/proc` found; [`ProcSample::into_record`] makes the contract's record of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcSample {
    /// `MemTotal`, kB.
    pub total_kb: u64,
    /// `MemAvailable`, kB; on kernels before 3.14 `MemFree + Buffers + Cached`.
    pub available_kb: u64,
    /// Share of CPU time spent working since the last look, 0..1.
    pub cpu_busy: f64,
    /// Processes by state: running.
    pub running: u64,
    /// Sleeping, interruptibly or not, and idle kernel threads.
    pub sleeping: u64,
    /// Zombies.
    pub zombie: u64,
    /// Stopped or traced.
    pub stopped: u64,
    /// All of them, in whatever state.
    pub total: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CpuTimes {
    busy: u64,
    all: u64,
}

impl ProcReader {
    /// Takes the first reading of the CPU times, which the first [`sample`](Self::sample) is compared with.
    ///
    /// # Errors
    /// When `/proc/stat` is missing or has no `cpu` line.
    pub fn new() -> Result<ProcReader, TrafficError> {
        ProcReader::at("/proc")
    }

    /// As [`new`](Self::new), for a `/proc` mounted elsewhere.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn at(root: impl Into<PathBuf>) -> Result<ProcReader, TrafficError> {
        let root = root.into();
        let last = cpu_times(&root)?;
        Ok(ProcReader { root, last })
    }

    /// One look: memory, processes, and CPU use since the look before. Two looks less than a clock tick
    /// (10 ms) apart say 0 % CPU.
    ///
    /// # Errors
    /// When `/proc/meminfo` or `/proc/stat` cannot be read or lacks its fields; processes that end
    /// during the look are simply not counted.
    pub fn sample(&mut self) -> Result<ProcSample, TrafficError> {
        let path = self.root.join("meminfo");
        let text = read(&path)?;
        let total_kb = meminfo(&text, "MemTotal").ok_or_else(|| missing(&path, "MemTotal"))?;
        let available_kb = meminfo(&text, "MemAvailable")
            .or_else(|| {
                Some(
                    meminfo(&text, "MemFree")?
                        + meminfo(&text, "Buffers")?
                        + meminfo(&text, "Cached")?,
                )
            })
            .ok_or_else(|| missing(&path, "MemAvailable"))?
            .min(total_kb);
        let now = cpu_times(&self.root)?;
        let cpu_busy = busy_share(self.last, now);
        self.last = now;
        let mut sample = ProcSample {
            total_kb,
            available_kb,
            cpu_busy,
            running: 0,
            sleeping: 0,
            zombie: 0,
            stopped: 0,
            total: 0,
        };
        self.count_processes(&mut sample)?;
        Ok(sample)
    }

    fn count_processes(&self, sample: &mut ProcSample) -> Result<(), TrafficError> {
        let failed = |source| TrafficError::Proc {
            path: self.root.clone(),
            source,
        };
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            // The process may have ended since the folder was listed.
            let Ok(stat) = fs::read(entry.path().join("stat")) else {
                continue;
            };
            match process_state(&stat) {
                Some(b'R') => sample.running += 1,
                Some(b'S' | b'D' | b'I') => sample.sleeping += 1,
                Some(b'Z') => sample.zombie += 1,
                Some(b'T' | b't') => sample.stopped += 1,
                Some(_) => {}
                None => continue,
            }
            sample.total += 1;
        }
        Ok(())
    }
}

impl ProcSample {
    /// The record the contract asks for, stamped with the local wall clock of now. MB are units of
    /// 1,024 kB as `free -m` prints them; figures have two decimals.
    #[must_use]
    pub fn into_record(self) -> Record {
        let total = self.total_kb as f64 / 1024.0;
        let free = self.available_kb as f64 / 1024.0;
        let used = total - free;
        let used_percent = if total > 0.0 {
            used / total * 100.0
        } else {
            0.0
        };
        let busy = cents(self.cpu_busy.clamp(0.0, 1.0) * 100.0);
        Record {
            total_ram: cents(total),
            ram_libre: cents(free),
            uso_ram: cents(used),
            porcentaje_ram: cents(used_percent),
            porcentaje_cpu_uso: busy,
            porcentaje_cpu_libre: cents(100.0 - busy),
            procesos_corriendo: self.running,
            total_procesos: self.total,
            procesos_durmiendo: self.sleeping,
            procesos_zombie: self.zombie,
            procesos_parados: self.stopped,
            hora: hora_now(),
        }
    }
}

fn cents(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn read(path: &Path) -> Result<String, TrafficError> {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|source: io::Error| TrafficError::Proc {
            path: path.to_owned(),
            source,
        })
}

fn missing(path: &Path, field: &'static str) -> TrafficError {
    TrafficError::ProcField {
        path: path.to_owned(),
        field,
    }
}

fn meminfo(text: &str, field: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
}

fn cpu_times(root: &Path) -> Result<CpuTimes, TrafficError> {
    let path = root.join("stat");
    let text = read(&path)?;
    parse_cpu_times(&text).ok_or_else(|| missing(&path, "cpu"))
}

fn parse_cpu_times(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guest times are part of user and nice already.
    let mut times = [0u64; 8];
    let mut seen = 0;
    for (slot, word) in times.iter_mut().zip(line.split_whitespace()) {
        *slot = word.parse().ok()?;
        seen += 1;
    }
    let [user, nice, system, idle, iowait, irq, softirq, steal] = times;
    let busy = user + nice + system + irq + softirq + steal;
    (seen >= 4).then_some(CpuTimes {
        busy,
        all: busy + idle + iowait,
    })
}

fn busy_share(before: CpuTimes, after: CpuTimes) -> f64 {
    // iowait may run backwards (proc_stat(5)), hence the saturation.
    let all = after.all.saturating_sub(before.all);
    let busy = after.busy.saturating_sub(before.busy).min(all);
    if all == 0 {
        0.0
    } else {
        busy as f64 / all as f64
    }
}

/// The state letter; the command's name before it may hold spaces and parentheses of its own.
fn process_state(stat: &[u8]) -> Option<u8> {
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    stat[close + 1..].iter().copied().find(|byte| *byte != b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"1 (systemd) S 0 1", Some(b'S'))]
    #[case(b"7 (a) R (b) ) Z 1 2", Some(b'Z'))]
    #[case(b"7 (cut", None)]
    #[case(b"7 (cut)", None)]
    fn a_state_is_read_behind_the_last_parenthesis(#[case] stat: &[u8], #[case] state: Option<u8>) {
        assert_eq!(process_state(stat), state);
    }

    #[rstest]
    #[case("cpu  10 0 10 70 10 0 0 0 5 5\ncpu0 1", Some(CpuTimes { busy: 20, all: 100 }))]
    #[case("cpu  10 0 10 70\n", Some(CpuTimes { busy: 20, all: 90 }))]
    #[case("cpu  10 0\n", None)]
    #[case("cpu  10 0 x 70\n", None)]
    #[case("intr 1", None)]
    fn cpu_times_leave_guests_out(#[case] stat: &str, #[case] times: Option<CpuTimes>) {
        assert_eq!(parse_cpu_times(stat), times);
    }

    #[test]
    fn cpu_use_is_a_difference() {
        let at = |busy, all| CpuTimes { busy, all };
        assert_eq!(busy_share(at(100, 1000), at(150, 1200)), 0.25);
        assert_eq!(busy_share(at(100, 1000), at(100, 1000)), 0.0);
        assert_eq!(busy_share(at(100, 1000), at(90, 990)), 0.0);
    }

    #[test]
    fn a_folder_laid_out_like_proc_makes_the_record() {
        let proc = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = proc.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("stat", "cpu  100 0 0 900 0 0 0 0\n");
        write(
            "meminfo",
            "MemTotal: 4096000 kB\nMemFree: 1 kB\nMemAvailable: 1024000 kB\n",
        );
        write("1/stat", "1 (init) S 0");
        write("2/stat", "2 (kworker) I 0");
        write("3/stat", "3 (x y) R 0");
        write("4/stat", "4 (dead)) Z 0");
        write("5/stat", "5 (held) t 0");
        write("self/stat", "3 (x y) R 0");
        let mut reader = ProcReader::at(proc.path()).unwrap();
        write("stat", "cpu  150 0 0 1050 0 0 0 0\n");
        let record = reader.sample().unwrap().into_record();
        assert_eq!(record.total_ram, 4000.0);
        assert_eq!(record.ram_libre, 1000.0);
        assert_eq!(record.uso_ram, 3000.0);
        assert_eq!(record.porcentaje_ram, 75.0);
        assert_eq!(record.porcentaje_cpu_uso, 25.0);
        assert_eq!(record.porcentaje_cpu_libre, 75.0);
        assert_eq!(
            (
                record.procesos_corriendo,
                record.procesos_durmiendo,
                record.procesos_zombie,
                record.procesos_parados,
                record.total_procesos
            ),
            (1, 2, 1, 1, 5)
        );
        assert!(jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", &record.hora).is_ok());
    }

    #[test]
    fn a_missing_proc_names_the_file_and_the_way_out() {
        let error = ProcReader::at("/nonexistent/proc").unwrap_err().to_string();
        assert!(
            error.contains("/nonexistent/proc/stat") && error.contains("JSON file"),
            "{error}"
        );
    }
}
