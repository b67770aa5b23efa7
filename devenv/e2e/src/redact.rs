//! Takes secrets out of what is shown.

use percent_encoding::percent_decode_str;

/// Knows the secrets of an environment.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that one within another leaves nothing behind.
    secrets: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

impl Redactor {
    /// One that knows the password of a database's address, as written there and decoded.
    pub fn of_database(url: Option<&str>) -> Self {
        let Some(url) = url else {
            return Self::default();
        };
        let written = url
            .parse::<reqwest::Url>()
            .ok()
            .and_then(|url| url.password().map(str::to_owned));
        let mut secrets = Vec::new();
        if let Some(written) = written.filter(|written| !written.is_empty()) {
            secrets.push(
                percent_decode_str(&written)
                    .decode_utf8_lossy()
                    .into_owned(),
            );
            secrets.push(written);
        }
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    /// `text` without secrets.
    pub fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for secret in &self.secrets {
            if out.contains(secret.as_str()) {
                out = out.replace(secret.as_str(), "***");
            }
        }
        out
    }

    /// Takes them out in place.
    pub fn apply(&self, text: &mut String) {
        if self
            .secrets
            .iter()
            .any(|secret| text.contains(secret.as_str()))
        {
            *text = self.text(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Some("mysql://u:p%40ss@h:1/d"), "p@ss and p%40ss", "*** and ***")]
    #[case(Some("mysql://u@h:1/d"), "u@h", "u@h")]
    #[case(Some("mysql://u:@h:1/d"), "u:@h", "u:@h")]
    #[case(Some("no address"), "x", "x")]
    #[case(None, "x", "x")]
    fn takes_passwords_out(#[case] url: Option<&str>, #[case] text: &str, #[case] want: &str) {
        assert_eq!(Redactor::of_database(url).text(text), want);
    }
}
