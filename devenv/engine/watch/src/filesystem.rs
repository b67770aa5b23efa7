//! Which filesystems don't tell of their changes.
//!
//! Those whose files change behind the kernel's back: on a server, in the host of a
//! virtual machine, in Windows. inotify works on them and tells what this machine does
//! itself, and nothing else.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// The magic numbers of statfs(2), and their names.
const SILENT: &[(u32, &str)] = &[
    (0x0102_1997, "9p"), // drvfs of WSL 2 too
    (0x5346_4846, "drvfs"),
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0000_517b, "SMB"),
    (0x786f_4256, "vboxsf"),
    (0xbacb_acbc, "vmhgfs"),
    (0x6573_5546, "FUSE"), // sshfs, virtiofs, gcsfuse, Docker Desktop's
    (0x7c7c_6673, "prl_fs"),
    (0x5346_414f, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
];

/// The name of the filesystem that `path` is on, if it is one of those.
pub(crate) fn silent(path: &Path) -> Option<&'static str> {
    let magic = rustix::fs::statfs(path).ok()?.f_type;
    named(magic)
}

fn named(magic: impl TryInto<i64>) -> Option<&'static str> {
    // Only the lower half counts; the type's width and sign differ between machines.
    let magic = magic.try_into().ok()? & 0xffff_ffff;
    let found = SILENT.iter().find(|(m, _)| i64::from(*m) == magic);
    found.map(|(_, name)| *name)
}

/// Where filesystems are mounted: elsewhere a folder is on that of its parent.
pub(crate) fn mount_points() -> HashSet<PathBuf> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(unescape)
        .collect()
}

/// Undoes the `\040` of /proc/self/mountinfo.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = match tail {
            [a, b, c, ..] if *first == b'\\' => std::str::from_utf8(&[*a, *b, *c])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0x6969_i64, Some("NFS"))]
    #[case(0xff53_4d42_i64, Some("CIFS"))]
    #[case(i64::from(0xff53_4d42_u32 as i32), Some("CIFS"))]
    #[case(0x0102_1997_i64, Some("9p"))]
    #[case(0xef53_i64, None)]
    #[case(0x794c_7630_i64, None)]
    fn filesystems_are_told_apart(#[case] magic: i64, #[case] name: Option<&str>) {
        assert_eq!(named(magic), name);
    }

    #[rstest]
    #[case("/mnt/c", "/mnt/c")]
    #[case(r"/mnt/my\040disk", "/mnt/my disk")]
    #[case(r"/a\134b", r"/a\b")]
    #[case(r"/a\9", r"/a\9")]
    fn mount_points_are_unescaped(#[case] field: &str, #[case] path: &str) {
        assert_eq!(unescape(field.as_bytes()), PathBuf::from(path));
    }

    #[test]
    fn the_root_is_mounted_and_proc_is_not_silent() {
        assert!(mount_points().contains(Path::new("/")));
        assert_eq!(silent(Path::new("/proc")), None);
    }
}
