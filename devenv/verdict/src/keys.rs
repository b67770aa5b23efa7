//! The keys that verdicts are signed with.
//!
//! A signature says which machine's run it was, and that nobody edited the verdict by
//! mistake. It guards against accidents and not against malice: whoever can run devenv as
//! its user can sign anything.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::owner;

/// What the text form of a public key begins with.
const PUBLIC: &str = "devenv-ed25519:";
/// What the contents of a key's file begin with, so that nobody takes it for the other.
const SECRET: &str = "devenv-ed25519-secret:";
/// The name of the key's file in the configuration folder.
const FILE: &str = "signing-key";

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no home folder to keep it in.
    #[error(
        "there is no folder to keep the signing key in: neither XDG_CONFIG_HOME nor HOME names one"
    )]
    NoHome,
    /// Others could sign with it.
    #[error("the signing key {} can be read by others (mode {mode:04o}): `chmod 600 {}`", path.display(), quoted(path))]
    Readable {
        /// The key's file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It would be committed sooner or later.
    #[error("the signing key {} lies inside the project {}: a key never goes into a repository; set XDG_CONFIG_HOME to a folder outside", path.display(), project.display())]
    InProject {
        /// The key's file.
        path: PathBuf,
        /// The project's folder.
        project: PathBuf,
    },
    /// The file holds something else.
    #[error("{} is no signing key (expected `{SECRET}` and 32 bytes in base64): move it away, and a new one is made", path.display())]
    Damaged {
        /// The key's file.
        path: PathBuf,
    },
    /// The file system.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

fn quoted(path: &Path) -> String {
    devenv_model::Command::Argv(vec![path.display().to_string()]).to_string()
}

/// A key that signatures are checked with; as text `devenv-ed25519:BASE64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Whether `signature` is this key's for exactly these bytes.
    pub(crate) fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|s| self.0.verify_strict(bytes, &s).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", BASE64_STANDARD.encode(self.0.as_bytes()))
    }
}

/// A text that is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no public key (expected `{PUBLIC}` and 32 bytes in base64)")]
pub struct NoPublicKey(pub String);

impl FromStr for PublicKey {
    type Err = NoPublicKey;

    fn from_str(text: &str) -> Result<Self, NoPublicKey> {
        text.strip_prefix(PUBLIC)
            .and_then(bytes_of)
            .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
            .map(Self)
            .ok_or_else(|| NoPublicKey(text.to_owned()))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

fn bytes_of(base64: &str) -> Option<[u8; 32]> {
    BASE64_STANDARD.decode(base64).ok()?.try_into().ok()
}

/// A key to sign with.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    path: PathBuf,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl SigningKey {
    /// The user's key, in `$XDG_CONFIG_HOME/devenv` or `~/.config/devenv`; made when there
    /// is none. `project` is the folder that it must not lie in.
    ///
    /// # Errors
    /// When there is none and none can be made, and when the one that is there could be
    /// used by others.
    pub fn of_user(project: &Path) -> Result<Self, KeyError> {
        let home = etcetera::base_strategy::Xdg::new().map_err(|_| KeyError::NoHome)?;
        Self::in_folder(&home.config_dir().join("devenv"), project)
    }

    /// As [`Self::of_user`], in a configuration folder of one's choice.
    ///
    /// # Errors
    /// As [`Self::of_user`].
    pub fn in_folder(folder: &Path, project: &Path) -> Result<Self, KeyError> {
        let path = folder.join(FILE);
        outside(&path, project)?;
        match read(&path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        make(folder, &path)?;
        // Whoever was first: two runs may begin at the same time.
        read(&path)
    }

    /// The key that checks its signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key())
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }
}

/// Refuses a path in the project, however it is written.
fn outside(path: &Path, project: &Path) -> Result<(), KeyError> {
    let real = |p: &Path| {
        // Of what isn't there yet, the nearest folder that is.
        p.ancestors()
            .find_map(|a| Some((a.canonicalize().ok()?, p.strip_prefix(a).ok()?)))
            .map_or_else(|| p.to_owned(), |(there, rest)| there.join(rest))
    };
    let (path, project) = (real(path), real(project));
    if path.starts_with(&project) {
        return Err(KeyError::InProject { path, project });
    }
    Ok(())
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { what, path, source }
}

fn read(path: &Path) -> Result<SigningKey, KeyError> {
    let read_error = |e| io_error("read the signing key", path)(e);
    let meta = fs::metadata(path).map_err(read_error)?;
    let mode = meta.mode() & 0o777;
    if meta.is_file() && mode & 0o077 != 0 {
        return Err(KeyError::Readable {
            path: path.to_owned(),
            mode,
        });
    }
    let damaged = || KeyError::Damaged {
        path: path.to_owned(),
    };
    if !meta.is_file() || meta.len() > 1024 {
        return Err(damaged());
    }
    let text = match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(damaged()),
        other => other.map_err(read_error)?,
    };
    let seed = text.trim().strip_prefix(SECRET).and_then(bytes_of);
    Ok(SigningKey {
        key: ed25519_dalek::SigningKey::from_bytes(&seed.ok_or_else(damaged)?),
        path: path.to_owned(),
    })
}

/// Makes a key, whole or not at all; another that is made meanwhile stays.
fn make(folder: &Path, path: &Path) -> Result<(), KeyError> {
    let write_error = |e| io_error("write the signing key", path)(e);
    let made = owner::missing(folder);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(io_error("make the folder", folder))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(write_error)?;
    let text = format!(
        "{SECRET}{}\n",
        BASE64_STANDARD.encode(rand::random::<[u8; 32]>())
    );
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .map_err(write_error)?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(write_error(e.error)),
    }
    for path in made.iter().map(PathBuf::as_path).chain([path]) {
        owner::hand_over(path).map_err(io_error("give to its owner", path))?;
    }
    Ok(())
}
