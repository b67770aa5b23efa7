//! The built page in memory. A build that runs beside the server empties and refills the folder; the
//! running version must go on showing its own, whole page meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use axum::body::Bytes;

/// A page larger than this is another folder given by mistake.
const MAX_BYTES: u64 = 64 << 20;

/// The files of a built page by their URL path.
#[derive(Debug, Clone)]
pub struct Site {
    files: BTreeMap<String, File>,
}

#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: &'static str,
    /// Quoted, as it stands in the header.
    pub(crate) etag: String,
}

/// Why there is no page to serve.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The page has not been built, or lies elsewhere.
    #[error(
        "there is no built page in {}: index.html is missing; build it with `npm --prefix services/frontend/web ci && npm --prefix services/frontend/web run build`, or set STATIC_DIR to where it lies",
        dir.display()
    )]
    NotBuilt {
        /// The folder that was looked into.
        dir: PathBuf,
    },
    /// A file of it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It is not a page.
    #[error("{} holds more than 64 MiB, which is no built page; set STATIC_DIR to the folder that `npm run build` made", dir.display())]
    TooLarge {
        /// The folder.
        dir: PathBuf,
    },
}

impl Site {
    /// Reads all files below `dir`; hidden ones and links are left out.
    ///
    /// # Errors
    /// When there is no `index.html`, a file cannot be read, or there is too much.
    pub fn load(dir: &Path) -> Result<Site, SiteError> {
        if !dir.join("index.html").is_file() {
            return Err(SiteError::NotBuilt {
                dir: dir.to_owned(),
            });
        }
        let mut site = Site {
            files: BTreeMap::new(),
        };
        let mut room = MAX_BYTES;
        let mut folders = vec![(dir.to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            let failed = |path: &Path| {
                let path = path.to_owned();
                move |source| SiteError::Read { path, source }
            };
            for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
                let entry = entry.map_err(failed(&folder))?;
                let path = entry.path();
                let kind = entry.file_type().map_err(failed(&path))?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                    continue;
                };
                if name.starts_with('.') {
                    continue;
                }
                let url = format!("{prefix}/{name}");
                if kind.is_dir() {
                    folders.push((path, url));
                } else if kind.is_file() {
                    let length = entry.metadata().map_err(failed(&path))?.len();
                    room = room
                        .checked_sub(length)
                        .ok_or_else(|| SiteError::TooLarge {
                            dir: dir.to_owned(),
                        })?;
                    site.files.insert(
                        url,
                        File::new(&name, fs::read(&path).map_err(failed(&path))?),
                    );
                }
            }
        }
        Ok(site)
    }

    /// How many files there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none, which [`load`](Self::load) does not let happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What lies at a URL path; `/` is the page itself.
    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files
            .get(if path == "/" { "/index.html" } else { path })
    }
}

impl File {
    fn new(name: &str, bytes: Vec<u8>) -> File {
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        File {
            content_type: content_type(name),
            etag: format!("\"{:016x}\"", hasher.finish()),
            bytes: Bytes::from(bytes),
        }
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map" | "webmanifest") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("webp") => "image/webp",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
