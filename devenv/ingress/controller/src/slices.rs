//! Where endpoints are read from: that differs between Kubernetes versions, so
//! the API's discovery is asked.
//!
//! | served | read | Kubernetes |
//! | --- | --- | --- |
//! | `discovery.k8s.io/v1` | EndpointSlices | 1.21 and newer |
//! | `discovery.k8s.io/v1beta1` only | EndpointSlices, converted | 1.17 to 1.20 |
//! | neither | Endpoints of the core group, converted | where slices are turned off |
//!
//! Asked once, at the start: a control plane that is upgraded under a running
//! controller across 1.25, where v1beta1 went, needs the pod to be restarted
//! (replacing the nodes does that).

use std::time::Duration;

use http::Request;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroup;
use kube::Client;
use tracing::warn;

/// Between two questions to an API that does not answer: the first pause; each
/// further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The API that tells the endpoints of Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// EndpointSlices of `discovery.k8s.io/v1`.
    SlicesV1,
    /// EndpointSlices of `discovery.k8s.io/v1beta1`.
    SlicesV1beta1,
    /// Endpoints of `v1`.
    Endpoints,
}

impl Source {
    /// As a person writes it.
    pub fn name(self) -> &'static str {
        match self {
            Source::SlicesV1 => "EndpointSlices of discovery.k8s.io/v1",
            Source::SlicesV1beta1 => "EndpointSlices of discovery.k8s.io/v1beta1",
            Source::Endpoints => "Endpoints of v1",
        }
    }

    /// The best one of what is served; `None`: there is no such group.
    fn choose(group: Option<&APIGroup>) -> Source {
        let serves = |version: &str| {
            group.is_some_and(|group| group.versions.iter().any(|v| v.version == version))
        };
        if serves("v1") {
            Source::SlicesV1
        } else if serves("v1beta1") {
            Source::SlicesV1beta1
        } else {
            Source::Endpoints
        }
    }
}

/// Asks the API's discovery which source it serves.
///
/// # Errors
/// An API that does not answer, or not with an APIGroup. That there is no group
/// `discovery.k8s.io` is an answer.
pub async fn discover(client: &Client) -> Result<Source, kube::Error> {
    let request = Request::get("/apis/discovery.k8s.io")
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    match client.request::<APIGroup>(request).await {
        Ok(group) => Ok(Source::choose(Some(&group))),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Source::choose(None)),
        Err(error) => Err(error),
    }
}

/// [`discover`], again and again until there is an answer.
pub(crate) async fn discover_patiently(client: &Client) -> Source {
    let mut pause = FIRST_PAUSE;
    loop {
        match discover(client).await {
            Ok(source) => return source,
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                again_in = ?pause,
                "the API does not say which endpoints it serves"
            ),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Response;
    use http_body_util::Full;
    use hyper::body::Bytes;
    use rstest::rstest;
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;

    /// An API that knows nothing but this answer; asked for the first `failures`
    /// times it is not there.
    fn api(status: u16, body: &Value, failures: usize) -> (Client, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let text = body.as_str().map(str::to_owned);
        let (count, body) = (asked.clone(), text.unwrap_or_else(|| body.to_string()));
        let service = service_fn(move |request: Request<kube::client::Body>| {
            assert_eq!(request.uri().path(), "/apis/discovery.k8s.io");
            let late = count.fetch_add(1, Ordering::SeqCst) >= failures;
            let (status, body) = if late {
                (status, body.clone())
            } else {
                (503, String::new())
            };
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status.try_into().unwrap();
            std::future::ready(Ok::<_, Infallible>(response))
        });
        (Client::new(service, "default"), asked)
    }

    fn group(versions: &[&str]) -> Value {
        let versions: Vec<Value> = versions
            .iter()
            .map(|v| json!({"groupVersion": format!("discovery.k8s.io/{v}"), "version": v}))
            .collect();
        json!({"kind": "APIGroup", "apiVersion": "v1", "name": "discovery.k8s.io",
               "versions": versions, "preferredVersion": versions[0]})
    }

    #[rstest]
    #[case::current(200, group(&["v1"]), Source::SlicesV1)]
    #[case::both(200, group(&["v1beta1", "v1"]), Source::SlicesV1)]
    #[case::of_1_20(200, group(&["v1beta1"]), Source::SlicesV1beta1)]
    #[case::of_1_16(200, group(&["v1alpha1"]), Source::Endpoints)]
    #[case::turned_off(
        404,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
               "reason": "NotFound", "message": "the server could not find the requested resource"}),
        Source::Endpoints
    )]
    // What a real API server answers for a path that it does not know.
    #[case::plain_text(404, json!("404 page not found"), Source::Endpoints)]
    #[tokio::test]
    async fn what_is_served_is_read(
        #[case] status: u16,
        #[case] body: Value,
        #[case] expected: Source,
    ) {
        let (client, _) = api(status, &body, 0);
        assert_eq!(discover(&client).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn an_api_that_refuses_has_not_answered() {
        let (client, _) = api(403, &json!({}), 0);
        assert!(discover(&client).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_is_down_is_asked_again() {
        let (client, asked) = api(200, &group(&["v1"]), 3);
        assert_eq!(discover_patiently(&client).await, Source::SlicesV1);
        assert_eq!(asked.load(Ordering::SeqCst), 4);
    }
}
