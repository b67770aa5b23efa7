//! The memory that a pod writes to, and making it full: as small as what is in it, so
//! that neither a page nor a file more fits (ENOSPC), until it is given back.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Mode, OFlags, fstatvfs},
    io::Errno,
    mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick},
};

/// How often what was written meanwhile may thwart a try.
const TRIES: u32 = 100;

/// A tmpfs that was made for a pod. Never one of the host's.
pub(crate) struct Memory {
    root: OwnedFd,
    /// What it had before it was full.
    whole: Option<Room>,
}

struct Room {
    bytes: u64,
    files: u64,
}

impl Memory {
    /// `root` is from [`open`].
    pub fn new(root: OwnedFd) -> Memory {
        Memory { root, whole: None }
    }

    /// Leaves no room. What is in it stays, and what is removed makes room again, as on
    /// any disk; one that is empty keeps a page, and no file to put it in.
    pub fn fill(&mut self) -> io::Result<()> {
        if self.whole.is_some() {
            return Ok(());
        }
        for _ in 0..TRIES {
            let found = fstatvfs(&self.root)?;
            // 0 would be no limit at all.
            let used = |all: u64, free: u64| all.saturating_sub(free).max(1);
            let rest = Room {
                bytes: used(found.f_blocks, found.f_bfree) * found.f_frsize,
                files: used(found.f_files, found.f_ffree),
            };
            match self.resize(&rest) {
                Ok(()) => {
                    self.whole = Some(Room {
                        bytes: found.f_blocks * found.f_frsize,
                        files: found.f_files,
                    });
                    return Ok(());
                }
                // Less than what is in it by now.
                Err(Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::BUSY.into())
    }

    /// Gives the room back.
    pub fn free(&mut self) -> io::Result<()> {
        if let Some(whole) = &self.whole {
            self.resize(whole)?;
            self.whole = None;
        }
        Ok(())
    }

    /// By descriptor: the mount may be in a namespace of its own, or covered.
    fn resize(&self, room: &Room) -> rustix::io::Result<()> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let context = fspick(&self.root, "", flags)?;
        fsconfig_set_string(&context, "size", room.bytes.to_string())?;
        fsconfig_set_string(&context, "nr_inodes", room.files.to_string())?;
        fsconfig_reconfigure(&context)
    }
}

/// Holds the file system at `path`, wherever it is seen or covered later.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
