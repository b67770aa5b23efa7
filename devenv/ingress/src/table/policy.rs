//! Whether one request goes to the canary: header, then cookie, then weight.

use std::borrow::Cow;

use fancy_regex::Regex;
use http::HeaderMap;
use http::header::{COOKIE, HeaderName};

/// The part of requests that the weight gives to the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// Weight ≤ 0.
    #[default]
    Never,
    /// Weight ≥ total.
    Always,
    /// `canary` of `total` requests, `0 < canary < total`.
    Of {
        /// Requests for the canary out of `total`.
        canary: u32,
        /// The whole.
        total: u32,
    },
}

impl Share {
    /// From `canary-weight` and `canary-weight-total`: a total counts only
    /// above 100, otherwise it is 100 (balancer.lua).
    pub fn new(weight: i64, total: i64) -> Self {
        let total = total.max(100);
        if weight <= 0 {
            return Self::Never;
        }
        if weight >= total {
            return Self::Always;
        }
        // Totals beyond 32 bits lose low bits of both numbers alike.
        let shift = (64 - total.leading_zeros()).saturating_sub(32);
        Self::Of {
            canary: u32::try_from(weight >> shift).unwrap_or(u32::MAX).max(1),
            total: u32::try_from(total >> shift).unwrap_or(u32::MAX).max(2),
        }
    }
}

/// What `canary-by-header` compares the header's value with.
#[derive(Debug, Clone)]
pub enum HeaderMatch {
    /// `always` → canary, `never` → main, anything else decides nothing.
    Words,
    /// `canary-by-header-value`: equal → canary; no other word is special.
    Value(String),
    /// `canary-by-header-pattern`: found anywhere → canary. `None` is a
    /// pattern that does not compile, which means main (balancer.lua).
    Pattern(Option<Box<Regex>>),
}

/// The traffic policy of a canary upstream.
#[derive(Debug, Clone, Default)]
pub struct CanaryPolicy {
    /// Header that decides, and how; absent when no valid name is given.
    pub header: Option<(HeaderName, HeaderMatch)>,
    /// Cookie that decides by `always` and `never`.
    pub cookie: Option<String>,
    /// What is left to chance.
    pub share: Share,
}

/// Outcome of [`CanaryPolicy::decide`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The canary takes it.
    Canary,
    /// The main service takes it.
    Main,
    /// Neither header nor cookie says: the weight decides.
    Weight,
}

impl CanaryPolicy {
    /// Header before cookie before weight, as balancer.lua orders them.
    pub fn decide(&self, headers: &HeaderMap) -> Decision {
        if let Some((name, matching)) = &self.header
            && let Some(value) = joined(headers, name)
            && let Some(decision) = by_header(&value, matching)
        {
            return decision;
        }
        if let Some(name) = &self.cookie {
            match cookie(headers, name) {
                Some(b"always") => return Decision::Canary,
                Some(b"never") => return Decision::Main,
                _ => {}
            }
        }
        match self.share {
            Share::Never => Decision::Main,
            Share::Always => Decision::Canary,
            Share::Of { .. } => Decision::Weight,
        }
    }
}

fn by_header(value: &[u8], matching: &HeaderMatch) -> Option<Decision> {
    match matching {
        HeaderMatch::Words => match value {
            b"always" => Some(Decision::Canary),
            b"never" => Some(Decision::Main),
            _ => None,
        },
        HeaderMatch::Value(wanted) => (value == wanted.as_bytes()).then_some(Decision::Canary),
        HeaderMatch::Pattern(None) => Some(Decision::Main),
        HeaderMatch::Pattern(Some(regex)) => {
            match regex.is_match(&*String::from_utf8_lossy(value)) {
                Ok(true) => Some(Decision::Canary),
                Ok(false) => None,
                // Out of backtracking steps: a regex error, hence main.
                Err(_) => Some(Decision::Main),
            }
        }
    }
}

/// A header's value; repeated lines joined with ", " as nginx ≥ 1.23 does.
fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    let Some(second) = lines.next() else {
        return Some(Cow::Borrowed(first.as_bytes()));
    };
    let mut all = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        all.extend_from_slice(b", ");
        all.extend_from_slice(line.as_bytes());
    }
    Some(Cow::Owned(all))
}

