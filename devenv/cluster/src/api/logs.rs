//! Where the API gets the logs of containers from.

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::BoxStream};
use http::Response;
use hyper::body::Bytes;
use serde_json::Value;

use super::{
    Context,
    body::{self, ApiBody},
    call::Call,
    route::Query,
    status::{self, Failure},
};
use crate::kinds;

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

impl From<LogError> for Failure {
    fn from(e: LogError) -> Failure {
        match &e {
            LogError::PodNotFound { pod } => Failure::not_found(&kinds::POD, pod),
            LogError::BadRequest(message) => Failure::bad_request(message),
            LogError::Io { .. } => Failure::internal(status::with_source(&e)),
        }
    }
}

/// GET of a pod's `/log`.
pub(super) async fn get(ctx: &Context, call: &Call) -> Result<Response<ApiBody>, Failure> {
    let (ns, name) = (call.namespace(), call.name());
    let pod = ctx
        .store
        .get(&kinds::POD, ns, name)
        .ok_or_else(|| Failure::not_found(&kinds::POD, name))?;
    let query = parse(&call.query, pod.value(), name, jiff::Timestamp::now())?;
    let lines = ctx.logs.logs(ns, name, query).await?;
    let closed = ctx.closing.clone().cancelled_owned();
    Ok(body::stream("text/plain", lines.take_until(closed)))
}

fn parse(
    query: &Query,
    pod: &Value,
    name: &str,
    now: jiff::Timestamp,
) -> Result<LogQuery, Failure> {
    let containers: Vec<&str> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten())
        .filter_map(|c| c["name"].as_str())
        .collect();
    let container = match query.get("container") {
        Some(asked) if containers.contains(&asked) => asked,
        Some(asked) => {
            return Err(Failure::bad_request(format!(
                "container {asked} is not valid for pod {name}"
            )));
        }
        None => match containers.as_slice() {
            [only] => only,
            several => {
                return Err(Failure::bad_request(format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    several.join(" ")
                )));
            }
        },
    };
    let since_seconds = query.number::<i64>("sinceSeconds")?;
    let since_time = query
        .get("sinceTime")
        .map(|t| {
            t.parse::<jiff::Timestamp>()
                .map_err(|e| Failure::bad_request(format!("invalid sinceTime {t:?}: {e}")))
        })
        .transpose()?;
    let invalid = |message: &str| Err(Failure::bad_request(message));
    let tail_lines = query.number::<i64>("tailLines")?;
    let limit_bytes = query.number::<u64>("limitBytes")?;
    if since_seconds.is_some() && since_time.is_some() {
        return invalid(
            "PodLogOptions is invalid: at most one of `sinceTime` or `sinceSeconds` may be specified",
        );
    }
    if since_seconds.is_some_and(|s| s < 1) {
        return invalid("PodLogOptions is invalid: sinceSeconds: must be greater than 0");
    }
    if tail_lines.is_some_and(|n| n < 0) {
        return invalid("PodLogOptions is invalid: tailLines: must be greater than or equal to 0");
    }
    if limit_bytes == Some(0) {
        return invalid("PodLogOptions is invalid: limitBytes: must be greater than 0");
    }
    let ago = since_seconds.and_then(|s| now.checked_sub(jiff::SignedDuration::from_secs(s)).ok());
    Ok(LogQuery {
        container: Some(container.to_owned()),
        follow: query.flag("follow"),
        tail_lines,
        since: since_time.or(ago),
        timestamps: query.flag("timestamps"),
        previous: query.flag("previous"),
        limit_bytes,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(query: &str, containers: Value) -> Result<LogQuery, String> {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let pod = json!({"spec": {"containers": containers}});
        parse(&Query::parse(query), &pod, "dd", now).map_err(|f| f.message)
    }

    #[test]
    fn queries() {
        let one = || json!([{"name": "c"}]);
        let two = || json!([{"name": "a"}, {"name": "b"}]);
        assert_eq!(
            parsed(
                "follow=true&tailLines=2&sinceSeconds=60&timestamps=true",
                one()
            )
            .unwrap(),
            LogQuery {
                container: Some("c".to_owned()),
                follow: true,
                tail_lines: Some(2),
                since: Some("2026-01-01T00:00:00Z".parse().unwrap()),
                timestamps: true,
                ..LogQuery::default()
            }
        );
        assert_eq!(
            parsed("container=zz", one()).unwrap_err(),
            "container zz is not valid for pod dd"
        );
        assert_eq!(
            parsed("", two()).unwrap_err(),
            "a container name must be specified for pod dd, choose one of: [a b]"
        );
        assert_eq!(
            parsed("container=b&previous=true", two())
                .unwrap()
                .container
                .as_deref(),
            Some("b")
        );
        for wrong in [
            "tailLines=-1",
            "tailLines=x",
            "sinceSeconds=0",
            "limitBytes=0",
            "sinceTime=now",
        ] {
            assert!(parsed(wrong, one()).is_err(), "{wrong}");
        }
    }
}
