//! The context of a build, as the archive that an engine takes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use devenv_model::ContainerBuild;
use futures_util::Stream;
use tokio::sync::mpsc;

use super::ignored::Ignored;

/// The file that makes a folder devenv's state.
const STATE: &str = ".devenv-gke-state";
/// Where the Dockerfile is in the archive when it lies outside the context.
const OUTSIDE: &str = ".devenv.Dockerfile";
/// Pieces of the archive that wait for the engine.
const PIECES: usize = 16;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// When files were changed, in seconds and nanoseconds, and their sizes.
pub type Stamps = BTreeMap<PathBuf, (i64, i64, u64)>;

fn stamp(files: &mut Stamps, file: PathBuf) -> io::Result<()> {
    match fs::symlink_metadata(&file) {
        Ok(stat) => {
            let stamp = (stat.mtime(), stat.mtime_nsec(), stat.len());
            files.insert(file, stamp);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is sent.
#[derive(Debug)]
pub(super) struct Context {
    dir: PathBuf,
    ignored: Ignored,
    /// The Dockerfile's path in the archive,
    dockerfile: String,
    /// and where it lies.
    source: PathBuf,
}

impl Context {
    /// Reads which files count.
    ///
    /// # Errors
    /// When that can't be read.
    pub(super) fn of(build: &ContainerBuild) -> io::Result<Self> {
        let mut ignored = Ignored::default();
        for file in build.ignore_files() {
            match fs::read_to_string(&file) {
                Ok(text) => {
                    ignored = Ignored::parse(&text).map_err(|pattern| {
                        let said = format!("{}: {pattern:?} is no pattern", file.display());
                        io::Error::new(io::ErrorKind::InvalidData, said)
                    })?;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let within = build.dockerfile.strip_prefix(&build.context).ok();
        let dockerfile = within.and_then(Path::to_str).unwrap_or(OUTSIDE);
        Ok(Self {
            dir: build.context.clone(),
            ignored,
            dockerfile: dockerfile.to_owned(),
            source: build.dockerfile.clone(),
        })
    }

    /// The Dockerfile's path in the archive.
    pub(super) fn dockerfile(&self) -> &str {
        &self.dockerfile
    }

    /// Whether a file of the context is left out of it.
    pub(super) fn leaves_out(&self, file: &Path) -> bool {
        let path = file.strip_prefix(&self.dir).ok().and_then(Path::to_str);
        path.is_some_and(|path| self.ignored.matches(path))
    }

    /// The files that decide what comes of a build, each with when it was changed and how
    /// large it is: those of the context, the Dockerfile, and what is left out.
    ///
    /// # Errors
    /// When a folder can't be read.
    pub(super) fn files(&self, build: &ContainerBuild) -> io::Result<Stamps> {
        let mut files = Stamps::new();
        self.list(&self.dir, "", &mut files)?;
        for file in build
            .ignore_files()
            .into_iter()
            .chain([self.source.clone()])
        {
            stamp(&mut files, file)?;
        }
        Ok(files)
    }

    fn list(&self, dir: &Path, below: &str, files: &mut Stamps) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?.collect::<io::Result<Vec<_>>>()?,
        };
        if entries.iter().any(|entry| entry.file_name() == STATE) {
            return Ok(());
        }
        for entry in entries {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = format!("{below}{name}");
            let ignored = self.ignored.matches(&path);
            if entry.file_type()?.is_dir() {
                if !ignored || self.ignored.takes_back_below(&path) {
                    self.list(&entry.path(), &format!("{path}/"), files)?;
                }
            } else if !ignored {
                stamp(files, entry.path())?;
            }
        }
        Ok(())
    }

    /// The archive, made while it is read.
    pub(super) fn archive(self) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
        let (piece_tx, mut piece_rx) = mpsc::channel::<io::Result<Vec<u8>>>(PIECES);
        tokio::task::spawn_blocking(move || {
            let pieces = Pieces {
                piece_tx: piece_tx.clone(),
            };
            let out = io::BufWriter::with_capacity(PIECE, pieces);
            if let Err(error) = self.write(out) {
                // The engine hung up, then, and says why.
                let _ = piece_tx.blocking_send(Err(error));
            }
        });
        futures_util::stream::poll_fn(move |cx| piece_rx.poll_recv(cx))
    }

    fn write(&self, out: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(out);
        archive.follow_symlinks(false);
        // Ages and owners are no contents: the engine's cache goes by them.
        archive.mode(tar::HeaderMode::Deterministic);
        archive.append_path_with_name(&self.source, &self.dockerfile)?;
        self.add(&mut archive, &self.dir, "")?;
        archive.into_inner()?.flush()
    }

    fn add(
        &self,
        archive: &mut tar::Builder<impl Write>,
        dir: &Path,
        below: &str,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            // A folder that was there a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
        // Passwords and a database: devenv's own folder is in no image.
        if entries.iter().any(|entry| entry.file_name() == STATE) {
            return Ok(());
        }
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            // What has no name in UTF-8 can't be copied by a Dockerfile either.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = format!("{below}{name}");
            let ignored = self.ignored.matches(&path);
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !ignored {
                    let mut header = tar::Header::new_gnu();
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    archive.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                if !ignored || self.ignored.takes_back_below(&path) {
                    self.add(archive, &entry.path(), &format!("{path}/"))?;
                }
            } else if (kind.is_file() || kind.is_symlink()) && !ignored && path != self.dockerfile {
                match archive.append_path_with_name(entry.path(), &path) {
                    // An editor's file that was there a moment ago.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    appended => appended?,
                }
            }
        }
        Ok(())
    }
}

struct Pieces {
    piece_tx: mpsc::Sender<io::Result<Vec<u8>>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.piece_tx.blocking_send(Ok(bytes.to_vec()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    async fn names(build: &ContainerBuild) -> Vec<String> {
        let pieces: Vec<Vec<u8>> = Context::of(build)
            .expect("readable")
            .archive()
            .try_collect()
            .await
            .expect("whole");
        let bytes = pieces.concat();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().expect("an archive");
        entries
            .map(|entry| {
                entry
                    .expect("whole")
                    .path()
                    .expect("a path")
                    .display()
                    .to_string()
            })
            .collect()
    }

    #[tokio::test]
    async fn what_counts_is_sent_and_the_dockerfile_in_any_case() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("app/Dockerfile", "FROM x");
        write("app/.dockerignore", "**\n!src\n**/*.pyc");
        write("app/src/a.py", "1");
        write("app/src/a.pyc", "2");
        write("app/secret", "3");
        write("other/Dockerfile", "FROM y");
        std::os::unix::fs::symlink("a.py", dir.path().join("app/src/link")).expect("made");
        // What devenv keeps beside the sources.
        write("app/src/.devenv/.devenv-gke-state", "");
        write("app/src/.devenv/secrets/cloudsql", "a password");
        let mut build = ContainerBuild {
            dockerfile: dir.path().join("app/Dockerfile"),
            context: dir.path().join("app"),
            target: None,
            args: BTreeMap::new(),
            sync: Vec::new(),
            sync_builds: false,
        };
        assert_eq!(
            names(&build).await,
            ["Dockerfile", "src/", "src/.devenv/", "src/a.py", "src/link"]
        );
        build.dockerfile = dir.path().join("other/Dockerfile");
        assert_eq!(names(&build).await[0], OUTSIDE);
        // Its own file counts instead of the context's.
        write("other/Dockerfile.dockerignore", "src");
        let sent = names(&build).await;
        assert!(sent.iter().any(|n| n == "secret"), "{sent:?}");
        assert!(!sent.iter().any(|n| n.starts_with("src")), "{sent:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let build = ContainerBuild {
            dockerfile: dir.path().join("Dockerfile"),
            context: dir.path().to_owned(),
            target: None,
            args: BTreeMap::new(),
            sync: Vec::new(),
            sync_builds: false,
        };
        let pieces = Context::of(&build).expect("no patterns").archive();
        let error = pieces
            .try_collect::<Vec<_>>()
            .await
            .expect_err("no Dockerfile");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
