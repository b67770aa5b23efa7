//! The names that Kubernetes accepts, and what a person may have meant.

/// RFC 1123 label: what a Namespace and most short names must be.
pub(crate) const LABEL_RULE: &str = "an RFC 1123 label: at most 63 of the characters a-z, 0-9 and \"-\", with a letter or digit at both ends";
/// RFC 1035 label: what a Service must be.
pub(crate) const LABEL_1035_RULE: &str = "an RFC 1035 label: at most 63 of the characters a-z, 0-9 and \"-\", beginning with a letter and ending with a letter or digit";
/// RFC 1123 subdomain: what most other objects must be.
pub(crate) const SUBDOMAIN_RULE: &str = "an RFC 1123 subdomain: at most 253 of the characters a-z, 0-9, \"-\" and \".\", with a letter or digit at both ends of each part";

/// Which rule a kind's names follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    Label,
    Label1035,
    Subdomain,
}

impl NameRule {
    pub(crate) fn accepts(self, name: &str) -> bool {
        match self {
            NameRule::Label => is_label(name),
            NameRule::Label1035 => {
                is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase())
            }
            NameRule::Subdomain => name.len() <= 253 && name.split('.').all(is_subdomain_part),
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            NameRule::Label => LABEL_RULE,
            NameRule::Label1035 => LABEL_1035_RULE,
            NameRule::Subdomain => SUBDOMAIN_RULE,
        }
    }

    /// The nearest legal name, if one can be made of what was written.
    pub(crate) fn nearest(self, name: &str) -> Option<String> {
        let dots = self == NameRule::Subdomain;
        let mut out = String::new();
        for c in name.trim().chars().flat_map(char::to_lowercase) {
            match unaccented(c) {
                c if c.is_ascii_lowercase() || c.is_ascii_digit() => out.push(c),
                '.' if dots => {
                    trim_end(&mut out);
                    if !out.is_empty() && !out.ends_with('.') {
                        out.push('.');
                    }
                }
                // Runs of anything else become one dash; none at the start of a part.
                _ if !out.is_empty() && !out.ends_with(['-', '.']) => out.push('-'),
                _ => {}
            }
        }
        if self == NameRule::Label1035 {
            let letter = out.find(|c: char| c.is_ascii_lowercase())?;
            out.drain(..letter);
        }
        out.truncate(if dots { 253 } else { 63 });
        trim_end(&mut out);
        (!out.is_empty() && self.accepts(&out)).then_some(out)
    }
}

fn trim_end(out: &mut String) {
    while out.ends_with(['-', '.']) {
        out.pop();
    }
}

/// The letters that Spanish (and its neighbours) put into project names.
fn unaccented(c: char) -> char {
    match c {
        'á' | 'à' | 'â' | 'ä' | 'ã' => 'a',
        'é' | 'è' | 'ê' | 'ë' => 'e',
        'í' | 'ì' | 'î' | 'ï' => 'i',
        'ó' | 'ò' | 'ô' | 'ö' | 'õ' => 'o',
        'ú' | 'ù' | 'û' | 'ü' => 'u',
        'ñ' => 'n',
        'ç' => 'c',
        other => other,
    }
}

/// Whether Kubernetes accepts this as the name of a Namespace and of whatever else must be a
/// label of DNS (RFC 1123).
pub fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_subdomain_part(name)
}

fn is_subdomain_part(part: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(alnum) && part.ends_with(alnum) && part.chars().all(|c| alnum(c) || c == '-')
}

/// What a label's value must be.
pub(crate) const LABEL_VALUE_RULE: &str = "at most 63 letters, digits, \"-\", \"_\" and \".\", with a letter or digit at both ends (or nothing)";
/// What a label's or annotation's key must be.
pub(crate) const LABEL_KEY_RULE: &str = "an optional DNS prefix and \"/\", then at most 63 letters, digits, \"-\", \"_\" and \".\", with a letter or digit at both ends";

/// Whether Kubernetes accepts this as a label's value.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified_part(value)
}

/// Whether Kubernetes accepts this as the key of a label or annotation.
pub(crate) fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_qualified_part(key),
        Some((prefix, name)) => {
            NameRule::Subdomain.accepts(&prefix.to_ascii_lowercase()) && is_qualified_part(name)
        }
    }
}

fn is_qualified_part(s: &str) -> bool {
    let alnum = |c: char| c.is_ascii_alphanumeric();
    s.len() <= 63
        && s.starts_with(alnum)
        && s.ends_with(alnum)
        && s.chars().all(|c| alnum(c) || matches!(c, '-' | '_' | '.'))
}

