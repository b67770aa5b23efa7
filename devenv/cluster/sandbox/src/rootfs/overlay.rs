//! Writable copies of directories: overlayfs with an upper layer in the
//! container's scratch.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};
use rustix::fs::{Mode, OFlags};

use super::{Root, make_dir, under_old_root};
use crate::readonly::mount_points_in;

/// A host directory of which the container has a writable copy.
pub(super) struct Layer {
    /// On the host, without links.
    source: PathBuf,
    /// In the container.
    place: PathBuf,
}

impl Root {
    /// Shows a host directory so that writes stay in the container. `begin` is
    /// the host directory where the program starts.
    pub(super) fn add_layer(
        &mut self,
        source: &Path,
        target: &Path,
        begin: &Path,
    ) -> io::Result<()> {
        if let Some(from) = self.present_layer(source) {
            return self.show_again(&from, target);
        }
        let begin = begin.strip_prefix(source).unwrap_or(Path::new(""));
        let refused = match self.overlay(&under_old_root(source), target) {
            Ok(upper) => return self.furnish_layer(source, target, &upper, begin),
            Err(error) => error,
        };
        self.show_read_only(&under_old_root(source), target)?;
        self.hide_in(source, target)?;
        let only = match self.add_deeper_layer(source, target, begin)? {
            Some(place) => format!("below {}", place.display()),
            None => "in /tmp, /run and volumes that are not read-only".to_owned(),
        };
        self.warnings.push(format!(
            "{} is read-only in the container, and programs can write only {only}: the kernel refuses an overlay of {} ({refused})",
            target.display(),
            source.display(),
        ));
        Ok(())
    }

    /// Where the kernel refuses an overlay of the whole: of the first directory
    /// on the way to `begin` that works.
    fn add_deeper_layer(
        &mut self,
        source: &Path,
        target: &Path,
        begin: &Path,
    ) -> io::Result<Option<PathBuf>> {
        let (mut source, mut place) = (source.to_owned(), target.to_owned());
        let mut rest = begin.components();
        while let Some(name) = rest.next() {
            source.push(name);
            place.push(name);
            if self.hidden.contains(&source) || !is_plain_dir(&place) {
                break;
            }
            if let Ok(upper) = self.overlay(&under_old_root(&source), &place) {
                self.furnish_layer(&source, &place, &upper, rest.as_path())?;
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Where an earlier overlay shows the host's directory `path`.
    fn present_layer(&self, path: &Path) -> Option<PathBuf> {
        self.layers.iter().rev().find_map(|layer| {
            let rest = path.strip_prefix(&layer.source).ok()?;
            let hidden = self
                .hidden
                .iter()
                .any(|hidden| path.starts_with(hidden) && hidden.starts_with(&layer.source));
            (!hidden).then(|| layer.place.join(rest))
        })
    }

    fn furnish_layer(
        &mut self,
        source: &Path,
        place: &Path,
        upper: &Path,
        begin: &Path,
    ) -> io::Result<()> {
        let lower = under_old_root(source);
        self.prepare_copies(&lower, upper, begin)?;
        self.add_nested(&lower, place)?;
        self.layers.push(Layer {
            source: source.to_owned(),
            place: place.to_owned(),
        });
        self.hide_in(source, place)
    }

    /// Makes the directories on the way to `begin` in the upper layer, where the
    /// kernel would fail to copy them up for an ordinary user: one of another
    /// user or group in them can't be given to its owner.
    fn prepare_copies(&self, lower: &Path, upper: &Path, begin: &Path) -> io::Result<()> {
        if self.privileged {
            return Ok(());
        }
        let own = fs::metadata(upper)?;
        let mut chain = Vec::new();
        let mut foreign = 0;
        let (mut below, mut above) = (lower.to_owned(), upper.to_owned());
        for name in begin.components() {
            below.push(name);
            above.push(name);
            if !is_plain_dir(&below) {
                break;
            }
            let found = fs::metadata(&below)?;
            chain.push((above.clone(), found.mode() & 0o7777));
            if (found.uid(), found.gid()) != (own.uid(), own.gid()) {
                foreign = chain.len();
            }
        }
        chain
            .iter()
            .take(foreign)
            .try_for_each(|(path, mode)| make_dir(path, *mode))
    }

    /// An overlay has its lower directory without what is mounted in it.
    fn add_nested(&mut self, lower: &Path, target: &Path) -> io::Result<()> {
        for path in mount_points_in(lower)? {
            let Ok(rest) = path.strip_prefix(lower) else {
                continue;
            };
            let place = target.join(rest);
            // What another mount covers can't be seen, and has no place either.
            let (Ok(found), Ok(_)) = (fs::metadata(&path), fs::metadata(&place)) else {
                continue;
            };
            if !(found.is_dir() && self.overlay(&path, &place).is_ok()) {
                self.show_read_only(&path, &place)?;
            }
        }
        Ok(())
    }

    /// Covers `target` with a private, writable copy of `lower` and returns its
    /// upper layer.
    pub(super) fn overlay(&mut self, lower: &Path, target: &Path) -> io::Result<PathBuf> {
        let upper = self.in_scratch("upper");
        let work = self.in_scratch("work");
        let found = fs::metadata(lower)?;
        make_dir(&upper, found.permissions().mode() & 0o7777)?;
        if self.privileged {
            match chown(&upper, Some(found.uid()), Some(found.gid())) {
                // Its owner has no number in this user namespace.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                other => other?,
            }
        }
        make_dir(&work, 0o700)?;
        // By descriptor, because paths would need quoting.
        let open = |path: &Path| {
            rustix::fs::open(
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let layers = [open(lower)?, open(&upper)?, open(&work)?];
        mount_overlay(target, &layers)?;
        self.own.insert(fs::metadata(target)?.dev());
        self.cover_again(target)?;
        Ok(upper)
    }
}

/// Not a link, which leads elsewhere.
fn is_plain_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// `layers` are lower, upper and work directory.
fn mount_overlay(target: &Path, layers: &[OwnedFd; 3]) -> nix::Result<()> {
    let [lower, upper, work] = layers.each_ref().map(AsRawFd::as_raw_fd);
    let options = format!(
        "lowerdir=/proc/self/fd/{lower},upperdir=/proc/self/fd/{upper},workdir=/proc/self/fd/{work}"
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let with = |options: &str| {
        mount(
            Some("overlay"),
            target,
            Some("overlay"),
            flags,
            Some(options),
        )
    };
    if is_initial_user_namespace() {
        return with(&options);
    }
    // Directories that replace others are marked by an attribute, which only
    // the machine's root may set unless it is one of the user's.
    with(&format!("{options},userxattr"))
        // Kernels before 5.11, as some distributions patched them.
        .or_else(|_| with(&options))
}

fn is_initial_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
