//! Reads `nginx.ingress.kubernetes.io/*` the way ingress-nginx v1.15.1 does,
//! and says what it could not use.

use std::collections::BTreeMap;
use std::time::Duration;

use fancy_regex::Regex;
use http::header::HeaderName;

use crate::table::{CanaryPolicy, HeaderMatch, Settings, Share};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Annotations that only say what happens here anyway when they have this
/// value: nothing to warn about.
const HARMLESS: &[(&str, &str)] = &[
    ("affinity-canary-behavior", "sticky"),
    ("backend-protocol", "HTTP"),
    ("enable-access-log", "true"),
    ("force-ssl-redirect", "false"),
    ("load-balance", "round_robin"),
    ("preserve-trailing-slash", "false"),
    ("proxy-http-version", "1.1"),
    ("proxy-next-upstream", "error timeout"),
    ("proxy-next-upstream-tries", "3"),
    ("service-upstream", "false"),
    ("ssl-passthrough", "false"),
    ("ssl-redirect", "false"),
    ("use-regex", "false"),
];

/// What an Ingress object's annotations come to.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    /// `Some` exactly if the object is a canary.
    pub canary: Option<CanaryPolicy>,
    pub settings: Settings,
    /// For people, in the order of the annotations' names.
    pub complaints: Vec<String>,
}

pub(super) fn parse(all: &BTreeMap<String, String>) -> Annotations {
    let ours: BTreeMap<&str, &str> = all
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())))
        .collect();
    let mut out = Annotations::default();
    let complain = &mut out.complaints;

    let enabled = match ours.get("canary") {
        None => false,
        Some(text) => parse_bool(text).unwrap_or_else(|| {
            complain.push(format!(
                "{PREFIX}canary is {text:?}, which is no boolean: taken as false; write \"true\""
            ));
            false
        }),
    };
    if enabled {
        out.canary = Some(canary(&ours, complain));
    } else if ours.keys().any(|name| name.starts_with("canary-")) {
        complain.push(format!(
            "canary-* annotations are set but {PREFIX}canary is not \"true\": they are dropped \
             and the object is an ordinary Ingress, as in ingress-nginx"
        ));
    }

    for (&name, &value) in &ours {
        if name == "canary" || name.starts_with("canary-") && is_canary(name) {
            continue;
        }
        if HARMLESS.contains(&(name, value)) {
            continue;
        }
        if enabled {
            complain.push(format!(
                "{PREFIX}{name} on a canary has no effect: the canary inherits it from its main \
                 Ingress; set it there"
            ));
            continue;
        }
        match name {
            "proxy-body-size" => match parse_size(value) {
                Some(0) => out.settings.body_limit = None,
                Some(bytes) => out.settings.body_limit = Some(bytes),
                None => complain.push(invalid(name, value, "a size like 8m", "1m")),
            },
            "proxy-connect-timeout" => {
                seconds(name, value, &mut out.settings.connect_timeout, complain)
            }
            "proxy-read-timeout" => {
                seconds(name, value, &mut out.settings.read_timeout, complain);
            }
            "proxy-send-timeout" => {
                seconds(name, value, &mut out.settings.send_timeout, complain);
            }
            _ => complain.push(format!(
                "{PREFIX}{name} is not supported by devenv's ingress and has no effect here"
            )),
        }
    }
    out
}

fn is_canary(name: &str) -> bool {
    matches!(
        name,
        "canary-by-header"
            | "canary-by-header-value"
            | "canary-by-header-pattern"
            | "canary-by-cookie"
            | "canary-weight"
            | "canary-weight-total"
    )
}