/// The candidate that `word` was most probably meant to be, if any is near enough.
pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // The distance is quadratic in length: nobody mistypes a word of this size.
    if word.len() > 128 {
        return None;
    }
    let plain = |s: &str| {
        s.chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .collect::<String>()
    };
    let wanted = plain(word);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate == word || candidate.len() > 128 {
            continue;
        }
        let other = plain(candidate);
        let distance = strsim::damerau_levenshtein(&wanted, &other);
        let allowed = match wanted.chars().count().max(other.chars().count()) {
            0..=2 => 0,
            3..=4 => 1,
            5..=8 => 2,
            _ => 3,
        };
        if distance <= allowed && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
        // A word cut short, or written in full where a short form is wanted.
        let shared = wanted.len().min(other.len());
        if shared >= 4 && (wanted.starts_with(&other) || other.starts_with(&wanted)) {
            let further = wanted.len().max(other.len());
            if best.is_none_or(|(d, _)| further < d) {
                best = Some((further, candidate));
            }
        }
    }
    best.map(|(_, c)| c)
}

/// `"a"`, or `one of "a" and "b"`.
pub(crate) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    let prefix = if words.len() > 1 { "one of " } else { "" };
    format!("{prefix}{}", listed(words))
}

/// `did you mean "x"?`, or nothing.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    closest(word, candidates).map(|c| format!("did you mean {c:?}?"))
}

/// `"a", "b" and "c"` for messages; a long list is cut.
pub(crate) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 16;
    let words: Vec<&str> = words.into_iter().collect();
    let quoted: Vec<String> = words.iter().take(SHOWN).map(|w| format!("{w:?}")).collect();
    match (words.len(), quoted.as_slice()) {
        (0, _) => "none".into(),
        (n, _) if n > SHOWN => format!("{} and {} more", quoted.join(", "), n - SHOWN),
        (_, [one]) => one.clone(),
        (_, [init @ .., last]) => format!("{} and {last}", init.join(", ")),
        (_, []) => "none".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(NameRule::Label, "so1_fase2", Some("so1-fase2"))]
    #[case(NameRule::Label, "Mi Proyecto Ñandú", Some("mi-proyecto-nandu"))]
    #[case(NameRule::Label, "--a__b--", Some("a-b"))]
    #[case(NameRule::Label, "___", None)]
    #[case(NameRule::Label1035, "1api", Some("api"))]
    #[case(NameRule::Label1035, "123", None)]
    #[case(NameRule::Subdomain, "A_.b._c", Some("a.b.c"))]
    fn offers_a_legal_name(#[case] rule: NameRule, #[case] name: &str, #[case] want: Option<&str>) {
        assert_eq!(rule.nearest(name).as_deref(), want);
        if let Some(w) = want {
            assert!(rule.accepts(w), "{w} must itself be legal");
        }
    }

    #[rstest]
    #[case(NameRule::Label, "so1-fase2", true)]
    #[case(NameRule::Label, "so1_fase2", false)]
    #[case(NameRule::Label, "a.b", false)]
    #[case(NameRule::Label, "", false)]
    #[case(NameRule::Label, "-a", false)]
    #[case(NameRule::Label1035, "1a", false)]
    #[case(NameRule::Label1035, "a1", true)]
    #[case(NameRule::Subdomain, "a.b-c.d", true)]
    #[case(NameRule::Subdomain, "a..b", false)]
    fn accepts(#[case] rule: NameRule, #[case] name: &str, #[case] want: bool) {
        assert_eq!(rule.accepts(name), want);
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(NameRule::Label.accepts(&"a".repeat(63)));
        assert!(!NameRule::Label.accepts(&"a".repeat(64)));
        assert_eq!(
            NameRule::Label.nearest(&"a".repeat(99)),
            Some("a".repeat(63))
        );
        assert!(is_label_value(&"A".repeat(63)) && !is_label_value(&"A".repeat(64)));
    }

    #[rstest]
    #[case("app", true)]
    #[case("app.kubernetes.io/name", true)]
    #[case("a/b/c", false)]
    #[case("/b", false)]
    #[case("_x", false)]
    fn label_keys(#[case] key: &str, #[case] want: bool) {
        assert_eq!(is_label_key(key), want);
    }

    #[rstest]
    #[case("replica", Some("replicas"))]
    #[case("contaners", Some("containers"))]
    #[case("http-port", Some("http_port"))]
    #[case("replicasMinimum", Some("replicas"))]
    #[case("xyz", None)]
    fn near_words(#[case] word: &str, #[case] want: Option<&str>) {
        assert_eq!(
            closest(word, ["replicas", "containers", "http_port", "ab"]),
            want
        );
    }
}
