//! Values as kubectl's users expect to see them.

use jiff::Timestamp;
use serde_json::{Value, json};

pub const NONE: &str = "<none>";
pub const UNKNOWN: &str = "<unknown>";

pub fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

pub fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub fn name(object: &Value) -> Value {
    json!(str_of(&object["metadata"]["name"]))
}

pub fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(&object["metadata"]["creationTimestamp"], now))
}

/// How long ago a timestamp is.
pub fn since(timestamp: &Value, now: Timestamp) -> String {
    match str_of(timestamp).parse::<Timestamp>() {
        Ok(then) => human(now.as_second() - then.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// A duration with two units at most, as Kubernetes' `HumanDuration` has it.
pub fn human(seconds: i64) -> String {
    const DAY: i64 = 24 * 3600;
    let two = |big: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 | 0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => two(seconds / 60, 'm', seconds % 60, 's'),
        600..10800 => format!("{}m", seconds / 60),
        10800..28800 => two(seconds / 3600, 'h', seconds / 60 % 60, 'm'),
        28800..172_800 => format!("{}h", seconds / 3600),
        172_800..691_200 => two(seconds / DAY, 'd', seconds / 3600 % 24, 'h'),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(seconds / DAY / 365, 'y', seconds / DAY % 365, 'd'),
        _ => format!("{}y", seconds / DAY / 365),
    }
}

/// Labels as `a=b,c=d`.
pub fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", str_of(v)))
        .collect();
    or(&pairs.join(","), NONE).to_owned()
}

/// Names and images of the containers of a pod's spec.
pub fn containers(spec: &Value) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let all: Vec<&str> = list(&spec["containers"])
            .iter()
            .map(|c| str_of(&c[field]))
            .collect();
        json!(all.join(","))
    })
}

/// The first few of a list, and how many more there are.
pub fn first_few(all: &[String], few: usize, word: &str) -> String {
    let shown = all.iter().take(few).cloned().collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(few) {
        0 => shown,
        more => format!("{shown} + {more} more{word}"),
    }
}
