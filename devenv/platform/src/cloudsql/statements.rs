//! Splits a SQL script into its statements, each with the line it starts on.
//!
//! The server counts lines from the start of a statement; people want the line
//! of the file. So statements are sent one at a time and their position is kept.

/// One statement of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The text, without its delimiter and without surrounding blanks.
    pub sql: &'a str,
    /// The line of the script that it starts on, from 1.
    pub line: usize,
}

/// The statements of `script` in order.
///
/// Follows the mysql client's lexical rules: quotes (`'`, `"`, `` ` ``), comments
/// (`-- `, `#`, `/* */`), and its `DELIMITER` command for stored routines.
/// What holds only blanks and comments is no statement.
pub fn split(script: &str) -> Vec<Statement<'_>> {
    let bytes = script.as_bytes();
    let mut out = Vec::new();
    let mut delimiter = ";".to_owned();
    let mut start = 0; // of the statement under way
    let mut code = false; // whether it has anything but blanks and comments
    let mut first_code = 0; // where its code begins
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        if !code
            && at_line_start(bytes, i)
            && let Some((new, len)) = delimiter_command(&script[i..])
        {
            delimiter = new;
            i += len;
            start = i;
            continue;
        }
        if rest.starts_with(delimiter.as_bytes()) {
            if code {
                push(&mut out, script, first_code, i);
            }
            i += delimiter.len();
            start = i;
            code = false;
            continue;
        }
        let skipped = match rest[0] {
            b'\'' | b'"' | b'`' => Some((quoted(rest), true)),
            b'#' => Some((to_line_end(rest), false)),
            b'-' if rest.starts_with(b"--")
                && rest.get(2).is_none_or(|c| c.is_ascii_whitespace()) =>
            {
                Some((to_line_end(rest), false))
            }
            // `/*!` is code for MySQL and MariaDB, not a comment.
            b'/' if rest.starts_with(b"/*") => Some((block(rest), rest.get(2) == Some(&b'!'))),
            _ => None,
        };
        let (len, is_code) = skipped.unwrap_or((1, !rest[0].is_ascii_whitespace()));
        if is_code && !code {
            code = true;
            first_code = i;
        }
        i += len;
    }
    if code {
        push(&mut out, script, first_code.max(start), bytes.len());
    }
    out
}

fn push<'a>(out: &mut Vec<Statement<'a>>, script: &'a str, from: usize, to: usize) {
    let line = 1 + script.as_bytes()[..from]
        .iter()
        .filter(|b| **b == b'\n')
        .count();
    let sql = script[from..to].trim_end();
    out.push(Statement { sql, line });
}

fn at_line_start(bytes: &[u8], i: usize) -> bool {
    i == 0 || bytes[i - 1] == b'\n'
}

/// `DELIMITER xx` on a line of its own: the new delimiter and the line's length.
fn delimiter_command(rest: &str) -> Option<(String, usize)> {
    let line = rest.split('\n').next()?;
    let mut words = line.split_whitespace();
    if !words.next()?.eq_ignore_ascii_case("delimiter") {
        return None;
    }
    let new = words.next()?.to_owned();
    Some((new, line.len()))
}

fn to_line_end(rest: &[u8]) -> usize {
    rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
}

fn block(rest: &[u8]) -> usize {
    rest.windows(2)
        .skip(2)
        .position(|w| w == b"*/")
        .map_or(rest.len(), |p| p + 4)
}

/// The length of the quoted text that `rest` starts with; a doubled quote and a
/// backslash (not in backticks) don't end it.
fn quoted(rest: &[u8]) -> usize {
    let quote = rest[0];
    let mut i = 1;
    while i < rest.len() {
        if rest[i] == b'\\' && quote != b'`' {
            i += 2;
        } else if rest[i] == quote {
            if rest.get(i + 1) == Some(&quote) {
                i += 2;
            } else {
                return i + 1;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", &[])]
    #[case("  -- nothing\n/* at all */ # here\n", &[])]
    #[case("SELECT 1", &[(1, "SELECT 1")])]
    #[case("SELECT 1;\n\n-- two\nSELECT 2;\n", &[(1, "SELECT 1"), (4, "SELECT 2")])]
    #[case("INSERT INTO t VALUES ('a;b', \"c;d\", `e;f`);SELECT 1;", &[(1, "INSERT INTO t VALUES ('a;b', \"c;d\", `e;f`)"), (1, "SELECT 1")])]
    #[case("SELECT 'it''s; fine', 'back\\'; slash';", &[(1, "SELECT 'it''s; fine', 'back\\'; slash'")])]
    #[case("SELECT 1 -- a; b\n, 2;", &[(1, "SELECT 1 -- a; b\n, 2")])]
    #[case("SELECT 5--1;", &[(1, "SELECT 5--1")])]
    #[case("/*!40101 SET NAMES utf8 */;\nSELECT 1;", &[(1, "/*!40101 SET NAMES utf8 */"), (2, "SELECT 1")])]
    #[case("DELIMITER //\nCREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END//\nDELIMITER ;\nSELECT 3;", &[(2, "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END"), (4, "SELECT 3")])]
    #[case("SELECT 'open", &[(1, "SELECT 'open")])]
    #[case("/* open", &[])]
    #[case("SELECT 'ñ;é';\nSELECT 'ü';", &[(1, "SELECT 'ñ;é'"), (2, "SELECT 'ü'")])]
    fn scripts(#[case] script: &str, #[case] want: &[(usize, &str)]) {
        let got: Vec<_> = split(script).iter().map(|s| (s.line, s.sql)).collect();
        assert_eq!(got, want);
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_keeps_text_in_order(script in "[-;'\"`#/*!a \n\\\\ñD]{0,80}") {
            let mut from = 0;
            for s in split(&script) {
                let at = script[from..].find(s.sql).unwrap();
                from += at + s.sql.len();
            }
        }
    }
}
