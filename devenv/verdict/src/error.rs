//! Why a tree can't be looked at.

use std::{io, path::PathBuf};

/// Why it can't be said what a verdict would cover.
#[derive(Debug, thiserror::Error)]
pub enum CoverageError {
    /// A folder can't be listed.
    #[error("can't list the files in {}", path.display())]
    Walk {
        /// The folder.
        path: PathBuf,
        /// What came in between, naming the path.
        #[source]
        source: ignore::Error,
    },
    /// A file can't be read.
    #[error("can't read {}, which a verdict covers", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// An image without a digest.
    #[error(
        "no digest is known of the image {image}: at level `image` each one that a workload uses needs one"
    )]
    Undigested {
        /// As the manifest writes it.
        image: String,
    },
    /// Digests can't be told.
    #[error("the digest of the image {image} can't be told: {reason}")]
    Digest {
        /// As the manifest writes it.
        image: String,
        /// Why.
        reason: String,
    },
}
