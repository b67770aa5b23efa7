//! One part of the run: a command, its output, and what it counted.

use crate::hang;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Tests counted in a part's output.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// How a part ended.
#[derive(Debug)]
pub struct Outcome {
    pub name: String,
    pub took: Duration,
    pub ok: bool,
    pub counts: Counts,
    /// What was skipped and why, one line each.
    pub skips: Vec<String>,
    /// What tests say that they have proven, and where.
    pub proven: Vec<Proven>,
}

/// Target, profile, and what was proven there.
pub type Proven = [String; 3];

impl Outcome {
    /// A part that was not run, or failed before a command could be.
    pub fn without_command(name: &str, ok: bool, skip: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            took: Duration::ZERO,
            ok,
            counts: Counts {
                failed: u64::from(!ok),
                skipped: u64::from(skip.is_some()),
                ..Counts::default()
            },
            skips: skip.into_iter().collect(),
            proven: vec![],
        }
    }

    /// Two commands of one part, the second run after the first.
    pub fn and(mut self, next: Self) -> Self {
        self.took += next.took;
        self.ok &= next.ok;
        self.counts += next.counts;
        self.skips.extend(next.skips);
        self.proven.extend(next.proven);
        self
    }
}

/// Runs a command whose success is one passed check.
pub fn check(name: &str, command: &mut Command) -> Outcome {
    println!("\n=== {}", shown(name, command));
    run(name, command)
}

/// The same, with nothing on standard output, which is for a later command's data.
pub fn prepare(name: &str, command: &mut Command) -> Outcome {
    eprintln!("=== {}", shown(name, command));
    match std::io::stderr().as_fd().try_clone_to_owned() {
        Ok(stderr) => run(name, command.stdout(stderr)),
        Err(_) => run(name, command.stdout(Stdio::null())),
    }
}

fn run(name: &str, command: &mut Command) -> Outcome {
    let start = Instant::now();
    let ok = match command.stdin(Stdio::null()).status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("{name}: cannot be run: {error}");
            false
        }
    };
    Outcome {
        name: name.to_owned(),
        took: start.elapsed(),
        ok,
        counts: Counts {
            passed: u64::from(ok),
            failed: u64::from(!ok),
            skipped: 0,
        },
        skips: vec![],
        proven: vec![],
    }
}

/// Runs tests, passes their output on, and counts from it. For libtest the
/// command must say `--show-output`: a test that skips itself says so in output
/// that libtest hides of a passed test; all else of that output stays hidden here.
pub fn tests(name: &str, command: &mut Command) -> Outcome {
    println!("\n=== {}", shown(name, command));
    let start = Instant::now();
    let mut reader = Reader::default();
    let ok = match stream(command, hang::SILENCE, |line| {
        if reader.take(line) {
            println!("{line}");
        }
    }) {
        Ok(ok) => ok,
        Err(error) => {
            println!("{name}: cannot be run: {error}");
            false
        }
    };
    let mut counts = reader.counts;
    // A command that failed without a failed test (it did not compile, it
    // crashed) still failed.
    if !ok && counts.failed == 0 {
        counts.failed = 1;
    }
    // A skipped test passed in libtest's eyes.
    let silent = reader.skips.len() as u64;
    counts.passed = counts.passed.saturating_sub(silent);
    counts.skipped += silent;
    Outcome {
        name: name.to_owned(),
        took: start.elapsed(),
        ok,
        counts,
        skips: reader.skips,
        proven: reader.proven,
    }
}

fn shown(name: &str, command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    format!("{name}: {}", words.join(" "))
}

