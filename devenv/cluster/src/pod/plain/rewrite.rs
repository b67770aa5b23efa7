//! Addresses in place of names: the hosts that a container's variables and
//! arguments name, where no DNS can answer for them. Pure.
//!
//! A host is known by where it stands: the whole of a variable, in a URL,
//! before a port, after a key such as `host=`. A word that merely equals a
//! Service's name (a database's name, a user) stays.

/// Answers for hosts.
pub(super) trait Book {
    /// Where this host is, and which port answers for `port` there. `None` for a host that is not
    /// of the cluster.
    fn find(&self, host: &str, port: Option<u16>) -> Option<Place>;
}

/// Where a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// An address, or another name.
    pub(super) host: String,
    /// The port that answers for the one that was asked for.
    pub(super) port: Option<u16>,
    /// Whether the host was written as an address: no other word looks like it.
    pub(super) literal: bool,
}

/// Rewrites the values of variables.
pub(super) fn variables(env: &mut [(String, String)], book: &dyn Book) {
    let mut ports: Vec<(String, String)> = Vec::new();
    for (name, value) in env.iter_mut() {
        let rewritten = text(value, may_be_host(name), book);
        if let Some(rewritten) = rewritten {
            if let Some(prefix) = host_prefix(name) {
                ports.push((format!("{prefix}PORT"), value.clone()));
            }
            *value = rewritten;
        }
    }
    // `DB_PORT` beside `DB_HOST`, where that Service's port had to move.
    for (name, host) in ports {
        let found = env.iter_mut().find(|(n, _)| *n == name);
        if let Some((_, value)) = found
            && let Ok(port) = value.parse()
            && let Some(real) = book.find(&host, Some(port)).and_then(|place| place.port)
        {
            *value = real.to_string();
        }
    }
}

/// Rewrites arguments; the program's own name is left alone.
pub(super) fn arguments(argv: &mut [String], book: &dyn Book) {
    for at in 1..argv.len() {
        let (before, rest) = argv.split_at_mut(at);
        let flag = before.last().is_some_and(|word| {
            word.strip_prefix('-')
                .is_some_and(|flag| flag == "h" || is_host_key(flag))
        });
        if let Some(rewritten) = text(&rest[0], flag, book) {
            rest[0] = rewritten;
        }
    }
}

/// The text with the hosts in it replaced; `None` where there are none. `whole` allows a text that
/// is nothing but a name.
fn text(value: &str, whole: bool, book: &dyn Book) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let (mut copied, mut at) = (0, 0);
    while let Some((start, end)) = next_word(value, at) {
        at = end;
        let word = &value[start..end];
        let (before, after) = (&value[..start], &value[end..]);
        let Some(place) = book.find(word.trim_end_matches('.'), None) else {
            continue;
        };
        let written = port_in(after);
        let stands_as_host = place.literal
            || (whole && before.is_empty() && after.is_empty())
            || in_url(before)
            || (written.is_some() && may_precede(before))
            || is_assigned(before);
        if !stands_as_host || is_user_info(after) {
            continue;
        }
        out.push_str(&value[copied..start]);
        out.push_str(&place.host);
        copied = end;
        let implied = || scheme(before).and_then(default_port);
        if let Some(asked) = written.or_else(implied)
            && let Some(real) = book
                .find(word.trim_end_matches('.'), Some(asked))
                .and_then(|place| place.port)
        {
            if let Some(port) = written {
                at = end + 1 + port_digits(after);
                copied = at;
                out.push_str(&format!(":{}", if real == port { port } else { real }));
            } else if real != asked {
                out.push_str(&format!(":{real}"));
            }
        }
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&value[copied..]);
    Some(out)
}

/// The next run of characters that host names are made of; `_` is none, but joins words that are
/// not names.
fn next_word(text: &str, from: usize) -> Option<(usize, usize)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let start = from + text[from..].find(is_part)?;
    let length = text[start..].find(|c| !is_part(c));
    Some((start, length.map_or(text.len(), |length| start + length)))
}

/// The port that follows a host.
fn port_in(after: &str) -> Option<u16> {
    let digits = port_digits(after);
    let rest = after.get(1 + digits..)?;
    let ends =
        !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    after[1..1 + digits].parse().ok().filter(|_| ends)
}

