//! How long a container waits before it is started again.
//!
//! Kubernetes restarts a container at once after its first end, then after
//! 10 s, doubling up to 5 min, and starts over once it ran for 10 min
//! (kubelet: `backOffPeriod`, `MaxContainerBackOff`). A pod annotated with
//! [`ANNOTATION`] waits a constant time instead: the database's pod comes back
//! within a blink, however often it was killed.

use std::time::Duration;

/// Pod annotation that replaces the exponential back-off by a constant, such as `100ms` or `2s`.
pub const ANNOTATION: &str = "devenv.dev/restart-backoff";

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
const RESET_AFTER: Duration = Duration::from_secs(600);

/// The restart back-off of one container.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    constant: Option<Duration>,
    ends: u32,
}

impl Backoff {
    /// Exponential back-off, or a constant one where the pod's annotation gives it.
    pub fn new(constant: Option<Duration>) -> Backoff {
        Backoff { constant, ends: 0 }
    }

    /// The container ended after it ran for `ran`: how long to wait before the next start.
    pub fn ended(&mut self, ran: Duration) -> Duration {
        if ran >= RESET_AFTER {
            self.ends = 0;
        }
        let ends = self.ends;
        self.ends = self.ends.saturating_add(1);
        if let Some(constant) = self.constant {
            return constant;
        }
        match ends {
            0 => Duration::ZERO,
            n => FIRST.saturating_mul(1u32 << (n - 1).min(10)).min(LONGEST),
        }
    }
}

/// Reads a duration as Go writes them, as far as an annotation needs it: `250ms`, `2s`, `1m`, `0`.
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => {
            return Err(format!(
                "`{text}` is not a duration: write it like 100ms, 2s or 1m"
            ));
        }
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration: write it like 100ms, 2s or 1m"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn seconds(backoff: &mut Backoff, n: usize) -> Vec<u64> {
        (0..n)
            .map(|_| backoff.ended(Duration::from_secs(1)).as_secs())
            .collect()
    }

    #[test]
    fn doubles_from_ten_seconds_to_five_minutes() {
        let mut backoff = Backoff::new(None);
        assert_eq!(seconds(&mut backoff, 8), [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_good_minutes_start_it_over() {
        let mut backoff = Backoff::new(None);
        seconds(&mut backoff, 4);
        assert_eq!(backoff.ended(Duration::from_secs(600)), Duration::ZERO);
        assert_eq!(seconds(&mut backoff, 2), [10, 20]);
    }

    #[test]
    fn an_annotation_makes_it_constant() {
        let mut backoff = Backoff::new(Some(Duration::from_millis(100)));
        for _ in 0..50 {
            assert_eq!(backoff.ended(Duration::ZERO), Duration::from_millis(100));
        }
    }

    #[rstest]
    #[case("100ms", Some(100))]
    #[case("2s", Some(2_000))]
    #[case("1m", Some(60_000))]
    #[case("0", Some(0))]
    #[case("10", None)]
    #[case("-1s", None)]
    #[case("99999999999999999999s", None)]
    #[case("", None)]
    fn durations(#[case] text: &str, #[case] millis: Option<u64>) {
        assert_eq!(parse_duration(text).ok(), millis.map(Duration::from_millis));
    }
}