/// Runs the command and hands over the lines of both its outputs as they come. What
/// says nothing for longer than `silence` is described, ended, and has failed.
fn stream(
    command: &mut Command,
    silence: Duration,
    mut line: impl FnMut(&str),
) -> std::io::Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (line_tx, line_rx) = mpsc::channel::<String>();
    let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    // What was begun and not ended: a test's name before its end.
    let begun = outputs.each_ref().map(|_| Arc::<Mutex<Vec<u8>>>::default());
    for (pipe, begun) in outputs.into_iter().flatten().zip(&begun) {
        let (line_tx, begun) = (line_tx.clone(), begun.clone());
        thread::spawn(move || hand_over(BufReader::new(pipe), &begun, &line_tx));
    }
    drop(line_tx);
    let mut heard = Instant::now();
    let mut hung = false;
    // A grandchild that keeps the pipes open must not keep us: the command's end
    // decides, then what is already in the pipes is read.
    loop {
        match line_rx.recv_timeout(Duration::from_millis(200)) {
            Ok(text) => {
                heard = Instant::now();
                line(&text);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Ok(child.wait()?.success() && !hung);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    while let Ok(text) = line_rx.recv_timeout(Duration::from_millis(100)) {
                        line(&text);
                    }
                    return Ok(status.success() && !hung);
                }
                if heard.elapsed() > silence {
                    line(&format!(
                        "HANGS: nothing was said for {} s; this is what runs, and is ended now:",
                        silence.as_secs()
                    ));
                    for begun in &begun {
                        line(&String::from_utf8_lossy(
                            &begun.lock().unwrap_or_else(PoisonError::into_inner),
                        ));
                    }
                    hang::end(child.id()).iter().for_each(|said| line(said));
                    hung = true;
                    heard = Instant::now();
                }
            }
        }
    }
}

/// Sends the lines of a pipe, until it ends or nobody wants them.
fn hand_over(mut pipe: impl BufRead, begun: &Mutex<Vec<u8>>, line_tx: &mpsc::Sender<String>) {
    while let Ok(bytes) = pipe.fill_buf() {
        let length = bytes.len();
        let mut rest = begun.lock().unwrap_or_else(PoisonError::into_inner);
        rest.extend_from_slice(bytes);
        pipe.consume(length);
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let text: Vec<u8> = rest.drain(..=end).collect();
            if line_tx
                .send(String::from_utf8_lossy(&text[..end]).into_owned())
                .is_err()
            {
                return;
            }
        }
        if length == 0 {
            if !rest.is_empty() {
                let _ = line_tx.send(String::from_utf8_lossy(&rest).into_owned());
            }
            return;
        }
    }
}

/// Reads the output of libtest, node's test runner and vitest.
#[derive(Debug, Default)]
struct Reader {
    counts: Counts,
    skips: Vec<String>,
    proven: Vec<Proven>,
    /// Inside libtest's output of passed tests.
    in_successes: bool,
    /// Inside its output of failed tests.
    in_failures: bool,
    /// The test whose output is being read.
    test: String,
}

impl Reader {
    /// Takes a line; whether it is to be shown.
    fn take(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.in_failures = false;
            self.counts.passed += number_before(result, " passed");
            self.counts.failed += number_before(result, " failed");
            self.counts.skipped += number_before(result, " ignored");
            return true;
        }
        match line {
            "successes:" => {
                self.in_successes = true;
                return false;
            }
            "failures:" => {
                self.in_successes = false;
                self.in_failures = true;
            }
            _ => {}
        }
        if let Some(test) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.test = test.to_owned();
        }
        if let Some(proven) = line.strip_prefix("PROVEN: ").filter(|_| !self.in_failures) {
            let mut parts = proven.splitn(3, " | ").map(str::to_owned);
            let parts: [String; 3] = [(); 3].map(|()| parts.next().unwrap_or_default());
            self.proven.push(parts);
            return false;
        }
        // A harness that does not capture shows such a line where it is said.
        if !self.in_failures && line.to_lowercase().starts_with("skip") {
            let test = if self.in_successes {
                &self.test
            } else {
                "a test"
            };
            self.skips.push(format!("{test}: {line}"));
            return true;
        }
        self.counts.passed += node(line, "pass");
        self.counts.failed += node(line, "fail");
        self.counts.skipped += node(line, "skipped");
        if let Some(summary) = line.trim_start().strip_prefix("Tests  ") {
            self.counts.passed += number_before(summary, " passed");
            self.counts.failed += number_before(summary, " failed");
            self.counts.skipped += number_before(summary, " skipped");
        }
        !self.in_successes
    }
}