/// How many digits stand behind the colon.
fn port_digits(after: &str) -> usize {
    let digits = after.strip_prefix(':').unwrap_or_default();
    digits.bytes().take_while(u8::is_ascii_digit).count()
}

fn in_url(before: &str) -> bool {
    let user_info = before.ends_with('@') && (before.contains("://") || before.contains(':'));
    before.ends_with("://") || user_info || before.ends_with("@tcp(")
}

/// Whether what stands before this is a user or a password: the host comes behind an `@`.
fn is_user_info(after: &str) -> bool {
    let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | ',' | ';' | '"' | '\'');
    after
        .split(ends)
        .next()
        .is_some_and(|rest| rest.contains('@'))
}

/// Whether a host and port may begin behind this.
fn may_precede(before: &str) -> bool {
    before.chars().next_back().is_none_or(|c| {
        c.is_whitespace() || matches!(c, '/' | '@' | '(' | ',' | ';' | '=' | '"' | '\'' | '[')
    })
}

/// `host=` and the like, of connection strings and flags.
fn is_assigned(before: &str) -> bool {
    let Some(before) = before.strip_suffix('=') else {
        return false;
    };
    let key = before
        .rsplit(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .next();
    key.is_some_and(is_host_key)
}

fn is_host_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let last = key.rsplit(['-', '_', '.']).next().unwrap_or_default();
    [
        "host", "hostname", "server", "addr", "address", "endpoint", "source", "url", "uri",
    ]
    .iter()
    .any(|known| last == *known || last.ends_with("host"))
}

/// Variables whose whole value may be a host: all but those that say they hold something else.
fn may_be_host(variable: &str) -> bool {
    const OTHER: [&str; 14] = [
        "NAME",
        "USER",
        "USERNAME",
        "PASSWORD",
        "PASS",
        "DATABASE",
        "DB",
        "SCHEMA",
        "TOPIC",
        "ID",
        "SERVICE",
        "REVISION",
        "CONFIGURATION",
        "HOSTNAME",
    ];
    let last = variable.rsplit('_').next().unwrap_or_default();
    let is_own = matches!(
        variable,
        "HOSTNAME" | "K_SERVICE" | "K_REVISION" | "K_CONFIGURATION"
    );
    let holds_other = last != "HOSTNAME" && OTHER.contains(&last.to_ascii_uppercase().as_str());
    !is_own && !holds_other
}

/// `DB_` of `DB_HOST`.
fn host_prefix(variable: &str) -> Option<&str> {
    ["HOSTNAME", "HOST", "SERVER", "ADDRESS", "ADDR"]
        .iter()
        .find_map(|suffix| variable.strip_suffix(suffix))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('_'))
}

