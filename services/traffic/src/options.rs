//! What a run is asked to do, checked before anything is sent.

use std::time::Duration;

use http::Uri;
use http::uri::Scheme;

use crate::error::TrafficError;

/// What sets the pace of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Open loop: requests a second, due at even distances whatever the answers do.
    Rate(f64),
    /// Closed loop: so many users, each sending when its last request was answered.
    Users(usize),
}

/// When a run ends; with both limits, whichever comes first; with neither, when it is cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stop {
    /// End after this many requests.
    pub requests: Option<u64>,
    /// Send nothing more after this time; what is under way is still awaited.
    pub duration: Option<Duration>,
}

/// How the `Idempotency-Key` header is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Idempotency {
    /// No key, and no request is sent twice: without a key a repeat could make a second row.
    #[default]
    Off,
    /// Every request has a key of its own and is repeated, at most so many times, after a transport
    /// error, a timeout, or an answer of 429, 502, 503 or 504.
    Retry(u32),
}

/// Options of a run. `Options::new` has defaults for all but the essential three.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Base URL, normally the Ingress's; `/api` is appended. Only `http`.
    pub url: String,
    /// What sets the pace.
    pub pace: Pace,
    /// When it ends.
    pub stop: Stop,
    /// Keys and retries.
    pub idempotency: Idempotency,
    /// Send an `OPTIONS /api` before each POST, as a browser's page of another origin does; a refused
    /// one fails the request, whose POST is then not sent.
    pub preflight: bool,
    /// How long one attempt may take, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// How many requests may be under way at once, and so how many connections are open at most.
    /// Requests that are due beyond that wait, and their waiting counts as latency.
    pub max_in_flight: usize,
    /// Keep the ids of all rows made (8 bytes each) for the report.
    pub collect_ids: bool,
    /// `Host` header, for an Ingress that routes by host; by default the URL's own host and port.
    pub host: Option<String>,
}

impl Options {
    /// Options with the defaults: no key, no preflight, 10 s a request, at most 512 under way.
    #[must_use]
    pub fn new(url: impl Into<String>, pace: Pace, stop: Stop) -> Options {
        Options {
            url: url.into(),
            pace,
            stop,
            idempotency: Idempotency::Off,
            preflight: false,
            timeout: Duration::from_secs(10),
            max_in_flight: 512,
            collect_ids: false,
            host: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), TrafficError> {
        let wrong = |option, value: String, expected| {
            Err(TrafficError::Option {
                option,
                value,
                expected,
            })
        };
        match self.pace {
            Pace::Rate(rate) if !(rate > 0.0 && rate <= 1e6) => {
                return wrong(
                    "rate",
                    rate.to_string(),
                    "more than 0 and at most 1000000 requests a second",
                );
            }
            Pace::Users(users) if !(1..=100_000).contains(&users) => {
                return wrong("users", users.to_string(), "1 to 100000");
            }
            _ => {}
        }
        if self.stop.requests == Some(0) {
            return wrong("requests", "0".to_owned(), "at least 1");
        }
        if self.stop.duration.is_some_and(|d| d.is_zero()) {
            return wrong("duration", "0s".to_owned(), "more than nothing");
        }
        if self.timeout.is_zero() {
            return wrong("timeout", "0s".to_owned(), "more than nothing");
        }
        if self.max_in_flight == 0 || self.max_in_flight > 100_000 {
            return wrong(
                "max_in_flight",
                self.max_in_flight.to_string(),
                "1 to 100000",
            );
        }
        Ok(())
    }
}

/// Where the requests go, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What stands in the `Host` header.
    pub(crate) authority: String,
    /// The path that is posted to: the base's own path and `/api`.
    pub(crate) path: String,
}

impl Endpoint {
    pub(crate) fn parse(url: &str) -> Result<Endpoint, TrafficError> {
        let wrong = |reason| TrafficError::Url {
            url: url.to_owned(),
            reason,
        };
        let uri: Uri = url.trim().parse().map_err(|_| wrong("it is no URL"))?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => {}
            Some(scheme) if *scheme == Scheme::HTTPS => {
                return Err(wrong(
                    "TLS is not spoken here, use the Ingress's http address",
                ));
            }
            Some(_) => return Err(wrong("only http is spoken here")),
            None => return Err(wrong("it lacks http:// in front")),
        }
        if uri.query().is_some() {
            return Err(wrong("a base URL has no ?query"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(wrong("it names no plain host"));
        }
        // `Authority::port` is silent about a port that is none.
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => port
                .parse()
                .map_err(|_| wrong("its port is not between 0 and 65535"))?,
            None => 80,
        };
        let base = uri.path().trim_end_matches('/');
        Ok(Endpoint {
            // An IPv6 address stands in brackets in a URL, and without them for the resolver.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path: if base.ends_with("/api") {
                base.to_owned()
            } else {
                format!("{base}/api")
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080", "/api")]
    #[case("http://example.test/", "example.test", 80, "example.test", "/api")]
    #[case("http://[::1]:81/base/", "::1", 81, "[::1]:81", "/base/api")]
    #[case("http://a:1/api", "a", 1, "a:1", "/api")]
    fn a_base_url_is_taken_apart(
        #[case] url: &str,
        #[case] host: &str,
        #[case] port: u16,
        #[case] authority: &str,
        #[case] path: &str,
    ) {
        let endpoint = Endpoint::parse(url).unwrap();
        assert_eq!(
            (
                endpoint.host.as_str(),
                endpoint.port,
                endpoint.authority.as_str(),
                endpoint.path.as_str()
            ),
            (host, port, authority, path)
        );
    }

    #[rstest]
    #[case("https://a", "TLS is not spoken here")]
    #[case("127.0.0.1:8080", "http://")]
    #[case("/api", "lacks http://")]
    #[case("ftp://a", "only http")]
    #[case("http://a?x=1", "no ?query")]
    #[case("http://a:99999", "its port")]
    #[case("http://a:", "its port")]
    #[case("not a url", "no URL")]
    fn a_bad_url_is_explained(#[case] url: &str, #[case] reason: &str) {
        let error = Endpoint::parse(url).unwrap_err().to_string();
        assert!(
            error.contains(reason) && error.contains("expected something like"),
            "{error}"
        );
    }

    #[rstest]
    #[case(Pace::Rate(0.0), "rate is 0")]
    #[case(Pace::Rate(f64::NAN), "rate is NaN")]
    #[case(Pace::Users(0), "users is 0")]
    fn a_senseless_pace_is_refused(#[case] pace: Pace, #[case] message: &str) {
        let error = Options::new("http://a", pace, Stop::default())
            .check()
            .unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}
