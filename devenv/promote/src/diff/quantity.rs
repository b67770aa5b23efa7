//! Quantities of Kubernetes: `1000m` is `1`, `1Gi` is `1024Mi`.

/// The value in thousandths of a millionth, which all suffixes down to `n` are whole in.
pub(super) fn nanos(text: &str) -> Option<i128> {
    let at = text
        .find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(at);
    const GIGA: i128 = 1_000_000_000;
    let unit: i128 = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => GIGA,
        "k" => GIGA * 1_000,
        "M" => GIGA * 1_000_000,
        "G" => GIGA * GIGA,
        "T" => GIGA * GIGA * 1_000,
        "P" => GIGA * GIGA * 1_000_000,
        "E" => GIGA * GIGA * GIGA,
        "Ki" => GIGA << 10,
        "Mi" => GIGA << 20,
        "Gi" => GIGA << 30,
        "Ti" => GIGA << 40,
        "Pi" => GIGA << 50,
        "Ei" => GIGA << 60,
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            10_i128.checked_pow(power)?.checked_mul(GIGA)?
        }
    };
    let (sign, number) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 {
        return None;
    }
    let parse = |digits: &str| -> Option<i128> {
        if digits.is_empty() {
            Some(0)
        } else {
            digits.parse::<u64>().ok().map(i128::from)
        }
    };
    let parts = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let whole = parse(whole)?.checked_mul(unit)?;
    let fraction = parse(fraction)?.checked_mul(unit)? / parts;
    Some(sign * whole.checked_add(fraction)?)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1", "1000m", true)]
    #[case("0.5", "500m", true)]
    #[case("1Gi", "1024Mi", true)]
    #[case("1e3", "1k", true)]
    #[case("1.5Gi", "1536Mi", true)]
    #[case("1G", "1Gi", false)]
    #[case("128Mi", "128M", false)]
    #[case("-1", "1", false)]
    fn equal(#[case] a: &str, #[case] b: &str, #[case] same: bool) {
        assert!(nanos(a).is_some() && nanos(b).is_some());
        assert_eq!(nanos(a) == nanos(b), same);
    }

    #[rstest]
    #[case("")]
    #[case("Mi")]
    #[case("1.2.3")]
    #[case("1x")]
    #[case("1e99999")]
    #[case("99999999999999999999999999")]
    fn none(#[case] text: &str) {
        assert_eq!(nanos(text), None);
    }
}
