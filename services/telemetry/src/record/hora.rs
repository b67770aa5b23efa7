//! `hora`: the sender's wall clock, to the second.

use jiff::civil::{Date, Time};
use serde::{Serialize, Serializer};

/// A local date and time without a zone, `YYYY-MM-DD HH:MM:SS`, in the years
/// 1000 to 9999 that MySQL's `DATETIME` promises to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hora(String);

impl Hora {
    /// Reads `YYYY-MM-DD HH:MM:SS` or RFC 3339. Of the latter the wall clock is
    /// kept and the offset dropped, because the column is the sender's local
    /// time; a fraction of a second is cut, never rounded into the next day.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() < 19 {
            return None;
        }
        let (clock, rest) = bytes.split_at(19);
        let number = |from: usize, to: usize| {
            clock[from..to].iter().try_fold(0_u16, |n, &b| {
                b.is_ascii_digit().then(|| n * 10 + u16::from(b - b'0'))
            })
        };
        let small = |from: usize| number(from, from + 2).and_then(|n| i8::try_from(n).ok());
        let year = i16::try_from(number(0, 4)?).ok()?;
        let date = Date::new(year, small(5)?, small(8)?).ok()?;
        // RFC 3339 knows second 60; the wall clock of a leap second is shown as 59.
        let second = small(17)?;
        let second = if second == 60 && !rest.is_empty() {
            59
        } else {
            second
        };
        let time = Time::new(small(11)?, small(14)?, second, 0).ok()?;
        let separators = [clock[4], clock[7], clock[13], clock[16]] == *b"--::";
        let joined = match clock[10] {
            b' ' => rest.is_empty() || is_fraction_and_offset(rest),
            b'T' | b't' => is_fraction_and_offset(rest),
            _ => false,
        };
        (separators && joined && year >= 1000).then(|| {
            Self(format!(
                "{date} {:02}:{:02}:{:02}",
                time.hour(),
                time.minute(),
                time.second()
            ))
        })
    }

    /// Takes what the database gave back in this very form.
    pub(crate) fn from_database(text: String) -> Self {
        Self(text)
    }

    /// `YYYY-MM-DD HH:MM:SS`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `[.digits](Z|±HH:MM)`, as RFC 3339 section 5.6 has it.
fn is_fraction_and_offset(rest: &[u8]) -> bool {
    let offset = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    match offset {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let digit = |b: &u8| b.is_ascii_digit().then(|| b - b'0');
            let two = |a, b| Some(digit(a)? * 10 + digit(b)?);
            matches!((two(h1, h2), two(m1, m2)), (Some(h), Some(m)) if h < 24 && m < 60)
        }
        _ => false,
    }
}

impl Serialize for Hora {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("2025-03-01 12:30:59", "2025-03-01 12:30:59")]
    #[case("2024-02-29 00:00:00", "2024-02-29 00:00:00")]
    #[case("2025-03-01T12:30:59Z", "2025-03-01 12:30:59")]
    #[case("2025-03-01t12:30:59z", "2025-03-01 12:30:59")]
    #[case("2025-12-31T23:59:59.999999-06:00", "2025-12-31 23:59:59")]
    #[case("2025-03-01 12:30:59+05:30", "2025-03-01 12:30:59")]
    #[case("2016-12-31T23:59:60Z", "2016-12-31 23:59:59")]
    fn the_wall_clock_is_kept(#[case] text: &str, #[case] want: &str) {
        assert_eq!(Hora::parse(text).map(|h| h.0).as_deref(), Some(want));
    }

    #[rstest]
    #[case("")]
    #[case("2025-03-01")]
    #[case("2025-02-29 00:00:00")]
    #[case("2025-13-01 00:00:00")]
    #[case("2025-03-01 24:00:00")]
    #[case("2025-03-01 12:60:00")]
    #[case("2025-03-01 12:30:60")]
    #[case("2025/03/01 12:30:59")]
    #[case("0999-03-01 12:30:59")]
    #[case("2025-03-01T12:30:59")]
    #[case("2025-03-01T12:30:59.Z")]
    #[case("2025-03-01T12:30:59+24:00")]
    #[case("2025-03-01T12:30:59 Z")]
    #[case("2025-03-01 12:30:5９")]
    #[case(" 2025-03-01 12:30:59")]
    #[case("2025-03-01 12:30:59 ")]
    #[case("+025-03-01 12:30:59")]
    fn anything_else_is_refused(#[case] text: &str) {
        assert_eq!(Hora::parse(text), None);
    }
}