/// The scheme of the URL that a host stands in.
fn scheme(before: &str) -> Option<&str> {
    let (head, _) = before.rsplit_once("://")?;
    head.rsplit(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')))
        .next()
}

fn default_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        "mysql" | "mariadb" => 3306,
        "postgres" | "postgresql" => 5432,
        "redis" => 6379,
        "mongodb" => 27_017,
        "amqp" => 5672,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    struct Fixed;

    impl Book for Fixed {
        fn find(&self, host: &str, port: Option<u16>) -> Option<Place> {
            let place = |host: &str, literal| {
                Some(Place {
                    host: host.into(),
                    port: port.map(|p| if p == 80 { 20_080 } else { p }),
                    literal,
                })
            };
            match host {
                "api3-service" | "api3-service.ns" | "api3-service.ns.svc.cluster.local" => {
                    place("127.1.1.3", false)
                }
                "cloudsql" => place("127.1.1.9", false),
                "10.96.1.3" => place("127.1.1.3", true),
                "out" => Some(Place {
                    host: "example.com".into(),
                    port,
                    literal: false,
                }),
                _ => None,
            }
        }
    }

    #[rstest]
    #[case("DB_HOST", "cloudsql", "127.1.1.9")]
    #[case("DB_NAME", "cloudsql", "cloudsql")]
    #[case("K_SERVICE", "api3-service", "api3-service")]
    #[case("API", "api3-service.ns.svc.cluster.local.", "127.1.1.3")]
    #[case("API", "http://api3-service:8080/x?y=1", "http://127.1.1.3:8080/x?y=1")]
    #[case("API", "http://api3-service/x", "http://127.1.1.3:20080/x")]
    #[case("API", "http://api3-service:80", "http://127.1.1.3:20080")]
    #[case("API", "https://api3-service.ns", "https://127.1.1.3")]
    #[case("API", "http://api3-service2/x", "http://api3-service2/x")]
    #[case("API", "http://my-api3-service/x", "http://my-api3-service/x")]
    #[case("ADDR", "cloudsql:3306", "127.1.1.9:3306")]
    #[case("ADDR", "cloudsql:x", "cloudsql:x")]
    #[case("LIST", "cloudsql:1,api3-service:2", "127.1.1.9:1,127.1.1.3:2")]
    #[case(
        "DSN",
        "u:cloudsql@tcp(cloudsql:3306)/cloudsql",
        "u:cloudsql@tcp(127.1.1.9:3306)/cloudsql"
    )]
    #[case(
        "DSN",
        "mysql://cloudsql:p@cloudsql/cloudsql",
        "mysql://cloudsql:p@127.1.1.9/cloudsql"
    )]
    #[case(
        "DSN",
        "jdbc:mysql://cloudsql:3306/db",
        "jdbc:mysql://127.1.1.9:3306/db"
    )]
    #[case(
        "DSN",
        "host=cloudsql user=cloudsql dbname=cloudsql",
        "host=127.1.1.9 user=cloudsql dbname=cloudsql"
    )]
    #[case(
        "DSN",
        "Server=cloudsql;Database=cloudsql",
        "Server=127.1.1.9;Database=cloudsql"
    )]
    #[case(
        "DSN",
        "mysql://cloudsql:80@cloudsql:80/x",
        "mysql://cloudsql:80@127.1.1.9:20080/x"
    )]
    #[case("TEXT", "ask cloudsql for it", "ask cloudsql for it")]
    #[case("TEXT", "10.96.1.3", "127.1.1.3")]
    #[case("X_PORT", "tcp://10.96.1.3:80", "tcp://127.1.1.3:20080")]
    #[case("TEXT", "110.96.1.30", "110.96.1.30")]
    #[case("URL", "http://out:81/", "http://example.com:81/")]
    #[case("EMPTY", "", "")]
    #[case("UTF", "ñ://cloudsql:1é", "ñ://127.1.1.9:1é")]
    fn values(#[case] name: &str, #[case] value: &str, #[case] expected: &str) {
        let mut env = [(name.to_owned(), value.to_owned())];
        variables(&mut env, &Fixed);
        assert_eq!(env[0].1, expected);
    }

    #[test]
    fn a_port_beside_its_host_moves_along() {
        let pairs = [
            ("DB_PORT", "80"),
            ("DB_HOST", "cloudsql"),
            ("PORT", "80"),
            ("X_HOST", "x"),
            ("X_PORT", "80"),
        ];
        let mut env = pairs.map(|(n, v)| (n.to_owned(), v.to_owned()));
        variables(&mut env, &Fixed);
        let values: Vec<&str> = env.iter().map(|(_, v)| v.as_str()).collect();
        assert_eq!(values, ["20080", "127.1.1.9", "80", "x", "80"]);
    }

    #[rstest]
    #[case(&["cloudsql", "cloudsql"], &["cloudsql", "cloudsql"])]
    #[case(&["mysql", "-h", "cloudsql", "cloudsql"], &["mysql", "-h", "127.1.1.9", "cloudsql"])]
    #[case(&["app", "--db-host=cloudsql", "--name=cloudsql"], &["app", "--db-host=127.1.1.9", "--name=cloudsql"])]
    #[case(&["app", "--host", "cloudsql"], &["app", "--host", "127.1.1.9"])]
    #[case(&["sh", "-c", "curl http://api3-service:8080"], &["sh", "-c", "curl http://127.1.1.3:8080"])]
    fn command_lines(#[case] argv: &[&str], #[case] expected: &[&str]) {
        let mut argv: Vec<String> = argv.iter().map(|w| (*w).to_owned()).collect();
        arguments(&mut argv, &Fixed);
        assert_eq!(argv, expected);
    }
}
