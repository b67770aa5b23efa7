//! Making mounts read-only, one by one, by the kernel's list of them.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

/// Makes the mounts at and below `tops` read-only, one by one, each with the
/// restrictions it has: in a user namespace the kernel refuses to loosen them.
pub(crate) fn make_read_only(tops: &[PathBuf]) -> io::Result<()> {
    for (path, flags) in mounts_below(&table()?, tops) {
        match remount_read_only(&path, flags) {
            // Hidden under another mount, so no one can reach it.
            Err(nix::Error::ENOENT | nix::Error::EINVAL | nix::Error::ENOTDIR)
                if !tops.contains(&path) => {}
            // In a folder that is closed to this user, as Docker's own is in which each running
            // container has a mount. What is in the container may do no more than this process.
            Err(nix::Error::EACCES) if !tops.contains(&path) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The mount points strictly below `top`, those above others first.
pub(crate) fn mount_points_in(top: &Path) -> io::Result<Vec<PathBuf>> {
    let found = mounts_below(&table()?, &[top.to_owned()]);
    let mut paths: Vec<_> = found.into_iter().map(|(path, _)| path).collect();
    paths.retain(|path| path != top);
    paths.sort();
    Ok(paths)
}

fn table() -> io::Result<String> {
    fs::read_to_string("/proc/self/mountinfo")
}

pub(crate) fn remount_read_only(path: &Path, flags: MsFlags) -> nix::Result<()> {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
}

/// Mount points at and below `tops` with their per-mount flags, from the text
/// of a mountinfo file. Of mounts at one place the last one counts: it covers
/// the others.
fn mounts_below(table: &str, tops: &[PathBuf]) -> Vec<(PathBuf, MsFlags)> {
    let mut found: Vec<(PathBuf, MsFlags)> = Vec::new();
    for line in table.lines() {
        // id parent major:minor root mountpoint options …
        let mut fields = line.split(' ').skip(4);
        let (Some(path), Some(options)) = (fields.next(), fields.next()) else {
            continue;
        };
        let path = unescape(path);
        if tops.iter().any(|top| path.starts_with(top)) {
            found.retain(|(other, _)| *other != path);
            found.push((path, mount_flags(options)));
        }
    }
    found
}

fn mount_flags(options: &str) -> MsFlags {
    options.split(',').fold(MsFlags::empty(), |flags, option| {
        flags
            | match option {
                "ro" => MsFlags::MS_RDONLY,
                "nosuid" => MsFlags::MS_NOSUID,
                "nodev" => MsFlags::MS_NODEV,
                "noexec" => MsFlags::MS_NOEXEC,
                "noatime" => MsFlags::MS_NOATIME,
                "nodiratime" => MsFlags::MS_NODIRATIME,
                "relatime" => MsFlags::MS_RELATIME,
                _ => MsFlags::empty(),
            }
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
pub(crate) fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:20 / /r/usr rw,nosuid,nodev,relatime - tmpfs t rw
31 30 0:21 / /r/usr/a\\040b\\134c ro,noexec,noatime - tmpfs t rw
32 30 0:22 / /r/usr/x rw - tmpfs t rw
33 32 0:23 / /r/usr/x rw,nodev - tmpfs t rw
34 21 0:24 / /r/usr2 rw - tmpfs t rw
";

    #[test]
    fn mounts_are_found_with_their_flags_and_only_the_covering_one() {
        let found = mounts_below(TABLE, &["/r/usr".into(), "/r/none".into()]);
        let expected = [
            (
                "/r/usr",
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RELATIME,
            ),
            (
                "/r/usr/a b\\c",
                MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME,
            ),
            ("/r/usr/x", MsFlags::MS_NODEV),
        ];
        let expected: Vec<_> = expected
            .map(|(path, flags)| (PathBuf::from(path), flags))
            .to_vec();
        assert_eq!(found, expected);
    }

    #[rstest::rstest]
    #[case::plain("/a/b", "/a/b")]
    #[case::space("/a\\040b", "/a b")]
    #[case::lone_backslash("/a\\", "/a\\")]
    #[case::not_octal("/a\\09z", "/a\\09z")]
    fn fields_are_unescaped(#[case] field: &str, #[case] path: &str) {
        assert_eq!(unescape(field), PathBuf::from(path));
    }
}