/// `# pass 12` (TAP) or `ℹ pass 12` (spec), as node's test runner ends.
fn node(line: &str, word: &str) -> u64 {
    line.strip_prefix("# ")
        .or_else(|| line.strip_prefix("ℹ "))
        .and_then(|rest| rest.strip_prefix(word))
        .and_then(|rest| rest.strip_prefix(' '))
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// The number that stands right before `word`; 0 when there is none.
fn number_before(text: &str, word: &str) -> u64 {
    let Some(at) = text.find(word) else { return 0 };
    let digits: String = text[..at]
        .chars()
        .rev()
        .take_while(char::is_ascii_digit)
        .collect();
    digits
        .chars()
        .rev()
        .collect::<String>()
        .parse()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> (Reader, Vec<String>) {
        let mut reader = Reader::default();
        let shown = lines
            .iter()
            .filter(|line| reader.take(line))
            .map(ToString::to_string)
            .collect();
        (reader, shown)
    }

    #[test]
    fn libtest_is_counted_over_binaries_and_its_skips_are_found() {
        let (reader, shown) = read(&[
            "skipped files::user: no setpriv",
            "test a ... ok",
            "successes:",
            "",
            "---- a stdout ----",
            "chatter",
            "SKIP: no mariadbd here",
            "PROVEN: kind | rust | all suites",
            "",
            "successes:",
            "    a",
            "",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "failures:",
            "---- b stdout ----",
            "skip is only a word of a failed test",
            "PROVEN: kind | seed | nothing, as it failed",
            "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured",
        ]);
        assert_eq!(
            reader.counts,
            Counts {
                passed: 3,
                failed: 3,
                skipped: 1
            }
        );
        assert_eq!(
            reader.skips,
            [
                "a test: skipped files::user: no setpriv",
                "a: SKIP: no mariadbd here"
            ]
        );
        let proven = ["kind", "rust", "all suites"].map(str::to_owned);
        assert_eq!(reader.proven, [proven]);
        assert!(shown.contains(&"SKIP: no mariadbd here".to_owned()));
        assert!(!shown.contains(&"chatter".to_owned()));
        assert!(shown.contains(&"skip is only a word of a failed test".to_owned()));
    }

    #[test]
    fn node_and_vitest_are_counted() {
        let (reader, _) = read(&["ℹ pass 7", "ℹ fail 1", "# pass 2", "# skipped 4"]);
        assert_eq!(
            reader.counts,
            Counts {
                passed: 9,
                failed: 1,
                skipped: 4
            }
        );
        let (reader, _) = read(&["      Tests  2 failed | 11 passed (13)"]);
        assert_eq!(
            reader.counts,
            Counts {
                passed: 11,
                failed: 2,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_command_that_fails_without_a_failed_test_counts_as_one() {
        let outcome = tests(
            "broken",
            Command::new("sh").args([
                "-c",
                "echo 'test result: ok. 4 passed; 0 failed; 0 ignored'; exit 3",
            ]),
        );
        assert!(!outcome.ok);
        assert_eq!(
            outcome.counts,
            Counts {
                passed: 4,
                failed: 1,
                skipped: 0
            }
        );
    }

    #[test]
    fn what_says_nothing_is_described_and_ended_and_what_follows_still_runs() {
        let mut lines = vec![];
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "printf 'test a ... '; sleep 604.25; echo the next; exit 0",
        ]);
        let ok = stream(&mut command, Duration::from_secs(1), |line| {
            lines.push(line.to_owned());
        })
        .expect("run");
        assert!(!ok);
        let said = |part: &str| lines.iter().any(|line| line.contains(part));
        assert!(
            said("HANGS") && said(" sleep 604.25: sleep in "),
            "{lines:#?}"
        );
        assert!(said("test a ... the next"), "{lines:#?}");
        assert!(lines.iter().any(|line| line == "test a ... "), "{lines:#?}");
    }

    #[test]
    fn a_grandchild_that_keeps_the_output_open_does_not_hold_the_run() {
        let start = Instant::now();
        let outcome = tests(
            "daemon",
            Command::new("sh").args(["-c", "sleep 5 & echo '# pass 1'"]),
        );
        assert!(outcome.ok);
        assert_eq!(outcome.counts.passed, 1);
        assert!(start.elapsed() < Duration::from_secs(4));
    }
}