fn canary(ours: &BTreeMap<&str, &str>, complain: &mut Vec<String>) -> CanaryPolicy {
    let mut checked = |name: &'static str, allowed: fn(&str) -> bool| -> Option<String> {
        let value = *ours.get(name)?;
        if value.is_empty() {
            return None;
        }
        if allowed(value) {
            return Some(value.to_owned());
        }
        complain.push(format!(
            "{PREFIX}{name} is {value:?}, which has characters that ingress-nginx refuses: ignored"
        ));
        None
    };
    let header = checked("canary-by-header", plain);
    let value = checked("canary-by-header-value", plain);
    let pattern = checked("canary-by-header-pattern", regex_text);
    let cookie = checked("canary-by-cookie", plain);

    if header.is_none() {
        for name in ["canary-by-header-value", "canary-by-header-pattern"] {
            if ours.contains_key(name) {
                complain.push(format!(
                    "{PREFIX}{name} does nothing without {PREFIX}canary-by-header"
                ));
            }
        }
    }
    let header = header.and_then(|name| {
        let matching = match (value, pattern) {
            (Some(value), _) => HeaderMatch::Value(value),
            (None, Some(pattern)) => {
                let regex = Regex::new(&pattern).ok().map(Box::new);
                if regex.is_none() {
                    complain.push(format!(
                        "{PREFIX}canary-by-header-pattern is {pattern:?}, which does not compile: \
                         every request with the header goes to the main service"
                    ));
                }
                HeaderMatch::Pattern(regex)
            }
            (None, None) => HeaderMatch::Words,
        };
        // `-` and `_` are one in nginx's $http_ variables; a name with other
        // characters is one that nginx would drop from every request.
        let name = name.to_ascii_lowercase().replace('_', "-");
        match HeaderName::try_from(&name) {
            Ok(name) if is_kept_by_nginx(name.as_str()) => Some((name, matching)),
            _ => {
                complain.push(format!(
                    "{PREFIX}canary-by-header is {name:?}: no request can carry that header"
                ));
                None
            }
        }
    });

    let weight = number("canary-weight", ours, 0, complain);
    let total = number("canary-weight-total", ours, 100, complain);
    if total < 100 && ours.contains_key("canary-weight-total") {
        complain.push(format!(
            "{PREFIX}canary-weight-total {total} is ignored: ingress-nginx takes 100 for every \
             total up to 100"
        ));
    }
    CanaryPolicy {
        header,
        cookie,
        share: Share::new(weight, total),
    }
}

