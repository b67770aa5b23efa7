//! The environment of a service, read once: everything that is wrong with it
//! is reported together, and no secret is ever shown.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

/// What a service is called and listens on unless the environment says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// `API_NAME`: what stamps the rows.
    pub api_name: &'static str,
    /// `PORT`.
    pub port: u16,
    /// What every answer says in `X-Service-Version`: which build it came from.
    pub version: &'static str,
}

/// A service's configuration, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the rows go.
    pub database: Database,
    /// TCP port to listen on, all addresses.
    pub port: u16,
    /// The service's version, for `X-Service-Version`.
    pub version: &'static str,
    /// What stamps the rows; at most 32 characters (`records.api`).
    pub api_name: String,
    /// Which browsers' pages may call.
    pub cors: CorsOrigin,
    /// Filter for the log, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
}

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct Database {
    /// `DB_HOST`, default `cloudsql`: the name inside the cluster on every target.
    pub host: String,
    /// `DB_PORT`, default 3306.
    pub port: u16,
    /// `DB_USER`, required.
    pub user: String,
    /// `DB_PASSWORD`, required (may be empty).
    pub password: Secret,
    /// `DB_NAME`, default `telemetry`.
    pub name: String,
    /// `DB_POOL_MAX`, default 10: connections are opened when needed, never more.
    pub pool_max: u32,
    /// `DB_ACQUIRE_TIMEOUT_MS`, default 2000: how long a request waits for a
    /// connection before it is answered 503.
    pub acquire_timeout: Duration,
}

/// A value that must not reach a log: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// `CORS_ORIGIN`: `*`, or origins separated by commas; not set: no page of
/// another origin may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigin {
    /// Only pages of the same origin.
    None,
    /// Any page. Sound here because no answer depends on cookies.
    Any,
    /// Exactly these origins, as browsers send them.
    List(Vec<String>),
}

/// Everything that is wrong with the environment.
#[derive(Debug, thiserror::Error)]
#[error("the environment can't be used:{}", problems.iter().map(|p| format!("\n  {p}")).collect::<String>())]
pub struct ConfigError {
    /// One sentence for each variable: what it is, what was expected.
    pub problems: Vec<String>,
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn from_env(defaults: Defaults) -> Result<Self, ConfigError> {
        Self::parse(defaults, |name| std::env::var_os(name))
    }

    /// Reads variables through `lookup`.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn parse(
        defaults: Defaults,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut env = Reader {
            lookup,
            problems: Vec::new(),
        };
        let config = Self {
            database: Database {
                host: env.text("DB_HOST").unwrap_or_else(|| "cloudsql".into()),
                port: env.number("DB_PORT", 3306, 1, u16::MAX),
                user: env.required("DB_USER"),
                password: Secret(env.secret("DB_PASSWORD")),
                name: env.text("DB_NAME").unwrap_or_else(|| "telemetry".into()),
                pool_max: env.number("DB_POOL_MAX", 10, 1, 1000),
                acquire_timeout: Duration::from_millis(env.number(
                    "DB_ACQUIRE_TIMEOUT_MS",
                    2000,
                    10,
                    60_000,
                )),
            },
            port: env.number("PORT", defaults.port, 1, u16::MAX),
            version: defaults.version,
            api_name: env.api_name(defaults.api_name),
            cors: env.cors(),
            log: env.log(),
        };
        if env.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError {
                problems: env.problems,
            })
        }
    }
}

struct Reader<F> {
    lookup: F,
    problems: Vec<String>,
}

impl<F: Fn(&str) -> Option<OsString>> Reader<F> {
    /// A variable's text; set but empty counts as not set, as in Compose files
    /// and ConfigMaps an empty value is how one says "nothing".
    fn text(&mut self, name: &str) -> Option<String> {
        match (self.lookup)(name)?.into_string() {
            Ok(text) if text.trim().is_empty() => None,
            Ok(text) => Some(text.trim().to_owned()),
            Err(_) => {
                self.problems.push(format!("{name} is not valid UTF-8"));
                None
            }
        }
    }

    fn required(&mut self, name: &str) -> String {
        let before = self.problems.len();
        let value = self.text(name);
        if value.is_none() && self.problems.len() == before {
            self.problems.push(format!(
                "{name} is not set; it comes from the Secret cloudsql-credentials"
            ));
        }
        value.unwrap_or_default()
    }

    /// Like [`Self::required`], but an empty value is a value and blanks count.
    fn secret(&mut self, name: &str) -> String {
        match (self.lookup)(name).map(OsString::into_string) {
            Some(Ok(text)) => text,
            Some(Err(_)) => {
                self.problems.push(format!("{name} is not valid UTF-8"));
                String::new()
            }
            None => self.required(name),
        }
    }

    fn number<T>(&mut self, name: &str, default: T, min: T, max: T) -> T
    where
        T: std::str::FromStr + PartialOrd + fmt::Display + Copy,
    {
        let Some(text) = self.text(name) else {
            return default;
        };
        match text.parse::<T>() {
            Ok(n) if n >= min && n <= max => n,
            _ => {
                self.problems.push(format!(
                    "{name} is `{text}`; expected a whole number from {min} to {max} (default {default})"
                ));
                default
            }
        }
    }

    fn api_name(&mut self, default: &str) -> String {
        let name = self.text("API_NAME").unwrap_or_else(|| default.to_owned());
        if name.chars().count() > 32 || name.chars().any(char::is_control) {
            self.problems.push(format!(
                "API_NAME is `{}`; expected at most 32 printable characters",
                name.escape_default()
            ));
        }
        name
    }

