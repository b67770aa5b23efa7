//! The path that locations are compared with.

use std::borrow::Cow;

/// The request's path cannot be made sense of: nginx answers 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPath;

/// Decodes `%xx`, merges slashes and resolves `.` and `..`, as nginx does
/// before it looks for a location. The upstream still gets the raw target.
///
/// Bytes, because a decoded path need not be UTF-8.
pub fn normalize(raw: &str) -> Result<Cow<'_, [u8]>, BadPath> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(BadPath);
    }
    let plain = !bytes.contains(&b'%')
        && !bytes
            .windows(2)
            .any(|pair| pair[0] == b'/' && matches!(pair[1], b'/' | b'.'));
    if plain {
        return Ok(Cow::Borrowed(bytes));
    }
    resolve(&decode(bytes)?).map(Cow::Owned)
}

fn decode(bytes: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else {
            return Err(BadPath);
        };
        let digit = |b: &u8| (*b as char).to_digit(16).ok_or(BadPath);
        let decoded = (digit(high)? * 16 + digit(low)?) as u8;
        if decoded == 0 {
            return Err(BadPath);
        }
        out.push(decoded);
        rest = tail;
    }
    Ok(out)
}

fn resolve(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.split(|b| *b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            // Merged with the slash before it, or the path's final slash.
            b"" | b"." if last => out.push(b'/'),
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|b| *b == b'/').ok_or(BadPath)?;
                out.truncate(parent);
                if last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/", Ok("/"))]
    #[case("/a/b", Ok("/a/b"))]
    #[case("//a///b//", Ok("/a/b/"))]
    #[case("/a/./b/.", Ok("/a/b/"))]
    #[case("/a/../b", Ok("/b"))]
    #[case("/a/b/..", Ok("/a/"))]
    #[case("/a/..", Ok("/"))]
    #[case("/..", Err(BadPath))]
    #[case("/a/../../b", Err(BadPath))]
    #[case("/%61%70i", Ok("/api"))]
    #[case("/a%2Fb", Ok("/a/b"))]
    #[case("/a/%2e%2E/b", Ok("/b"))]
    #[case("/a%2", Err(BadPath))]
    #[case("/a%zz", Err(BadPath))]
    #[case("/a%00", Err(BadPath))]
    #[case("/.well-known/x", Ok("/.well-known/x"))]
    #[case("/a..b/..c", Ok("/a..b/..c"))]
    #[case("*", Err(BadPath))]
    #[case("", Err(BadPath))]
    fn like_nginx(#[case] raw: &str, #[case] expected: Result<&str, BadPath>) {
        let got = normalize(raw).map(|p| String::from_utf8(p.into_owned()).unwrap());
        assert_eq!(got.as_deref().map_err(|e| *e), expected);
    }

    proptest! {
        #[test]
        fn a_normal_path_holds_nothing_to_resolve(raw in "(/|\\.|%2e|%2F|a|b){0,24}") {
            if let Ok(path) = normalize(&raw) {
                prop_assert!(path.starts_with(b"/"));
                prop_assert!(!path.windows(2).any(|w| w == b"//"));
                for segment in path.split(|b| *b == b'/') {
                    prop_assert!(segment != b"." && segment != b"..");
                }
            }
        }
    }
}
