//! What the environment says. Everything is read before anything fails.

use std::path::PathBuf;

use axum::http::Uri;

/// Where the page's build lies when nothing else is said: beside the crate that this was built from.
const BUILT_BESIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/web/dist");

/// The configuration of the server and, as `/config.json`, of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `PORT`, default 8080 (Cloud Run's container contract).
    pub port: u16,
    /// `STATIC_DIR`: the folder of the built page.
    pub static_dir: PathBuf,
    /// `API3_URL`: base URL of api3 as a browser reaches it; empty: the page's own origin.
    pub api3_url: String,
    /// `INGRESS_URL`: base URL of the Ingress as a browser reaches it; empty if unknown.
    pub ingress_url: String,
    /// `K_SERVICE`: Cloud Run's name of this service; empty elsewhere.
    pub k_service: String,
    /// `K_REVISION`: Cloud Run's name of this revision; empty elsewhere.
    pub k_revision: String,
    /// What is odd but can be lived with.
    pub warnings: Vec<String>,
}

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is `{value}`; expected {expected}")]
pub struct ConfigError {
    name: &'static str,
    value: String,
    expected: &'static str,
}

impl Config {
    /// Reads variables through `variable`; an empty one is as good as none.
    ///
    /// # Errors
    /// Every variable that cannot be used.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Config, Vec<ConfigError>> {
        let get = |name: &str| {
            variable(name)
                .map(|v| v.trim().to_owned())
                .filter(|v| !v.is_empty())
        };
        let mut errors = Vec::new();
        let mut warnings = Vec::new();
        let mut url = |name: &'static str| {
            let Some(value) = get(name) else {
                return String::new();
            };
            // Kubernetes leaves a reference to a variable that does not exist as it stands.
            if value.starts_with("$(") {
                warnings.push(format!(
                    "{name} is `{value}`: that variable does not exist here, so it counts as unset"
                ));
                return String::new();
            }
            if !is_base_url(&value) {
                errors.push(ConfigError {
                    name,
                    value,
                    expected: "a base URL such as http://127.0.0.1:8080, or nothing",
                });
                return String::new();
            }
            value.trim_end_matches('/').to_owned()
        };
        let api3_url = url("API3_URL");
        let ingress_url = url("INGRESS_URL");
        let port = match get("PORT").map(|text| (text.parse::<u16>(), text)) {
            None => 8080,
            Some((Ok(port), _)) if port != 0 => port,
            Some((_, value)) => {
                errors.push(ConfigError {
                    name: "PORT",
                    value,
                    expected: "a number from 1 to 65535",
                });
                0
            }
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Config {
            port,
            static_dir: get("STATIC_DIR")
                .map_or_else(|| PathBuf::from(BUILT_BESIDE), PathBuf::from),
            api3_url,
            ingress_url,
            k_service: get("K_SERVICE").unwrap_or_default(),
            k_revision: get("K_REVISION").unwrap_or_default(),
            warnings,
        })
    }
}

fn is_base_url(text: &str) -> bool {
    // It ends up in a Content-Security-Policy, where these would end the directive.
    if text.contains([';', ',', '\'', '"']) {
        return false;
    }
    text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(all: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
        Config::from_env(|name| {
            all.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn nothing_set_means_cloud_runs_port_and_the_same_origin() {
        let config = read(&[]).unwrap();
        assert_eq!((config.port, config.api3_url.as_str()), (8080, ""));
        assert!(config.static_dir.ends_with("services/frontend/web/dist"));
    }

    #[test]
    fn everything_set_is_taken() {
        let config = read(&[
            ("PORT", "3210"),
            ("STATIC_DIR", "/srv/page"),
            ("API3_URL", "http://127.1.2.3/"),
            ("INGRESS_URL", "https://example.test"),
            ("K_SERVICE", "frontend"),
            ("K_REVISION", "frontend-00001"),
        ])
        .unwrap();
        assert_eq!(config.port, 3210);
        assert_eq!(config.static_dir, PathBuf::from("/srv/page"));
        assert_eq!(
            (config.api3_url.as_str(), config.ingress_url.as_str()),
            ("http://127.1.2.3", "https://example.test")
        );
        assert_eq!(
            (config.k_service.as_str(), config.k_revision.as_str()),
            ("frontend", "frontend-00001")
        );
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn a_reference_to_nothing_is_no_url() {
        let config = read(&[("API3_URL", "$(INGRESS_URL)")]).unwrap();
        assert_eq!(config.api3_url, "");
        assert!(
            config.warnings[0].contains("$(INGRESS_URL)"),
            "{:?}",
            config.warnings
        );
    }

    #[rstest]
    #[case("PORT", "0")]
    #[case("PORT", "http")]
    #[case("PORT", "70000")]
    #[case("API3_URL", "127.0.0.1:8080")]
    #[case("API3_URL", "ws://a")]
    #[case("API3_URL", "http://a; script-src *")]
    #[case("INGRESS_URL", "http://")]
    fn a_bad_value_is_named(#[case] name: &str, #[case] value: &str) {
        let errors = read(&[(name, value)]).unwrap_err();
        let text = errors[0].to_string();
        assert!(
            errors.len() == 1 && text.contains(name) && text.contains(value),
            "{errors:?}"
        );
    }

    #[test]
    fn all_bad_values_are_named_at_once() {
        assert_eq!(
            read(&[("PORT", "x"), ("API3_URL", "y"), ("INGRESS_URL", "z")])
                .unwrap_err()
                .len(),
            3
        );
    }
}