    fn cors(&mut self) -> CorsOrigin {
        let Some(text) = self.text("CORS_ORIGIN") else {
            return CorsOrigin::None;
        };
        let mut origins = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            if part == "*" {
                return CorsOrigin::Any;
            }
            // Browsers send scheme, host and port only, without a slash.
            let part = part.strip_suffix('/').unwrap_or(part);
            let host = part.split_once("://").map(|(_, host)| host);
            if host.is_none_or(|h| h.is_empty() || h.contains(['/', ' ', '?', '#'])) {
                self.problems.push(format!(
                    "CORS_ORIGIN has `{part}`; expected `*` or origins such as https://example.com, separated by commas"
                ));
            }
            origins.push(part.to_ascii_lowercase());
        }
        CorsOrigin::List(origins)
    }

    fn log(&mut self) -> String {
        let text = self.text("LOG_LEVEL").unwrap_or_else(|| "info".into());
        // The names that Python and Node.js use for the same levels are
        // understood, because all services share one ConfigMap.
        let level = match text.to_ascii_lowercase().as_str() {
            "off" | "silent" => "off",
            "error" | "critical" | "fatal" => "error",
            "warn" | "warning" => "warn",
            "info" | "notice" => "info",
            "debug" | "verbose" => "debug",
            "trace" | "silly" => "trace",
            _ => {
                if tracing_subscriber::EnvFilter::try_new(&text).is_err()
                    || !text.contains(['=', ','])
                {
                    self.problems.push(format!(
                        "LOG_LEVEL is `{text}`; expected off, error, warn, info, debug, trace, or a filter such as `info,telemetry=debug`"
                    ));
                }
                return text;
            }
        };
        // The pool logs each connection that an outage broke; one line of ours
        // says the same once.
        format!("{level},sqlx=off,sqlx_core=off,sqlx_mysql=off")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const DEFAULTS: Defaults = Defaults {
        api_name: "api1",
        port: 5000,
        version: "1.0.0",
    };

    fn parse(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let map: HashMap<_, _> = vars.iter().copied().collect();
        Config::parse(DEFAULTS, |name| map.get(name).map(OsString::from))
    }

    #[test]
    fn defaults_need_only_the_credentials() {
        let c = parse(&[("DB_USER", "app"), ("DB_PASSWORD", "")]).unwrap();
        assert_eq!((c.port, c.api_name.as_str()), (5000, "api1"));
        assert_eq!(c.database.host, "cloudsql");
        assert_eq!(c.database.port, 3306);
        assert_eq!(c.database.name, "telemetry");
        assert_eq!(c.database.pool_max, 10);
        assert_eq!(c.database.acquire_timeout, Duration::from_secs(2));
        assert_eq!(c.cors, CorsOrigin::None);
        assert!(c.log.starts_with("info,"));
    }

    #[test]
    fn every_problem_is_told_at_once_and_no_secret() {
        let error = parse(&[
            ("DB_PASSWORD", "hunter2"),
            ("DB_PORT", "0"),
            ("PORT", "http"),
            ("API_NAME", &"x".repeat(33)),
            ("CORS_ORIGIN", "example.com"),
            ("LOG_LEVEL", "loud"),
            ("DB_POOL_MAX", "-1"),
        ])
        .unwrap_err();
        let text = error.to_string();
        for name in [
            "DB_USER",
            "DB_PORT",
            "PORT",
            "API_NAME",
            "CORS_ORIGIN",
            "LOG_LEVEL",
            "DB_POOL_MAX",
        ] {
            assert!(
                error.problems.iter().any(|p| p.starts_with(name)),
                "{name} in {text}"
            );
        }
        assert_eq!(error.problems.len(), 7, "{text}");
        assert!(!text.contains("hunter2"));
    }

    #[test]
    fn a_secret_stays_hidden_in_debug_output() {
        let c = parse(&[("DB_USER", "app"), ("DB_PASSWORD", " s3cret ")]).unwrap();
        assert_eq!(c.database.password.reveal(), " s3cret ");
        assert!(!format!("{c:?}").contains("s3cret"));
    }

    #[test]
    fn a_missing_password_is_a_problem_an_empty_one_is_not() {
        let error = parse(&[("DB_USER", "app")]).unwrap_err();
        assert!(error.problems[0].starts_with("DB_PASSWORD is not set"));
    }

    #[test]
    fn cors_takes_a_star_or_a_list() {
        let base = [("DB_USER", "a"), ("DB_PASSWORD", "b")];
        let cors = |value| {
            let mut vars = base.to_vec();
            vars.push(("CORS_ORIGIN", value));
            parse(&vars).unwrap().cors
        };
        assert_eq!(cors("*"), CorsOrigin::Any);
        assert_eq!(
            cors("http://A.example:8080/, https://b.example"),
            CorsOrigin::List(vec![
                "http://a.example:8080".into(),
                "https://b.example".into()
            ])
        );
        assert_eq!(cors(" "), CorsOrigin::None);
    }

    #[test]
    fn levels_of_other_languages_are_understood() {
        for (given, want) in [
            ("WARNING", "warn,"),
            ("critical", "error,"),
            ("silly", "trace,"),
        ] {
            let c = parse(&[("DB_USER", "a"), ("DB_PASSWORD", "b"), ("LOG_LEVEL", given)]).unwrap();
            assert!(c.log.starts_with(want), "{given}: {}", c.log);
        }
        let c = parse(&[
            ("DB_USER", "a"),
            ("DB_PASSWORD", "b"),
            ("LOG_LEVEL", "info,telemetry=debug"),
        ]);
        assert_eq!(c.unwrap().log, "info,telemetry=debug");
    }
}