/// The first cookie of that name; names compare without case (nginx's
/// `$cookie_` variables).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b';'))
        .find_map(|pair| {
            let pair = pair.trim_ascii();
            let equals = pair.iter().position(|b| *b == b'=')?;
            pair[..equals]
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| &pair[equals + 1..])
        })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        map
    }

    fn policy(matching: HeaderMatch) -> CanaryPolicy {
        CanaryPolicy {
            header: Some((HeaderName::from_static("x-canary"), matching)),
            cookie: Some("User".into()),
            share: Share::new(50, 100),
        }
    }

    fn pattern(text: &str) -> HeaderMatch {
        HeaderMatch::Pattern(Regex::new(text).ok().map(Box::new))
    }

    #[rstest]
    #[case::always(HeaderMatch::Words, &[("x-canary", "always")], Decision::Canary)]
    #[case::never(HeaderMatch::Words, &[("x-canary", "never")], Decision::Main)]
    #[case::word_case(HeaderMatch::Words, &[("x-canary", "Always")], Decision::Weight)]
    #[case::other_word(HeaderMatch::Words, &[("x-canary", "yes")], Decision::Weight)]
    #[case::empty(HeaderMatch::Words, &[("x-canary", "")], Decision::Weight)]
    #[case::repeated(HeaderMatch::Words, &[("x-canary", "always"), ("x-canary", "always")], Decision::Weight)]
    #[case::header_before_cookie(HeaderMatch::Words, &[("x-canary", "never"), ("cookie", "user=always")], Decision::Main)]
    #[case::cookie_next(HeaderMatch::Words, &[("x-canary", "maybe"), ("cookie", "user=always")], Decision::Canary)]
    #[case::value(HeaderMatch::Value("DoCanary".into()), &[("x-canary", "DoCanary")], Decision::Canary)]
    #[case::value_case(HeaderMatch::Value("DoCanary".into()), &[("x-canary", "docanary")], Decision::Weight)]
    #[case::value_disables_words(HeaderMatch::Value("v".into()), &[("x-canary", "always")], Decision::Weight)]
    #[case::value_disables_never(HeaderMatch::Value("v".into()), &[("x-canary", "never"), ("cookie", "user=always")], Decision::Canary)]
    #[case::pattern_searches(pattern("[0-9]+"), &[("x-canary", "ab12cd")], Decision::Canary)]
    #[case::pattern_case(pattern("abc"), &[("x-canary", "ABC")], Decision::Weight)]
    #[case::pattern_misses(pattern("^x$"), &[("x-canary", "always")], Decision::Weight)]
    #[case::pattern_broken(pattern("("), &[("x-canary", "q"), ("cookie", "user=always")], Decision::Main)]
    #[case::pattern_without_header(pattern("("), &[("cookie", "user=always")], Decision::Canary)]
    #[case::cookie_name_case(HeaderMatch::Words, &[("cookie", "a=1; USER=never")], Decision::Main)]
    #[case::cookie_value_case(HeaderMatch::Words, &[("cookie", "user=ALWAYS")], Decision::Weight)]
    #[case::cookie_first(HeaderMatch::Words, &[("cookie", "user=never; user=always")], Decision::Main)]
    #[case::cookie_other_line(HeaderMatch::Words, &[("cookie", "b=2"), ("cookie", "user=always")], Decision::Canary)]
    #[case::nothing(HeaderMatch::Words, &[], Decision::Weight)]
    fn precedence(
        #[case] matching: HeaderMatch,
        #[case] lines: &[(&str, &str)],
        #[case] expected: Decision,
    ) {
        assert_eq!(policy(matching).decide(&headers(lines)), expected);
    }

    #[rstest]
    #[case(0, 100, Share::Never)]
    #[case(-10, 100, Share::Never)]
    #[case(100, 100, Share::Always)]
    #[case(150, 100, Share::Always)]
    #[case(50, 100, Share::Of { canary: 50, total: 100 })]
    // A total of 100 or less is ignored.
    #[case(50, 50, Share::Of { canary: 50, total: 100 })]
    #[case(10, 10, Share::Of { canary: 10, total: 100 })]
    #[case(50, 200, Share::Of { canary: 50, total: 200 })]
    #[case(150, 200, Share::Of { canary: 150, total: 200 })]
    #[case(1, i64::MAX, Share::Of { canary: 1, total: u32::MAX })]
    fn weight_and_total(#[case] weight: i64, #[case] total: i64, #[case] expected: Share) {
        assert_eq!(Share::new(weight, total), expected);
    }
}
