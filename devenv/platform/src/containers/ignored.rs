//! `.dockerignore`: what of a build's context is left out.
//!
//! The rules are those of Docker's own matcher: patterns are relative to the context and
//! match whole paths or a folder above them, `**` stands for any number of folders, `!`
//! takes back, and the last pattern that matches decides.

use regex::Regex;

/// The patterns of a file, compiled.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    regex: Regex,
    /// It takes back what an earlier one left out.
    negated: bool,
}

impl Ignored {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The pattern that is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut patterns = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for line in text.lines() {
            // A comment begins at the very beginning.
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (negated, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let pattern = devenv_model::clean_path(pattern);
            let pattern = pattern.trim_start_matches('/');
            if line.is_empty() || pattern.is_empty() || pattern == "." {
                continue;
            }
            let regex = Regex::new(&expression(pattern)).map_err(|_| line.to_owned())?;
            let text = pattern.to_owned();
            patterns.push(Pattern {
                text,
                regex,
                negated,
            });
        }
        Ok(Self { patterns })
    }

    /// Whether this path, relative to the context and with `/` between its parts, is left out.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut ignored = false;
        for pattern in &self.patterns {
            // What is decided already the same way need not be looked at.
            if pattern.negated == ignored && pattern.covers(path) {
                ignored = !pattern.negated;
            }
        }
        ignored
    }

    /// Whether something below this ignored folder may be taken back.
    pub(super) fn takes_back_below(&self, folder: &str) -> bool {
        let below = format!("{folder}/");
        let mut negated = self.patterns.iter().filter(|pattern| pattern.negated);
        negated.any(|pattern| {
            // Its beginning without wildcards tells, as far as it goes.
            let fixed = pattern.text.split(['*', '?', '[', '\\']).next();
            let fixed = fixed.unwrap_or_default();
            fixed.starts_with(&below)
                || (fixed.len() < pattern.text.len() && below.starts_with(fixed))
        })
    }
}

impl Pattern {
    fn covers(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at);
        self.regex.is_match(path)
            || ends
                .into_iter()
                .any(|end| self.regex.is_match(&path[..end]))
    }
}

fn expression(pattern: &str) -> String {
    let mut out = String::from("^");
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                out.push_str(if rest.peek().is_none() {
                    ".*"
                } else {
                    "(?:.*/)?"
                });
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '\\' => {
                let escaped = rest.next().unwrap_or('\\');
                out.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
            }
            // A class of characters is one there, too.
            '[' | ']' | '-' | '^' => out.push(c),
            _ => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("target", &["target", "target/x/y"], &["a/target", "targets"])]
    #[case::anywhere("**/node_modules", &["node_modules", "a/b/node_modules/c"], &["node_modules2"])]
    #[case::below("a/**", &["a/b", "a/b/c"], &["a", "b"])]
    #[case::middle("a/**/z", &["a/z", "a/b/c/z"], &["z", "b/z"])]
    #[case::star("*.md", &["README.md"], &["docs/README.md"])]
    #[case::question("?.c", &["a.c"], &["ab.c", "/.c"])]
    #[case::class("[ab].c", &["a.c", "b.c"], &["c.c"])]
    #[case::slashes("/x/", &["x", "x/y"], &["a/x"])]
    #[case::dots("./x/../y", &["y"], &["x"])]
    #[case::taken_back("**\n!app\n!a.txt", &["b", "b/app", "a.txt2"], &["app", "app/x", "a.txt"])]
    #[case::last_wins("!x\nx", &["x"], &["y"])]
    #[case::comment("# x\n x ", &["x"], &["# x"])]
    #[case::escaped("a\\*", &["a*"], &["ab"])]
    #[case::special("a+(b).c", &["a+(b).c"], &["aab.c", "a+(b)xc"])]
    fn patterns(#[case] text: &str, #[case] left_out: &[&str], #[case] kept: &[&str]) {
        let ignored = Ignored::parse(text).expect("patterns");
        for path in left_out {
            assert!(ignored.matches(path), "{path} by {text:?}");
        }
        for path in kept {
            assert!(!ignored.matches(path), "{path} by {text:?}");
        }
    }

    #[rstest]
    #[case("**\n!app/src", "app", true)]
    #[case("**\n!app/src", "app/src", false)]
    #[case("**\n!app/src", "target", false)]
    #[case("**\n!app", "apps", false)]
    #[case("**\n!**/keep", "target", true)]
    #[case("**\n!a*/keep", "target", false)]
    #[case("**\n!a*/keep", "abc", true)]
    #[case("target", "target", false)]
    fn only_folders_that_may_matter_are_entered(
        #[case] text: &str,
        #[case] folder: &str,
        #[case] enters: bool,
    ) {
        let ignored = Ignored::parse(text).expect("patterns");
        assert_eq!(ignored.takes_back_below(folder), enters);
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        assert_eq!(Ignored::parse("a\n[b").expect_err("none"), "[b");
    }
}
