//! Times as Kubernetes writes them.

use std::time::Duration;

use jiff::Timestamp;

/// Now, as objects carry it: RFC 3339 in UTC, whole seconds.
pub(crate) fn now() -> String {
    format(Timestamp::now())
}

/// A time as objects carry it.
pub(crate) fn format(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How long from `earlier` to `later`; zero when it is the other way round.
pub(crate) fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}
