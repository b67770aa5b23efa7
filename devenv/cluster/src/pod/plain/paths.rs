//! Paths of a container where nothing can be mounted. Pure.
//!
//! What would be mounted is somewhere else on this machine, so its path is
//! replaced in the container's variables, arguments and working directory.
//! A mount that none of these name can only be known to the program itself,
//! and then the container cannot have it.

use std::path::{Path, PathBuf};

/// A path of the container and where its contents are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    /// In the container.
    pub(super) from: PathBuf,
    /// On this machine.
    pub(super) to: PathBuf,
    /// Whether the program may do without it being named.
    pub(super) optional: bool,
}

/// Replaces the paths everywhere. The longest wins where one lies in another.
///
/// # Errors
/// The first path that is not optional and that nothing names.
pub(super) fn replace(
    moved: &mut [Moved],
    env: &mut [(String, String)],
    argv: &mut [String],
    cwd: &mut PathBuf,
) -> Result<(), PathBuf> {
    moved.sort_by_key(|m| std::cmp::Reverse(m.from.as_os_str().len()));
    let mut named = vec![false; moved.len()];
    for text in env.iter_mut().map(|(_, value)| value).chain(argv) {
        if let Some(replaced) = in_text(text, moved, &mut named) {
            *text = replaced;
        }
    }
    if let Some((at, place)) = moved.iter().enumerate().find_map(|(at, m)| {
        let rest = cwd.strip_prefix(&m.from).ok()?;
        Some((at, join(&m.to, rest)))
    }) {
        *cwd = place;
        named[at] = true;
    }
    let missing = moved
        .iter()
        .zip(&named)
        .find(|(m, named)| !m.optional && !**named);
    match missing {
        Some((m, _)) => Err(m.from.clone()),
        None => Ok(()),
    }
}

fn join(to: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        to.to_owned()
    } else {
        to.join(rest)
    }
}

fn in_text(text: &str, moved: &[Moved], named: &mut [bool]) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = text[at..].find('/').map(|n| at + n) {
        at = found + 1;
        if !may_begin(&text[..found]) {
            continue;
        }
        let hit = moved.iter().enumerate().find_map(|(index, m)| {
            let from = m.from.to_str()?.trim_end_matches('/');
            let rest = text[found..]
                .strip_prefix(from)
                .filter(|_| !from.is_empty())?;
            ends(rest).then_some((index, found + from.len(), m))
        });
        if let Some((index, end, m)) = hit {
            named[index] = true;
            out.push_str(&text[copied..found]);
            out.push_str(&m.to.to_string_lossy());
            (copied, at) = (end, end);
        }
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// Whether an absolute path may begin behind this: in `http://etc/x` and `a/etc` none does.
fn may_begin(before: &str) -> bool {
    let last = before.chars().next_back();
    let goes_on =
        |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '~' | '}' | ')');
    before.ends_with("://") || !last.is_some_and(goes_on)
}

/// Whether a path ends here, or goes on below.
fn ends(rest: &str) -> bool {
    rest.chars()
        .next()
        .is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn moved(from: &str, to: &str, optional: bool) -> Moved {
        Moved {
            from: from.into(),
            to: to.into(),
            optional,
        }
    }

    #[rstest]
    #[case("/etc/cm", "/p/cm")]
    #[case("/etc/cm/a.yaml", "/p/cm/a.yaml")]
    #[case("/etc/cm2/a.yaml", "/etc/cm2/a.yaml")]
    #[case("/x/etc/cm/a", "/x/etc/cm/a")]
    #[case("--config=/etc/cm/a", "--config=/p/cm/a")]
    #[case("/app/bin:/usr/bin:/etc/cm", "/src/bin:/usr/bin:/p/cm")]
    #[case("cat /etc/cm/a \"/app/x\"", "cat /p/cm/a \"/src/x\"")]
    #[case("file:///etc/cm/a", "file:///p/cm/a")]
    #[case("http://host/etc/cm", "http://host/etc/cm")]
    #[case("$X/etc/cm", "$X/etc/cm")]
    #[case("/app/sub/inner", "/deep/inner")]
    #[case("é/etc/cm", "é/etc/cm")]
    #[case("classpath:/etc/cm/a", "classpath:/p/cm/a")]
    fn texts(#[case] text: &str, #[case] expected: &str) {
        let mut all = [
            moved("/app", "/src", true),
            moved("/app/sub", "/deep", true),
            moved("/etc/cm", "/p/cm", true),
        ];
        let mut env = [("X".to_owned(), text.to_owned())];
        let mut argv = [text.to_owned()];
        let mut cwd = PathBuf::from("/");
        replace(&mut all, &mut env, &mut argv, &mut cwd).expect("all are optional");
        assert_eq!((env[0].1.as_str(), argv[0].as_str()), (expected, expected));
    }

    #[test]
    fn the_working_directory_follows_and_counts() {
        let mut all = [moved("/app", "/src", false)];
        let mut cwd = PathBuf::from("/app/web");
        replace(&mut all, &mut [], &mut [], &mut cwd).expect("named");
        assert_eq!(cwd, PathBuf::from("/src/web"));
    }

    #[test]
    fn what_nothing_names_cannot_be_had() {
        let mut all = [
            moved("/app", "/src", true),
            moved("/etc/cm", "/p/cm", false),
        ];
        let mut argv = ["/app/run".to_owned()];
        let missing = replace(&mut all, &mut [], &mut argv, &mut PathBuf::from("/"));
        assert_eq!(missing, Err(PathBuf::from("/etc/cm")));
    }
}
