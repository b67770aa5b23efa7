//! Sizes, durations and command lines, as Compose (and so Go) writes them.

use std::fmt::Write;
use std::time::Duration;

/// `64m`, `1.5gb`, `512 KiB`, `1024`: always powers of 1024.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let suffix = suffix
        .strip_prefix(' ')
        .unwrap_or(suffix)
        .to_ascii_lowercase();
    let power = match suffix.strip_suffix('b').unwrap_or(&suffix) {
        "" => 0,
        "k" | "ki" => 1,
        "m" | "mi" => 2,
        "g" | "gi" => 3,
        "t" | "ti" => 4,
        "p" | "pi" => 5,
        _ => return None,
    };
    let value = number * 1024f64.powi(power);
    // Saturates where it isn't representable, which no machine has.
    (value.is_finite() && value >= 0.0 && value < i64::MAX as f64).then_some(value as u64)
}

/// `1m30s`, `1.5h`, `100ms`: Go's durations, from zero.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanos = 0u128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        nanos = nanos.checked_add(whole.checked_mul(scale)?)?;
        let digits = &fraction[..fraction.len().min(18)];
        if !digits.is_empty() {
            let part: u128 = digits.parse().ok()?;
            nanos += part * scale / 10u128.pow(u32::try_from(digits.len()).ok()?);
        }
        rest = next;
    }
    // Go's are 63 bits of nanoseconds.
    let nanos = u64::try_from(nanos)
        .ok()
        .filter(|n| i64::try_from(*n).is_ok())?;
    Some(Duration::from_nanos(nanos))
}

/// As Go writes a duration: `1m30s`, `1.5s`, `100ms`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let decimal = |unit: u128, name: &str| {
        let mut out = format!("{}", nanos / unit);
        let rest = nanos % unit;
        if rest > 0 {
            let width = unit.ilog10() as usize;
            let digits = format!("{rest:0width$}");
            let _ = write!(out, ".{}", digits.trim_end_matches('0'));
        }
        out + name
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let seconds = duration.as_secs();
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let mut last = format!("{}", seconds % 60);
            if duration.subsec_nanos() > 0 {
                let digits = format!("{:09}", duration.subsec_nanos());
                let _ = write!(last, ".{}", digits.trim_end_matches('0'));
            }
            match (hours, minutes) {
                (0, 0) => format!("{last}s"),
                (0, _) => format!("{minutes}m{last}s"),
                _ => format!("{hours}h{minutes}m{last}s"),
            }
        }
    }
}

/// Why a command line can't be split.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WordsError {
    /// A quote is never closed.
    Open(char),
    /// A character by which a shell would do more than run one program.
    Shell(char),
}

/// The words of a command line: quotes and backslashes as in a shell, and nothing else
/// of one. Where Compose would silently leave out what follows (`;`, `|`, `&`, `<`, `>`)
/// this is an error.
pub(super) fn words(line: &str) -> Result<Vec<String>, WordsError> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => out.extend(word.take()),
            '\\' => {
                if let Some(next) = chars.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(WordsError::Open('\''))? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(WordsError::Open('"'))? {
                        '"' => break,
                        '\\' => word.extend(chars.next()),
                        c => word.push(c),
                    }
                }
            }
            ';' | '|' | '&' | '<' | '>' | '`' => return Err(WordsError::Shell(c)),
            '$' if chars.as_str().starts_with('(') => return Err(WordsError::Shell(c)),
            c => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("0", Some(0))]
    #[case("64m", Some(64 << 20))]
    #[case("64MiB", Some(64 << 20))]
    #[case("1.5gb", Some(3 << 29))]
    #[case("512 k", Some(512 << 10))]
    #[case("10b", Some(10))]
    #[case("1x", None)]
    #[case("m", None)]
    #[case("-1", None)]
    #[case("1.2.3", None)]
    #[case("99999999p", None)]
    fn sizes(#[case] text: &str, #[case] want: Option<u64>) {
        assert_eq!(bytes(text), want);
    }

    #[rstest]
    #[case("2s", Some("2s"))]
    #[case("90s", Some("1m30s"))]
    #[case("1m30s", Some("1m30s"))]
    #[case("1.5h", Some("1h30m0s"))]
    #[case("1.5s", Some("1.5s"))]
    #[case("100ms", Some("100ms"))]
    #[case("1500us", Some("1.5ms"))]
    #[case("0", Some("0s"))]
    #[case("7ns", Some("7ns"))]
    #[case("60m0.25s", Some("1h0m0.25s"))]
    #[case("5", None)]
    #[case("", None)]
    #[case("s", None)]
    #[case("1.s", Some("1s"))]
    #[case("1..2s", None)]
    #[case("-1s", None)]
    #[case("99999999999h", None)]
    fn durations(#[case] text: &str, #[case] want: Option<&str>) {
        assert_eq!(duration(text).map(go_duration).as_deref(), want);
    }

    #[rstest]
    #[case("sleep 10", &["sleep", "10"])]
    #[case("sh -c 'a b' \"c \\\" d\" e\\ f ''", &["sh", "-c", "a b", "c \" d", "e f", ""])]
    #[case("  ", &[])]
    #[case("a$b #c", &["a$b", "#c"])]
    fn command_lines(#[case] line: &str, #[case] want: &[&str]) {
        assert_eq!(words(line).unwrap(), want);
    }

    #[rstest]
    #[case("a 'b", WordsError::Open('\''))]
    #[case("a; b", WordsError::Shell(';'))]
    #[case("a > b", WordsError::Shell('>'))]
    fn no_command_lines(#[case] line: &str, #[case] want: WordsError) {
        assert_eq!(words(line), Err(want));
    }
}
