//! Counters in Prometheus' text format, kept by hand: there are five.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::db::Db;

/// Upper bounds of the latency histogram, seconds.
const BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// One service's counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// A few dozen entries at most: routes are templates, not paths.
    requests: Mutex<Vec<Requests>>,
    records: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
    inserts: AtomicU64,
    insert_micros: AtomicU64,
}

#[derive(Debug)]
struct Requests {
    route: String,
    method: Method,
    status: StatusCode,
    count: u64,
}

impl Metrics {
    /// Counts one answered request. `route` is the route's template.
    pub fn request(&self, route: &str, method: &Method, status: StatusCode) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        // A method is the client's text: only the usual ones get a line each.
        let method = match *method {
            Method::GET
            | Method::POST
            | Method::OPTIONS
            | Method::HEAD
            | Method::PUT
            | Method::PATCH
            | Method::DELETE => method.clone(),
            _ => Method::TRACE,
        };
        let found = requests
            .iter_mut()
            .find(|r| r.status == status && r.method == method && r.route == route);
        match found {
            Some(entry) => entry.count += 1,
            None => requests.push(Requests {
                route: route.to_owned(),
                method,
                status,
                count: 1,
            }),
        }
    }

    /// Counts one committed write of `records` rows that took `latency`.
    pub fn insert(&self, records: usize, latency: Duration) {
        let seconds = latency.as_secs_f64();
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            if seconds <= *bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.inserts.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.insert_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// All of it as text, version 0.0.4 of the format.
    pub fn render(&self, api: &str, db: &Db) -> String {
        let api = escape(api);
        let mut out = String::with_capacity(4096);
        head(
            &mut out,
            "telemetry_http_requests_total",
            "counter",
            "Answered requests.",
        );
        for r in self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            let method = if r.method == Method::TRACE {
                "other"
            } else {
                r.method.as_str()
            };
            let _ = writeln!(
                out,
                "telemetry_http_requests_total{{api=\"{api}\",route=\"{}\",method=\"{method}\",status=\"{}\"}} {}",
                escape(&r.route),
                r.status.as_u16(),
                r.count
            );
        }
        head(
            &mut out,
            "telemetry_records_inserted_total",
            "counter",
            "Committed records.",
        );
        let records = self.records.load(Ordering::Relaxed);
        let _ = writeln!(
            out,
            "telemetry_records_inserted_total{{api=\"{api}\"}} {records}"
        );

        head(
            &mut out,
            "telemetry_insert_seconds",
            "histogram",
            "Time of a committed write.",
        );
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            let n = bucket.load(Ordering::Relaxed);
            let _ = writeln!(
                out,
                "telemetry_insert_seconds_bucket{{api=\"{api}\",le=\"{bound}\"}} {n}"
            );
        }
        let inserts = self.inserts.load(Ordering::Relaxed);
        let seconds = self.insert_micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(
            out,
            "telemetry_insert_seconds_bucket{{api=\"{api}\",le=\"+Inf\"}} {inserts}\n\
             telemetry_insert_seconds_sum{{api=\"{api}\"}} {seconds}\n\
             telemetry_insert_seconds_count{{api=\"{api}\"}} {inserts}"
        );

        let (in_use, idle, max) = db.connections();
        head(
            &mut out,
            "telemetry_db_connections",
            "gauge",
            "Connections of the pool.",
        );
        let _ = writeln!(
            out,
            "telemetry_db_connections{{api=\"{api}\",state=\"in_use\"}} {in_use}\n\
             telemetry_db_connections{{api=\"{api}\",state=\"idle\"}} {idle}"
        );
        head(
            &mut out,
            "telemetry_db_connections_max",
            "gauge",
            "Most connections of the pool.",
        );
        let _ = writeln!(out, "telemetry_db_connections_max{{api=\"{api}\"}} {max}");
        head(
            &mut out,
            "telemetry_db_up",
            "gauge",
            "Whether the database answered last.",
        );
        let _ = writeln!(
            out,
            "telemetry_db_up{{api=\"{api}\"}} {}",
            u8::from(!db.is_away())
        );
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// A label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Database, Secret};

    #[tokio::test]
    async fn buckets_are_cumulative_and_labels_escaped() {
        let metrics = Metrics::default();
        metrics.request("/api", &Method::POST, StatusCode::CREATED);
        metrics.request("/api", &Method::POST, StatusCode::CREATED);
        metrics.request(
            "/api",
            &Method::from_bytes(b"BREW").unwrap(),
            StatusCode::NOT_FOUND,
        );
        metrics.insert(3, Duration::from_millis(4));
        metrics.insert(1, Duration::from_secs(60));
        let db = Db::new(&Database {
            host: "127.0.0.1".into(),
            port: 1,
            user: "u".into(),
            password: Secret::new("p"),
            name: "t".into(),
            pool_max: 7,
            acquire_timeout: Duration::from_millis(10),
        });
        let text = metrics.render("a\"b", &db);
        for line in [
            r#"telemetry_http_requests_total{api="a\"b",route="/api",method="POST",status="201"} 2"#,
            r#"telemetry_http_requests_total{api="a\"b",route="/api",method="other",status="404"} 1"#,
            r#"telemetry_records_inserted_total{api="a\"b"} 4"#,
            r#"telemetry_insert_seconds_bucket{api="a\"b",le="0.0025"} 0"#,
            r#"telemetry_insert_seconds_bucket{api="a\"b",le="0.005"} 1"#,
            r#"telemetry_insert_seconds_bucket{api="a\"b",le="10"} 1"#,
            r#"telemetry_insert_seconds_bucket{api="a\"b",le="+Inf"} 2"#,
            r#"telemetry_insert_seconds_sum{api="a\"b"} 60.004"#,
            r#"telemetry_db_connections{api="a\"b",state="in_use"} 0"#,
            r#"telemetry_db_connections_max{api="a\"b"} 7"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
