//! The names under which editors put files that nobody wants to hear of.
//!
//! Names only: a temporary file of any other name is recognised by what happens to it
//! (see [`crate::inbox`]: born and gone within one burst).

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// Whether a file of this name is an editor's backup, swap, lock or temporary file.
pub(crate) fn is_scratch(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let hidden = name.starts_with(b".");
    // Backups of vim, Emacs, gedit, Kate, nano.
    (name.ends_with(b"~") && name.len() > 1)
        // vim's swap files: .main.rs.swp, then .swo, .swn … and .swx while it probes.
        || (hidden && is_vim_swap(name))
        // vim writes and removes these to learn whether a folder is writable.
        || matches!(name, b"4913" | b"5036" | b"5159")
        // Emacs: auto-save files, and locks that are dangling symlinks.
        || (name.starts_with(b"#") && name.ends_with(b"#") && name.len() > 1)
        || name.starts_with(b".#")
        // JetBrains' "safe write".
        || [b"___jb_tmp___", b"___jb_old___", b"___jb_bak___"]
            .iter()
            .any(|end| name.ends_with(*end))
        // GLib (gedit, GNOME Builder) and Kate.
        || name.starts_with(b".goutputstream-")
        || (hidden && name.ends_with(b".kate-swp"))
}

/// `….sw` and one more letter, or the `….swpx` of old versions.
fn is_vim_swap(name: &[u8]) -> bool {
    let name = name
        .strip_suffix(b"x")
        .filter(|n| n.ends_with(b".swp"))
        .unwrap_or(name);
    match name {
        [.., b'.', b's', b'w', last] => last.is_ascii_lowercase(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("main.rs~")]
    #[case(".main.rs.swp")]
    #[case(".main.rs.swo")]
    #[case(".main.rs.swx")]
    #[case(".main.rs.swpx")]
    #[case(".swp")]
    #[case("4913")]
    #[case("#main.rs#")]
    #[case(".#main.rs")]
    #[case("main.rs___jb_tmp___")]
    #[case("main.rs___jb_old___")]
    #[case("main.rs___jb_bak___")]
    #[case(".goutputstream-8XK2Y1")]
    #[case(".main.rs.kate-swp")]
    fn editors_leftovers_are_scratch(#[case] name: &str) {
        assert!(is_scratch(OsStr::new(name)));
    }

    #[rstest]
    #[case("main.rs")]
    #[case("~")]
    #[case("#")]
    #[case("4914")]
    #[case("4913.rs")]
    #[case("player.swf")]
    #[case("icons.swg")]
    #[case(".swift")]
    #[case(".env")]
    #[case(".swiftlint.yml")]
    #[case("a~b")]
    #[case("#include")]
    #[case("c#")]
    fn sources_are_not(#[case] name: &str) {
        assert!(!is_scratch(OsStr::new(name)));
    }
}