/// nginx (`ignore_invalid_headers`, no `underscores_in_headers`) hands on only
/// header names of letters, digits and dashes.
pub(crate) fn is_kept_by_nginx(lowercase_name: &str) -> bool {
    lowercase_name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `strconv.Atoi`: an optional sign and digits, nothing else.
fn parse_int(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn number(
    name: &str,
    ours: &BTreeMap<&str, &str>,
    default: i64,
    complain: &mut Vec<String>,
) -> i64 {
    let Some(text) = ours.get(name) else {
        return default;
    };
    parse_int(text).unwrap_or_else(|| {
        complain.push(invalid(name, text, "a whole number", &default.to_string()));
        default
    })
}

fn seconds(name: &str, text: &str, target: &mut Duration, complain: &mut Vec<String>) {
    match parse_int(text).and_then(|n| u64::try_from(n).ok()) {
        Some(n) if n > 0 => *target = Duration::from_secs(n),
        _ => complain.push(invalid(
            name,
            text,
            "whole seconds above 0",
            &target.as_secs().to_string(),
        )),
    }
}

fn invalid(name: &str, value: &str, wanted: &str, default: &str) -> String {
    format!("{PREFIX}{name} is {value:?}, expected {wanted}: {default} is used")
}

/// `^(?i)[0-9]+[bkmg]?$`, in bytes.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let unit: u64 = match &text[digits.len()..] {
        "" | "b" | "B" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn plain(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "-._~/: ".contains(c))
}

fn regex_text(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "-._~/:^$[](){}*+?|&=\\".contains(c))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Annotations {
        parse(
            &pairs
                .iter()
                .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()))
                .collect(),
        )
    }

    #[rstest]
    #[case("1", true)]
    #[case("t", true)]
    #[case("TRUE", true)]
    #[case("True", true)]
    #[case("tRUE", false)]
    #[case("yes", false)]
    #[case("0", false)]
    #[case("", false)]
    fn canary_is_a_go_boolean(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(read(&[("canary", text)]).canary.is_some(), expected);
    }

    #[rstest]
    #[case("50", Share::Of { canary: 50, total: 100 })]
    #[case("+5", Share::Of { canary: 5, total: 100 })]
    #[case("-10", Share::Never)]
    #[case("50%", Share::Never)]
    #[case("0.5", Share::Never)]
    #[case(" 5", Share::Never)]
    fn weight_is_a_go_integer(#[case] text: &str, #[case] expected: Share) {
        let policy = read(&[("canary", "true"), ("canary-weight", text)]);
        assert_eq!(policy.canary.unwrap().share, expected);
    }

    #[test]
    fn an_invalid_weight_leaves_the_other_rules_alone_and_is_named() {
        let read = read(&[
            ("canary", "true"),
            ("canary-weight", "50%"),
            ("canary-by-cookie", "tester"),
        ]);
        assert_eq!(read.canary.unwrap().cookie.as_deref(), Some("tester"));
        assert_eq!(
            read.complaints,
            [
                "nginx.ingress.kubernetes.io/canary-weight is \"50%\", expected a whole number: 0 is used"
            ]
        );
    }

    #[test]
    fn an_invalid_header_value_falls_back_to_always_and_never() {
        let read = read(&[
            ("canary", "true"),
            ("canary-by-header", "X_Canary"),
            ("canary-by-header-value", "a;b"),
        ]);
        let (name, matching) = read.canary.unwrap().header.unwrap();
        assert_eq!(name, "x-canary");
        assert!(matches!(matching, HeaderMatch::Words));
        assert_eq!(read.complaints.len(), 1);
    }

    #[test]
    fn header_value_beats_header_pattern() {
        let read = read(&[
            ("canary", "true"),
            ("canary-by-header", "x"),
            ("canary-by-header-value", "v"),
            ("canary-by-header-pattern", "p"),
        ]);
        let (_, matching) = read.canary.unwrap().header.unwrap();
        assert!(matches!(matching, HeaderMatch::Value(v) if v == "v"));
    }

    #[test]
    fn configured_but_not_enabled_is_an_ordinary_ingress() {
        let read = read(&[("canary-weight", "50")]);
        assert!(read.canary.is_none());
        assert_eq!(read.complaints.len(), 1, "{:?}", read.complaints);
    }

    #[test]
    fn what_is_not_supported_is_said_once_each() {
        let read = read(&[
            ("rewrite-target", "/$1"),
            ("use-regex", "true"),
            ("ssl-redirect", "false"),
        ]);
        assert_eq!(read.complaints.len(), 2, "{:?}", read.complaints);
        assert!(read.complaints[0].contains("rewrite-target"));
    }

    #[test]
    fn a_canary_inherits_and_says_so() {
        let read = read(&[("canary", "true"), ("proxy-body-size", "8m")]);
        assert_eq!(read.settings, Settings::default());
        assert!(read.complaints[0].contains("inherits"));
    }

    #[rstest]
    #[case("8m", Some(8 << 20))]
    #[case("1024", Some(1024))]
    #[case("2K", Some(2048))]
    #[case("1g", Some(1 << 30))]
    #[case("0", None)]
    #[case("lots", Some(1 << 20))]
    #[case("8 m", Some(1 << 20))]
    #[case("8mb", Some(1 << 20))]
    fn body_sizes(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(
            read(&[("proxy-body-size", text)]).settings.body_limit,
            expected
        );
    }

    #[rstest]
    #[case("3", 3, 0)]
    #[case("3s", 60, 1)]
    #[case("0", 60, 1)]
    #[case("-1", 60, 1)]
    fn timeouts(#[case] text: &str, #[case] expected: u64, #[case] complaints: usize) {
        let read = read(&[("proxy-read-timeout", text)]);
        assert_eq!(read.settings.read_timeout, Duration::from_secs(expected));
        assert_eq!(read.complaints.len(), complaints);
    }
}
