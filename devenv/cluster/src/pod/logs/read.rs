//! Reading a container's log, whole or as it grows.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use hyper::body::Bytes;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

use super::write::rotated;
use super::{LogQuery, Progress};

/// How much is gathered before it is sent.
const CHUNK: usize = 32 << 10;

/// Streams a log as the query wants it.
pub(super) async fn stream(
    path: PathBuf,
    progress_rx: watch::Receiver<Progress>,
    query: LogQuery,
) -> io::Result<BoxStream<'static, Bytes>> {
    let mut reader = Reader::open(path, progress_rx).await?;
    let mut first = VecDeque::new();
    if let Some(tail) = query.tail_lines.filter(|n| *n >= 0) {
        // The tail is known only at the end: the lines before it pass by.
        let tail = usize::try_from(tail).unwrap_or(usize::MAX);
        let mut pieces = 0;
        while let Some(entry) = reader.next_now().await? {
            pieces += usize::from(entry.whole);
            first.push_back(entry);
            while pieces > tail
                && let Some(dropped) = first.pop_front()
            {
                pieces -= usize::from(dropped.whole);
            }
        }
    }
    let state = State {
        reader,
        first,
        left: query.limit_bytes,
        begins: true,
        query,
        done: false,
    };
    let chunks = stream::unfold(state, |mut state| async move {
        state.chunk().await.map(|bytes| (bytes, state))
    });
    Ok(chunks.boxed())
}

struct State {
    reader: Reader,
    first: VecDeque<Entry>,
    query: LogQuery,
    left: Option<u64>,
    /// Whether the next entry begins a line.
    begins: bool,
    done: bool,
}

impl State {
    /// The next bytes; waits for them when following.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while !self.done && out.len() < CHUNK {
            let next = match self.first.pop_front() {
                Some(entry) => Ok(Some(entry)),
                None => self.reader.next_now().await,
            };
            match next {
                Ok(Some(entry)) => self.add(entry, &mut out),
                Ok(None) if !out.is_empty() => break,
                Ok(None) if self.query.follow && self.reader.wait().await => {}
                // A log that can no longer be read (its pod went) ends.
                Ok(None) | Err(_) => self.done = true,
            }
        }
        (!out.is_empty()).then(|| Bytes::from(out))
    }

    fn add(&mut self, entry: Entry, out: &mut Vec<u8>) {
        if self.query.since.is_some_and(|since| entry.at < since) {
            return;
        }
        let before = out.len();
        if self.query.timestamps && self.begins {
            out.extend_from_slice(
                entry
                    .at
                    .strftime("%Y-%m-%dT%H:%M:%S.%9fZ ")
                    .to_string()
                    .as_bytes(),
            );
        }
        out.extend_from_slice(&entry.text);
        if entry.whole {
            out.push(b'\n');
        }
        self.begins = entry.whole;
        if let Some(left) = &mut self.left {
            let added = (out.len() - before) as u64;
            if added >= *left {
                // It fits: it is less than what was just added.
                out.truncate(before + *left as usize);
                self.done = true;
            }
            *left = left.saturating_sub(added);
        }
    }
}

/// One written piece.
struct Entry {
    at: Timestamp,
    text: Vec<u8>,
    whole: bool,
}

/// Reads entries across the rotation.
struct Reader {
    path: PathBuf,
    progress_rx: watch::Receiver<Progress>,
    file: BufReader<File>,
    /// The rotation during which the file that is read was the present one.
    rotation: u64,
    read: u64,
    line: Vec<u8>,
}

impl Reader {
    async fn open(path: PathBuf, progress_rx: watch::Receiver<Progress>) -> io::Result<Reader> {
        // The writer may rotate between the look and the opening: then it is looked at again.
        loop {
            let rotations = progress_rx.borrow().rotations;
            let (from, rotation) = if rotations > 0 {
                (rotated(&path), rotations - 1)
            } else {
                (path.clone(), 0)
            };
            let file = open(&from).await?;
            if progress_rx.borrow().rotations == rotations {
                return Ok(Reader {
                    path,
                    progress_rx,
                    file,
                    rotation,
                    read: 0,
                    line: Vec::new(),
                });
            }
        }
    }

    /// The next entry if it is written already.
    async fn next_now(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let read = self.file.read_until(b'\n', &mut self.line).await?;
            self.read += read as u64;
            if self.line.last() == Some(&b'\n') {
                let entry = parse(&self.line);
                self.line.clear();
                match entry {
                    Some(entry) => return Ok(Some(entry)),
                    None => continue,
                }
            }
            if read > 0 {
                continue;
            }
            let progress = *self.progress_rx.borrow();
            if progress.rotations == self.rotation {
                return Ok(None);
            }
            // This file is closed and read to its end. Should more than one rotation lie between, what is gone is gone.
            self.line.clear();
            let behind = progress.rotations > self.rotation + 1;
            let (from, rotation) = if behind {
                (rotated(&self.path), progress.rotations - 1)
            } else {
                (self.path.clone(), self.rotation + 1)
            };
            self.file = open(&from).await?;
            self.rotation = rotation;
            self.read = 0;
        }
    }

    /// Waits until there is more; false when nothing more will come.
    async fn wait(&mut self) -> bool {
        let (rotation, read) = (self.rotation, self.read);
        let more = |p: &Progress| p.rotations != rotation || p.len > read;
        // Without a writer there is what there is.
        let _ = self.progress_rx.wait_for(|p| more(p) || p.ended).await;
        let progress = *self.progress_rx.borrow();
        more(&progress)
    }
}

async fn open(path: &Path) -> io::Result<BufReader<File>> {
    Ok(BufReader::with_capacity(8 << 10, File::open(path).await?))
}

fn parse(line: &[u8]) -> Option<Entry> {
    let line = line.strip_suffix(b"\n")?;
    let mut parts = line.splitn(4, |b| *b == b' ');
    let at = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let _stream = parts.next()?;
    let whole = parts.next()? == b"F";
    Some(Entry {
        at,
        text: parts.next()?.to_vec(),
        whole,
    })
}
