//! Why an image could not be built.

use std::path::PathBuf;

use devenv_platform::{containers::BuildFailed, host::HostError};

use crate::{state::StateError, venv::VenvError};

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The right to build.
    #[error(transparent)]
    State(#[from] StateError),
    /// The command ran and failed.
    #[error("building {images} failed: `{command}` ended with {status}")]
    Failed {
        /// The images that the command builds.
        images: String,
        /// The command as written.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it printed, both outputs as they came. It is no part of the
        /// message: whoever saw it come must not see it again.
        output: String,
    },
    /// The command could not be run.
    #[error("building {images} failed: `{command}` could not be run in {}", dir.display())]
    Start {
        /// The images that the command builds.
        images: String,
        /// The command as written.
        command: String,
        /// Where.
        dir: PathBuf,
        /// The answer.
        #[source]
        source: Box<HostError>,
    },
    /// The image that pods run in containers from.
    #[error(transparent)]
    Container(#[from] BuildFailed),
    /// The virtual environment.
    #[error("installing what {image} needs failed")]
    Venv {
        /// The image.
        image: String,
        /// Why.
        #[source]
        source: Box<VenvError>,
    },
    /// What the build should have made is not there.
    #[error("{origin}: {image} has no program to run: {} does not exist{hint}", program.display())]
    NoProgram {
        /// Where devenv.toml says so.
        origin: String,
        /// The image.
        image: String,
        /// What devenv.toml says is run.
        program: PathBuf,
        /// What to do.
        hint: String,
    },
    /// The sources can't be read.
    #[error("can't read the sources of {image}")]
    Sources {
        /// The image.
        image: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl BuildError {
    /// What the failed command printed, if it printed anything.
    pub fn output(&self) -> Option<&str> {
        match self {
            Self::Failed { output, .. } if !output.is_empty() => Some(output),
            Self::Container(failed) => failed.output(),
            _ => None,
        }
    }
}
