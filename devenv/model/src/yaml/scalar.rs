//! What a plain (unquoted) scalar is, the way Kubernetes reads manifests.
//!
//! kubectl and the API server read YAML with sigs.k8s.io/yaml, which resolves plain
//! scalars after YAML 1.1 as go-yaml v2 does (`yes`, `on`, `0x1f`, `010` is eight,
//! `1_000`) and then turns the result into JSON. Timestamps and base-60 numbers stay
//! strings there, as they do here.

use serde_json::Number;

/// A plain scalar, resolved. Strings keep their text, so it isn't repeated here.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    String,
    Null,
    Bool(bool),
    Number(Number),
    /// `.inf`, `.nan` and integers beyond 64 bits: JSON, and so Kubernetes, has no place for them.
    NotJson,
}

/// Who reads the text: it decides whether `yes` and `on` are booleans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// kubectl and the API server: YAML 1.1, they are.
    Kubernetes,
    /// kustomize reads resources with go-yaml v3, which keeps them as text, and writes
    /// them out quoted.
    Kustomize,
    /// Compose reads its files with go-yaml v3 too.
    Compose,
}

impl Reader {
    /// Who that is, for messages: resources end at Kubernetes whoever reads them first.
    pub(super) fn name(self) -> &'static str {
        match self {
            Reader::Kubernetes | Reader::Kustomize => "Kubernetes",
            Reader::Compose => "Compose",
        }
    }
}

const KUBERNETES_ONLY: [&str; 16] = [
    "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off",
    "OFF",
];

/// Resolves a plain scalar.
pub(super) fn resolve(text: &str, reader: Reader) -> Scalar {
    if reader != Reader::Kubernetes && KUBERNETES_ONLY.contains(&text) {
        return Scalar::String;
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => return Scalar::NotJson,
        _ => {}
    }
    let Some(first) = text.chars().next() else {
        return Scalar::Null;
    };
    if !(first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) || is_date(text) {
        return Scalar::String;
    }
    if first == '.' {
        return if is_float(text) {
            float(text)
        } else {
            Scalar::String
        };
    }
    let plain = text.replace('_', "");
    match integer(&plain) {
        Some(Ok(n)) => Scalar::Number(n),
        Some(Err(TooBig)) => Scalar::NotJson,
        None if is_float(&plain) => float(&plain),
        None => Scalar::String,
    }
}

struct TooBig;

/// Go's `strconv.ParseInt(s, 0, 64)`, then `ParseUint`: prefixes 0x, 0o, 0b, and a
/// leading 0 for octal.
fn integer(text: &str) -> Option<Result<Number, TooBig>> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(d) = lower.strip_prefix("0x") {
        (16, d)
    } else if let Some(d) = lower.strip_prefix("0b") {
        (2, d)
    } else if let Some(d) = lower.strip_prefix("0o") {
        (8, d)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let Ok(magnitude) = i128::from_str_radix(digits, radix) else {
        return Some(Err(TooBig));
    };
    let value = if negative { -magnitude } else { magnitude };
    let number = i64::try_from(value)
        .map(Number::from)
        .or_else(|_| u64::try_from(value).map(Number::from));
    Some(number.map_err(|_| TooBig))
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(i) => (&text[..i], Some(&text[i + 1..])),
        None => (text, None),
    };
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    mantissa_ok && exponent_ok
}

fn float(text: &str) -> Scalar {
    match text.parse::<f64>() {
        Ok(f) if f.is_finite() => Scalar::Number(json_number(f)),
        // Go's ParseFloat fails on a number out of range, and the text stays text.
        _ => Scalar::String,
    }
}

/// `1e3` reaches the API server as the JSON number `1000`, an integer.
fn json_number(f: f64) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if f.fract() == 0.0 && f.abs() <= EXACT {
        // Exact by the check above.
        return Number::from(f as i64);
    }
    Number::from_f64(f).unwrap_or_else(|| Number::from(0))
}

/// Dates begin `YYYY-` and stay text.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() > 4 && bytes[4] == b'-' && bytes[..4].iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    // The right-hand sides were read off `kubectl annotate --local -o json`.
    #[rstest]
    #[case("yes", json!(true))]
    #[case("Off", json!(false))]
    #[case("y", json!(true))]
    #[case("oN", json!("oN"))]
    #[case("~", json!(null))]
    #[case("010", json!(8))]
    #[case("0o17", json!(15))]
    #[case("0x1F", json!(31))]
    #[case("-0b11", json!(-3))]
    #[case("1_000", json!(1000))]
    #[case("1e3", json!(1000))]
    #[case("1.50", json!(1.5))]
    #[case("089", json!(89))]
    #[case("5.", json!(5))]
    #[case(".5", json!(0.5))]
    #[case("1.1.1", json!("1.1.1"))]
    #[case("12:30:45", json!("12:30:45"))]
    #[case("2024-01-01", json!("2024-01-01"))]
    #[case("18446744073709551615", json!(18_446_744_073_709_551_615_u64))]
    #[case("+7", json!(7))]
    #[case("1e", json!("1e"))]
    #[case("-", json!("-"))]
    fn as_kubernetes_reads_it(#[case] text: &str, #[case] want: serde_json::Value) {
        let got = match resolve(text, Reader::Kubernetes) {
            Scalar::String => json!(text),
            Scalar::Null => json!(null),
            Scalar::Bool(b) => json!(b),
            Scalar::Number(n) => json!(n),
            Scalar::NotJson => panic!("{text} has no JSON form"),
        };
        assert_eq!(got, want);
    }

    #[rstest]
    #[case(".inf")]
    #[case("-.INF")]
    #[case(".nan")]
    #[case("99999999999999999999999")]
    fn numbers_json_cannot_hold(#[case] text: &str) {
        assert_eq!(resolve(text, Reader::Kubernetes), Scalar::NotJson);
    }

    #[test]
    fn kustomize_keeps_yes_and_on_as_text() {
        for text in KUBERNETES_ONLY {
            assert!(
                matches!(resolve(text, Reader::Kubernetes), Scalar::Bool(_)),
                "{text}"
            );
            assert_eq!(resolve(text, Reader::Kustomize), Scalar::String);
        }
        assert_eq!(resolve("True", Reader::Kustomize), Scalar::Bool(true));
    }
}
