//! A test program that has said nothing for too long: what it waits for, and its end.
//!
//! Without this, one test that waits for ever costs the whole run, and says nothing
//! about itself. The program is told apart from cargo, which starts it, so that with
//! `--no-fail-fast` the tests after it still run.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a test command may say nothing. The longest test takes a quarter of it.
pub const SILENCE: Duration = Duration::from_secs(8 * 60);

/// Describes what runs below `command` (a process id) and kills its children, or it
/// if it has none; answers the description, a line each.
pub fn end(command: u32) -> Vec<String> {
    let all = processes();
    let mut said = Vec::new();
    let children: Vec<u32> = below(&all, command);
    let victims = if children.is_empty() {
        vec![command]
    } else {
        children
    };
    for &victim in &victims {
        describe(&all, victim, 0, &mut said);
        said.extend(stacks(victim));
    }
    for victim in victims {
        let _ = Command::new("kill")
            .args(["-KILL", &victim.to_string()])
            .status();
    }
    said
}

/// Every process and its parent.
fn processes() -> Vec<(u32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return vec![];
    };
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name before may hold anything, a bracket too.
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect()
}

fn below(all: &[(u32, u32)], parent: u32) -> Vec<u32> {
    all.iter()
        .filter(|(_, of)| *of == parent)
        .map(|(pid, _)| *pid)
        .collect()
}

/// A process and those below it, with what each of its threads waits for in the kernel.
fn describe(all: &[(u32, u32)], pid: u32, depth: usize, said: &mut Vec<String>) {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let threads: Vec<String> = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .filter_map(|thread| {
            let thread = thread.ok()?.path();
            let read = |file| fs::read_to_string(thread.join(file)).unwrap_or_default();
            Some(format!("{} in {}", read("comm").trim(), read("wchan")))
        })
        .collect();
    let indent = "  ".repeat(depth);
    said.push(format!(
        "{indent}{pid} {}: {}",
        command.trim(),
        threads.join(", ")
    ));
    // A loop among parents there cannot be, but a process may end and its number come back.
    if depth < 16 {
        for child in below(all, pid) {
            describe(all, child, depth + 1, said);
        }
    }
}

/// Where its threads are, if gdb is here.
fn stacks(pid: u32) -> Vec<String> {
    let output = Command::new("timeout")
        .args(["90", "gdb", "--batch", "-nx", "-p", &pid.to_string()])
        .args(["-ex", "thread apply all backtrace 40"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.map_or_else(
        |_| vec![],
        |output| {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .filter(|line| line.starts_with('#') || line.starts_with("Thread "))
                .map(|line| line.chars().take(240).collect())
                .collect()
        },
    )
}
