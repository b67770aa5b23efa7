//! Where the API gets the logs of containers from.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use hyper::body::Bytes;

/// What a `GET …/pods/NAME/log` asks for; the defaults of Kubernetes are those of `Default`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Container; `None` when the pod has only one, or its default container is wanted.
    pub container: Option<String>,
    /// Go on with what is written from now on, until the container ends.
    pub follow: bool,
    /// Only the last lines; `None` for all.
    pub tail_lines: Option<i64>,
    /// Only lines written since.
    pub since: Option<jiff::Timestamp>,
    /// Each line begins with its RFC 3339 time and a space.
    pub timestamps: bool,
    /// The container's run before the present one.
    pub previous: bool,
    /// End after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why there is no log to show.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No such pod.
    #[error("pods \"{pod}\" not found")]
    PodNotFound {
        /// Name that was asked for.
        pod: String,
    },
    /// The request cannot be answered now: the container is not there, has not started or never
    /// ended before. The message is shown as it is, in Kubernetes' own words where it has some, such
    /// as `container zz is not valid for pod dd` or
    /// `previous terminated container "c" in pod "p" not found`.
    #[error("{0}")]
    BadRequest(String),
    /// The log cannot be read.
    #[error("the log of pod {pod} cannot be read")]
    Io {
        /// Name of the pod.
        pod: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Reads the logs of containers; implemented by whatever runs the pods.
#[async_trait]
pub trait LogSource: Send + Sync {
    /// The log as the query wants it, line ends included, in chunks of any size. A stream that
    /// follows ends when the container does; dropping it stops the following.
    ///
    /// # Errors
    /// See [`LogError`].
    async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Bytes>, LogError>;
}
