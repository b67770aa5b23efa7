//! What can keep a run from starting. Failures of single requests are no errors: they are counted.

use std::io;
use std::path::PathBuf;

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrafficError {
    /// The base URL is not one this sender can use.
    #[error(
        "`{url}` is no address to send records to: {reason}; expected something like http://127.0.0.1:8080"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The host of the base URL has no address.
    #[error(
        "the host `{host}` has no address; check the name, or take the URL that `devenv url ingress` prints"
    )]
    Resolve {
        /// The host as written in the URL.
        host: String,
        /// What the resolver said, where it said anything.
        #[source]
        source: Option<io::Error>,
    },
    /// Nothing accepts connections there.
    #[error(
        "nothing accepts connections at {url}; start the system with `devenv up`, or take the URL that `devenv url ingress` prints"
    )]
    Unreachable {
        /// The base URL.
        url: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A value of [`Options`](crate::Options) makes no sense.
    #[error("{option} is {value}, expected {expected}")]
    Option {
        /// The option, by its name in [`Options`](crate::Options).
        option: &'static str,
        /// What was given.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
    /// A file of `/proc` could not be read.
    #[error("cannot read {}; real records need Linux's /proc, elsewhere send a JSON file of records", path.display())]
    Proc {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file of `/proc` does not say what Linux's documentation says that it says.
    #[error("{} has no usable `{field}`", path.display())]
    ProcField {
        /// The file.
        path: PathBuf,
        /// The missing or malformed line.
        field: &'static str,
    },
    /// The file of records could not be read.
    #[error("cannot read the records in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file of records is not JSON.
    #[error("{} is not JSON; expected an array of records, one record, or one record a line", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The file is JSON, but holds no records.
    #[error("{}: {reason}; expected an array of records, one record, or one record a line", path.display())]
    Records {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
