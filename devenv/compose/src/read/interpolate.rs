//! `${VARIABLE:-default}` in values, as the Compose specification says.

/// Nobody nests defaults deeper.
const MAX_NESTING: usize = 32;

/// Why a text can't be filled in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    /// Not the form of a variable.
    #[error("`{0}` is no form of a variable")]
    Invalid(String),
    /// `${NAME:?message}` without a value.
    #[error("the variable {name} has no value{}{message}", if message.is_empty() { "" } else { ": " })]
    Required { name: String, message: String },
}

/// Where values come from, and what had none.
pub(super) struct Variables<'v> {
    pub lookup: &'v dyn Fn(&str) -> Option<String>,
    /// Names that had no value and no default: read as nothing.
    pub unset: Vec<String>,
}

impl Variables<'_> {
    /// Fills in all variables of `text`. `$$` is a dollar; a dollar before anything that
    /// can't begin a name stays.
    pub(super) fn fill(&mut self, text: &str) -> Result<String, TemplateError> {
        self.fill_nested(text, 0)
    }

    fn fill_nested(&mut self, text: &str, depth: usize) -> Result<String, TemplateError> {
        if depth > MAX_NESTING {
            return Err(TemplateError::Invalid(text.into()));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(next) = after.strip_prefix('$') {
                out.push('$');
                rest = next;
            } else if let Some(inner) = after.strip_prefix('{') {
                let end =
                    closing(inner).ok_or_else(|| TemplateError::Invalid(format!("${{{inner}")))?;
                out.push_str(&self.braced(&inner[..end], depth)?);
                rest = &inner[end + 1..];
            } else {
                let end = name_end(after);
                if end == 0 {
                    out.push('$');
                } else {
                    out.push_str(&self.plain(&after[..end]));
                }
                rest = &after[end..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn plain(&mut self, name: &str) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            self.unset.push(name.into());
            String::new()
        })
    }

    fn braced(&mut self, inner: &str, depth: usize) -> Result<String, TemplateError> {
        let (name, operation) = inner.split_at(name_end(inner));
        let invalid = || TemplateError::Invalid(format!("${{{inner}}}"));
        if name.is_empty() {
            return Err(invalid());
        }
        if operation.is_empty() {
            return Ok(self.plain(name));
        }
        let (colon, operation) = match operation.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, operation),
        };
        let mut chars = operation.chars();
        let operator = chars.next();
        let word = chars.as_str();
        let value = (self.lookup)(name);
        // With a colon, empty counts as unset.
        let set = value.as_deref().is_some_and(|v| !colon || !v.is_empty());
        match operator {
            Some('-') if set => Ok(value.unwrap_or_default()),
            Some('-') => self.fill_nested(word, depth + 1),
            Some('+') if set => self.fill_nested(word, depth + 1),
            Some('+') => Ok(String::new()),
            Some('?') if set => Ok(value.unwrap_or_default()),
            Some('?') => Err(TemplateError::Required {
                name: name.into(),
                message: self.fill_nested(word, depth + 1)?,
            }),
            _ => Err(invalid()),
        }
    }
}

/// How much of the beginning of `text` is a name.
fn name_end(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// Where the brace that has just been opened is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1usize;
    for (i, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => {
                open -= 1;
                if open == 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn fill(text: &str) -> (Result<String, String>, Vec<String>) {
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut variables = Variables {
            lookup: &lookup,
            unset: Vec::new(),
        };
        let filled = variables.fill(text).map_err(|e| e.to_string());
        (filled, variables.unset)
    }

    #[rstest]
    #[case("plain", "plain")]
    #[case("$A-${A}", "a-a")]
    #[case("$$A $${A} $5 $", "$A ${A} $5 $")]
    #[case("${EMPTY-d}|${EMPTY:-d}|${NO-d}|${NO:-d}|${A:-d}", "|d|d|d|a")]
    #[case("${EMPTY+s}|${EMPTY:+s}|${NO+s}|${A:+s}", "s|||s")]
    #[case("${A?e}${A:?e}${EMPTY?e}", "aa")]
    #[case("${NO:-${EMPTY:-${A}}}-x", "a-x")]
    #[case("${NO:-{\"a\": 1}}", "{\"a\": 1}")]
    #[case("${NO:-a:-b}", "a:-b")]
    fn fills(#[case] text: &str, #[case] want: &str) {
        assert_eq!(fill(text), (Ok(want.into()), vec![]));
    }

    #[test]
    fn what_has_no_value_is_named() {
        assert_eq!(
            fill("[$NO][${NO2}]"),
            (Ok("[][]".into()), vec!["NO".into(), "NO2".into()])
        );
    }

    #[rstest]
    #[case("${NO:?set it to $A}", "the variable NO has no value: set it to a")]
    #[case("${EMPTY:?}", "the variable EMPTY has no value")]
    #[case("${NO?}", "the variable NO has no value")]
    #[case("${A", "`${A` is no form of a variable")]
    #[case("${}", "`${}` is no form of a variable")]
    #[case("${A!}", "`${A!}` is no form of a variable")]
    #[case("${5}", "`${5}` is no form of a variable")]
    fn refuses(#[case] text: &str, #[case] want: &str) {
        assert_eq!(fill(text).0, Err(want.into()));
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "${NO:-".repeat(1000) + &"}".repeat(1000);
        assert!(fill(&deep).0.is_err());
    }
}
