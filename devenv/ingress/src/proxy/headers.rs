//! Which headers cross the proxy, as ingress-nginx's `proxy_set_header` lines
//! and nginx's defaults make it.

use http::header::{
    CONNECTION, CONTENT_LENGTH, Entry, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE,
};

use crate::compile::is_kept_by_nginx;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
const X_ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
const X_ORIGINAL_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-original-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_SCHEME: HeaderName = HeaderName::from_static("x-scheme");

/// What is known about the client's connection, ready to be sent.
#[derive(Debug)]
pub(super) struct Peer {
    /// The peer's address.
    pub address: HeaderValue,
    /// The port of our listener.
    pub port: HeaderValue,
}

/// Turns the client's headers into the upstream's. `upgrade` says that the
/// client asked for another protocol; `request_id` is used unless it sent one.
pub(super) fn to_upstream(
    headers: &mut HeaderMap,
    peer: &Peer,
    upgrade: bool,
    request_id: impl FnOnce() -> HeaderValue,
) {
    // Room for what is added below, at once.
    headers.reserve(10);
    let mut refused: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        let gone = match name.as_str() {
            "keep-alive" | "proxy" | "proxy-connection" | "te" | "trailer" | "expect"
            | "transfer-encoding" => true,
            "upgrade" => !upgrade,
            name => !is_kept_by_nginx(name),
        };
        if gone {
            refused.push(name.clone());
        }
    }
    for name in refused {
        headers.remove(name);
    }
    remove_named_by_connection(headers);
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }

    // HTTP/1.1 demands one; `_` is what nginx calls a server without a name.
    let host = headers
        .entry(HOST)
        .or_insert(HeaderValue::from_static("_"))
        .clone();
    match headers.insert(X_FORWARDED_FOR, peer.address.clone()) {
        Some(theirs) => headers.insert(X_ORIGINAL_FORWARDED_FOR, theirs),
        None => headers.remove(X_ORIGINAL_FORWARDED_FOR),
    };
    match headers.insert(X_FORWARDED_HOST, host) {
        Some(theirs) => headers.insert(X_ORIGINAL_FORWARDED_HOST, theirs),
        None => headers.remove(X_ORIGINAL_FORWARDED_HOST),
    };
    headers.insert(X_REAL_IP, peer.address.clone());
    headers.insert(X_FORWARDED_PORT, peer.port.clone());
    let scheme = HeaderValue::from_static("http");
    headers.insert(X_FORWARDED_PROTO, scheme.clone());
    headers.insert(X_FORWARDED_SCHEME, scheme.clone());
    headers.insert(X_SCHEME, scheme);
    if let Entry::Vacant(free) = headers.entry(X_REQUEST_ID) {
        free.insert(request_id());
    }
}

/// Turns the upstream's response headers into the client's.
pub(super) fn to_client(headers: &mut HeaderMap, upgrade: bool) {
    let mut refused: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        let gone = match name.as_str() {
            "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" => true,
            "upgrade" => !upgrade,
            // What nginx hides unless told otherwise.
            "server" | "x-pad" => true,
            name => name.starts_with("x-accel-"),
        };
        if gone {
            refused.push(name.clone());
        }
    }
    for name in refused {
        headers.remove(name);
    }
    remove_named_by_connection(headers);
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Removes `Connection` and what it names (RFC 9110 section 7.6.1), except
/// what the message could not do without.
fn remove_named_by_connection(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(CONNECTION).iter();
    let plain = match (lines.next(), lines.next()) {
        (None, _) => return,
        (Some(only), None) => ["keep-alive", "close", "upgrade"]
            .iter()
            .any(|word| only.as_bytes().eq_ignore_ascii_case(word.as_bytes())),
        (Some(_), Some(_)) => false,
    };
    if !plain {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|line| line.as_bytes().split(|b| *b == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .filter(|name| ![HOST, CONTENT_LENGTH, UPGRADE].contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    headers.remove(CONNECTION);
}

/// The client wants another protocol, as nginx's map on `$http_upgrade` sees
/// it: the header is there and not empty.
pub(super) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP_BY_HOP: [&str; 7] = [
        "keep-alive",
        "proxy",
        "proxy-connection",
        "te",
        "trailer",
        "expect",
        "transfer-encoding",
    ];

    fn sent(lines: &[(&str, &str)], upgrade: bool) -> HeaderMap {
        let mut headers = map(lines);
        let peer = Peer {
            address: HeaderValue::from_static("192.0.2.7"),
            port: HeaderValue::from_static("80"),
        };
        to_upstream(&mut headers, &peer, upgrade, || {
            HeaderValue::from_static("made")
        });
        headers
    }

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_forwarded_family_is_ours_and_theirs_is_kept_aside() {
        let headers = sent(
            &[
                ("host", "a.b:8080"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-host", "evil"),
                ("x-forwarded-proto", "https"),
                ("x-real-ip", "9.9.9.9"),
                ("x-request-id", "theirs"),
            ],
            false,
        );
        for (name, value) in [
            ("host", "a.b:8080"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-original-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "a.b:8080"),
            ("x-original-forwarded-host", "evil"),
            ("x-forwarded-port", "80"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-scheme", "http"),
            ("x-scheme", "http"),
            ("x-real-ip", "192.0.2.7"),
            ("x-request-id", "theirs"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
    }

    #[test]
    fn an_original_header_is_never_the_clients_own() {
        let headers = sent(
            &[("host", "h"), ("x-original-forwarded-for", "fake")],
            false,
        );
        assert!(!headers.contains_key("x-original-forwarded-for"));
        assert_eq!(headers["x-request-id"], "made");
    }

    #[test]
    fn hop_by_hop_and_what_connection_names_stay_here() {
        let mut lines = vec![
            ("host", "h"),
            ("content-length", "3"),
            ("connection", "close, x-secret, host, content-length"),
            ("x-secret", "1"),
            ("under_score", "1"),
            ("upgrade", "h2c"),
        ];
        lines.extend(HOP_BY_HOP.iter().map(|name| (*name, "v")));
        let headers = sent(&lines, false);
        for name in ["connection", "x-secret", "under_score", "upgrade"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        for name in HOP_BY_HOP {
            assert!(!headers.contains_key(name), "{name}");
        }
        assert_eq!(headers["host"], "h");
        assert_eq!(headers["content-length"], "3");
    }

    #[test]
    fn an_upgrade_is_asked_for_again() {
        let headers = sent(
            &[
                ("host", "h"),
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "websocket"),
            ],
            true,
        );
        assert_eq!(headers["connection"], "upgrade");
        assert_eq!(headers["upgrade"], "websocket");
    }

    #[test]
    fn what_nginx_hides_from_clients_is_hidden() {
        let mut headers = map(&[
            ("server", "uvicorn"),
            ("x-accel-redirect", "/internal"),
            ("keep-alive", "timeout=5"),
            ("connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("content-type", "a/b"),
        ]);
        to_client(&mut headers, false);
        assert_eq!(headers.len(), 1);
    }
}
