//! One inotify instance.
//!
//! Asked for directly and not through `notify`, whose watches (8.2) always include
//! `IN_OPEN`: every file that a compiler, `grep` or `git status` opens would be an
//! event, and one walk over a big tree overflows the kernel's queue.

use std::{
    ffi::{OsStr, OsString},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

/// Names come and go: what a folder on the way to an input is watched for.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);

/// And contents and attributes change. Reads are no events.
const CONTENTS: WatchFlags = NAMES
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    // A file that was deleted while a program holds it open has no name any more.
    .union(WatchFlags::EXCL_UNLINK);

/// Room for some hundred events in one read.
const BUFFER: usize = 32 * 1024;

/// What happened to a name in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It appeared: created, or moved here (perhaps over what was there).
    Came {
        /// Nothing of this name was there before.
        new: bool,
    },
    /// It was deleted, or moved away with all that is in it.
    Gone { moved: bool },
    /// Somebody is writing to it.
    Writing,
    /// It was written to and closed, or its attributes changed.
    Changed,
}

/// An event as the kernel tells it.
#[derive(Debug)]
pub(crate) enum Told {
    /// Something happened in the folder of this watch.
    Name {
        watch: i32,
        name: OsString,
        is_dir: bool,
        what: What,
    },
    /// The folder is gone, and so is its watch.
    Ended { watch: i32 },
    /// Not everything was told: the queue was full, or a filesystem is gone.
    Lost,
}

/// Why a folder has no watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The user has no more watches (`fs.inotify.max_user_watches`).
    Limit,
    /// It isn't there, or isn't a folder.
    Gone,
    /// It may not be read.
    Other(Errno),
}

/// The kernel's queue of events.
#[derive(Debug)]
pub(crate) struct Queue {
    fd: OwnedFd,
}

impl Queue {
    /// Makes one; fails with `EMFILE` at `fs.inotify.max_user_instances`.
    pub(crate) fn new() -> Result<Self, Errno> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd })
    }

    /// What to poll until there is something to read.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Watches a folder. The same folder by another name gives the same number.
    pub(crate) fn watch(&self, folder: &Path, contents: bool) -> Result<i32, Refused> {
        let flags = if contents { CONTENTS } else { NAMES };
        inotify::add_watch(&self.fd, folder, flags).map_err(|e| match e {
            Errno::NOSPC => Refused::Limit,
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Refused::Gone,
            e => Refused::Other(e),
        })
    }

    /// Ends a watch. One that the kernel has ended already is no error.
    pub(crate) fn unwatch(&self, watch: i32) {
        if let Err(e) = inotify::remove_watch(&self.fd, watch) {
            tracing::trace!(watch, error = %e, "the watch has ended already");
        }
    }

    /// Appends some of the events that wait. False: there were no more.
    pub(crate) fn read(&self, events: &mut Vec<Told>) -> Result<bool, Errno> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => events.extend(told(&event)),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e),
            }
            if reader.is_buffer_empty() {
                return Ok(true);
            }
        }
    }
}

/// `None`: about the folder itself, where its parent tells what matters.
fn told(event: &inotify::Event<'_>) -> Option<Told> {
    let flags = event.events();
    // What a filesystem that is unmounted has hidden is there instead, unwatched.
    if flags.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
        return Some(Told::Lost);
    }
    let watch = event.wd();
    if flags.contains(ReadFlags::IGNORED) {
        return Some(Told::Ended { watch });
    }
    Some(Told::Name {
        watch,
        name: OsStr::from_bytes(event.file_name()?.to_bytes()).to_owned(),
        is_dir: flags.contains(ReadFlags::ISDIR),
        what: what(flags)?,
    })
}

fn what(flags: ReadFlags) -> Option<What> {
    if flags.contains(ReadFlags::CREATE) {
        Some(What::Came { new: true })
    } else if flags.contains(ReadFlags::MOVED_TO) {
        Some(What::Came { new: false })
    } else if flags.contains(ReadFlags::MOVED_FROM) {
        Some(What::Gone { moved: true })
    } else if flags.contains(ReadFlags::DELETE) {
        Some(What::Gone { moved: false })
    } else if flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB) {
        Some(What::Changed)
    } else if flags.contains(ReadFlags::MODIFY) {
        Some(What::Writing)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
