//! Writing a container's log.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tracing::warn;

use super::{Progress, ROTATE_AT};
use crate::pod::runtime::Output;

/// Text longer than this is written in parts, so that no line needs more memory.
const LINE_PART: usize = 16 << 10;

/// The file of one run.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    progress: Progress,
    progress_tx: watch::Sender<Progress>,
    entry: Vec<u8>,
    broken: bool,
}

impl LogFile {
    pub(super) fn create(path: &Path, progress_tx: watch::Sender<Progress>) -> io::Result<LogFile> {
        let file = File::create(path)?;
        let progress = Progress::default();
        Ok(LogFile {
            path: path.to_owned(),
            file,
            progress,
            progress_tx,
            entry: Vec::new(),
            broken: false,
        })
    }

    /// Writes lines (or parts of lines) as they came.
    pub(super) fn write(&mut self, stream: &str, text: &[u8], whole: bool, at: Timestamp) {
        self.entry
            .extend_from_slice(at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string().as_bytes());
        self.entry.push(b' ');
        self.entry.extend_from_slice(stream.as_bytes());
        self.entry
            .extend_from_slice(if whole { b" F " } else { b" P " });
        self.entry.extend_from_slice(text);
        self.entry.push(b'\n');
    }

    /// Hands what was written to the system and to those who follow.
    pub(super) fn flush(&mut self) {
        if self.entry.is_empty() {
            return;
        }
        if let Err(error) = self.try_flush()
            && !std::mem::replace(&mut self.broken, true)
        {
            // The container goes on without a log: said once.
            warn!(path = %self.path.display(), error = &error as &dyn std::error::Error, "a container's log cannot be written");
        }
        self.entry.clear();
        self.entry.shrink_to(LINE_PART * 2);
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let len = self.entry.len() as u64;
        if self.progress.len > 0 && self.progress.len + len > ROTATE_AT {
            std::fs::rename(&self.path, rotated(&self.path))?;
            self.file = File::create(&self.path)?;
            self.progress.rotations += 1;
            self.progress.len = 0;
        }
        self.file.write_all(&self.entry)?;
        self.progress.len += len;
        self.progress_tx.send_replace(self.progress);
        Ok(())
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.flush();
        self.progress.ended = true;
        self.progress_tx.send_replace(self.progress);
    }
}

/// Where the older half of a log is.
pub(super) fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

pub(super) fn remove(path: &Path) {
    for path in [path.to_owned(), rotated(path)] {
        // What is not there or cannot be removed goes with the pod's folder.
        let _ = std::fs::remove_file(path);
    }
}

/// Writes both streams until both ended.
pub(super) async fn pump(mut file: LogFile, mut stdout: Output, mut stderr: Output) {
    let (mut out, mut err) = (Lines::new("stdout"), Lines::new("stderr"));
    while out.open || err.open {
        tokio::select! {
            () = out.fill(&mut stdout), if out.open => out.drain(&mut file),
            () = err.fill(&mut stderr), if err.open => err.drain(&mut file),
        }
        file.flush();
    }
}

/// Cuts one stream into lines.
struct Lines {
    stream: &'static str,
    buffer: Vec<u8>,
    open: bool,
}

impl Lines {
    fn new(stream: &'static str) -> Lines {
        Lines {
            stream,
            buffer: Vec::new(),
            open: true,
        }
    }

    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) {
        // Grows with use and is given back when empty: most containers are silent most of the time.
        self.buffer.reserve(4096);
        match from.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => self.open = false,
            Ok(_) => {}
        }
    }

    fn drain(&mut self, file: &mut LogFile) {
        let at = Timestamp::now();
        let mut start = 0;
        while let Some(end) = self.buffer[start..].iter().position(|b| *b == b'\n') {
            file.write(self.stream, &self.buffer[start..start + end], true, at);
            start += end + 1;
        }
        while self.buffer.len() - start >= LINE_PART {
            file.write(
                self.stream,
                &self.buffer[start..start + LINE_PART],
                false,
                at,
            );
            start += LINE_PART;
        }
        if !self.open && start < self.buffer.len() {
            file.write(self.stream, &self.buffer[start..], true, at);
            start = self.buffer.len();
        }
        self.buffer.drain(..start);
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
    }
}
