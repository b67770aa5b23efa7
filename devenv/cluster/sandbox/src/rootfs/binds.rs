//! Host paths in a container's root, and what of them is hidden.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

use super::{NONE, Root, attach, detached, place::Kind};
use crate::{
    error::{Cause, Context, Failure},
    readonly::{make_read_only, remount_read_only},
    spec::{Access, Bind},
};

/// How a directory that covers a hidden one is mounted.
const COVER: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// A host path as a detached mount.
pub(super) struct Source {
    /// Without links.
    pub path: PathBuf,
    mount: OwnedFd,
    is_dir: bool,
}

impl Source {
    pub fn open(bind: &Bind) -> Result<Source, Failure> {
        let path = &bind.source;
        fs::metadata(path)
            .and_then(|metadata| {
                Ok(Source {
                    path: fs::canonicalize(path)?,
                    mount: detached(path)?,
                    is_dir: metadata.is_dir(),
                })
            })
            .step("open the source of a bind")
            .map_err(|failure| failure.about_bind(bind))
    }
}

/// Covers a hidden directory.
pub(super) struct Cover {
    place: PathBuf,
    device: u64,
}

impl Root {
    /// `begin` is the host directory where the container's program will start.
    pub(super) fn add_bind(
        &mut self,
        bind: &Bind,
        source: &Source,
        begin: &Path,
    ) -> Result<(), Failure> {
        let kind = if source.is_dir {
            Kind::Directory
        } else {
            Kind::File
        };
        let about = |failure: Failure| failure.about_bind(bind);
        let target = self
            .mount_point(&bind.target, kind)
            .step("bind")
            .map_err(about)?;
        if bind.access == Access::Overlay && source.is_dir {
            return self
                .add_layer(&source.path, &target, begin)
                .step("bind")
                .map_err(about);
        }
        attach(&source.mount, &target)
            .and_then(|()| match bind.access {
                Access::ReadWrite => Ok(()),
                Access::ReadOnly | Access::Overlay => make_read_only(std::slice::from_ref(&target)),
            })
            .step("bind")
            .map_err(about)?;
        self.hide_in(&source.path, &target)
            .step("hide a directory from a container")
    }

    /// Shows the mounts at and below `source` at `target`, read-only.
    pub(super) fn show_read_only(&self, source: &Path, target: &Path) -> io::Result<()> {
        attach(&detached(source)?, target)?;
        make_read_only(std::slice::from_ref(&target.to_owned()))
    }

    /// Covers what is to be hidden in the host's directory `source`, which
    /// appears at `target`.
    pub(super) fn hide_in(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        let inside = self.hidden.iter().filter_map(|hidden| {
            let rest = hidden.strip_prefix(source).ok()?;
            (!rest.as_os_str().is_empty()).then(|| target.join(rest))
        });
        for place in inside.collect::<Vec<_>>() {
            // The container has its own /tmp and /run, where it is not.
            if place.is_dir() {
                self.cover(&place)?;
            }
        }
        Ok(())
    }

    /// Puts an empty directory over `place`, writable until it is sealed:
    /// mount points may be needed in it.
    fn cover(&mut self, place: &Path) -> io::Result<()> {
        let (kind, mode) = (Some("tmpfs"), Some("mode=0755"));
        mount(Some("hidden"), place, kind, COVER, mode)?;
        let device = fs::metadata(place)?.dev();
        self.own.insert(device);
        self.covers.push(Cover {
            place: place.to_owned(),
            device,
        });
        Ok(())
    }

    /// Covers again what was covered at and below `target`, which something
    /// was mounted over.
    pub(super) fn cover_again(&mut self, target: &Path) -> io::Result<()> {
        let below = |cover: &&Cover| cover.place.starts_with(target);
        let places: Vec<_> = self
            .covers
            .iter()
            .filter(below)
            .map(|c| c.place.clone())
            .collect();
        places.iter().try_for_each(|place| self.cover(place))
    }

    /// Shows the container's directory `from`, with all that is mounted in it,
    /// at `target` as well.
    pub(super) fn show_again(&mut self, from: &Path, target: &Path) -> io::Result<()> {
        mount(
            Some(from),
            target,
            NONE,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            NONE,
        )?;
        // The covers came along as mounts of their own, to be sealed as well.
        let copies: Vec<_> = self
            .covers
            .iter()
            .filter_map(|cover| {
                let rest = cover.place.strip_prefix(from).ok()?;
                Some(Cover {
                    place: target.join(rest),
                    device: cover.device,
                })
            })
            .collect();
        self.covers.extend(copies);
        Ok(())
    }

    pub(super) fn seal_covers(&self) -> Result<(), Failure> {
        for Cover { place, device } in &self.covers {
            // A bind may have come over it.
            if fs::metadata(place).is_ok_and(|found| found.dev() == *device) {
                remount_read_only(place, COVER).step("seal a hidden directory")?;
            }
        }
        Ok(())
    }
}

impl Failure {
    fn about_bind(self, bind: &Bind) -> Failure {
        let (from, target) = (bind.source.clone(), bind.target.clone());
        Failure {
            cause: Cause::Bind { from, target },
            errno: self.errno,
        }
    }
}
