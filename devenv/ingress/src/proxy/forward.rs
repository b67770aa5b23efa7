//! One request: route, choose, send, try again where that is safe.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tracing::{debug, warn};

use super::client::ClientState;
use super::headers;
use super::hold::{GivenUp, Hold};
use super::live::{Chosen, Live};
use super::pages;
use super::request_body::{self, BodyError, Progress, RequestBody, Upload};
use super::response_body::{EndpointBody, Guard, ResponseBody};
use super::tunnel::Tunnel;
use super::upstream::{Conn, Failure};
use super::worker::Worker;
use crate::table::{Route, Settings, UpstreamId, normalize};

/// ingress-nginx's `proxy-next-upstream-tries`.
const TRIES: u32 = 3;

/// Seconds after which a request is worth another try whose service is about to
/// come: it will be held again.
const RETRY_AFTER: u32 = 1;

/// Answered by us.
enum Refusal {
    Status(StatusCode),
    /// 503, but not for long.
    Later,
    AddSlash(HeaderValue),
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self::Status(status)
    }
}

/// Answered by an endpoint.
struct Served {
    response: Response<Incoming>,
    connection: Box<Conn>,
    upload: Option<Arc<Upload>>,
    read_timeout: Duration,
    on_client: Option<OnUpgrade>,
}

/// Serves one request; every outcome is a response.
pub(super) async fn handle(
    worker: Arc<Worker>,
    client: Arc<ClientState>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let mut guard = Guard::new(&worker, &client);
    let outcome = serve(&worker, &client, request, &mut guard).await;
    Ok(match outcome {
        Ok(served) => answer(&worker, served, guard),
        Err(refusal) => refuse(refusal, guard),
    })
}

fn refuse(refusal: Refusal, mut guard: Guard) -> Response<ResponseBody> {
    let page = match refusal {
        Refusal::Status(status) => pages::page(status),
        Refusal::Later => pages::later(RETRY_AFTER),
        Refusal::AddSlash(location) => pages::redirect(location),
    };
    guard.status = page.status().as_u16();
    page.map(|body| ResponseBody::Page(body, Some(guard)))
}

fn answer(worker: &Arc<Worker>, served: Served, mut guard: Guard) -> Response<ResponseBody> {
    let (mut parts, incoming) = served.response.into_parts();
    // The endpoint's version is between the endpoint and us.
    parts.version = Version::HTTP_11;
    guard.status = parts.status.as_u16();
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        headers::to_client(&mut parts.headers, false);
        let body = EndpointBody::new(
            incoming,
            served.connection,
            served.upload,
            served.read_timeout,
            guard,
        );
        return Response::from_parts(parts, ResponseBody::Endpoint(body));
    }
    let on_endpoint = parts.extensions.remove::<OnUpgrade>();
    let (Some(on_client), Some(on_endpoint)) = (served.on_client, on_endpoint) else {
        // It switches protocols although nobody asked it to.
        return refuse(StatusCode::BAD_GATEWAY.into(), guard);
    };
    headers::to_client(&mut parts.headers, true);
    Tunnel {
        on_client,
        on_endpoint,
        connection: served.connection,
        patience: served.read_timeout,
        guard,
    }
    .spawn(worker);
    Response::from_parts(parts, ResponseBody::Page(Bytes::new(), None))
}

async fn serve(
    worker: &Arc<Worker>,
    client: &Arc<ClientState>,
    request: Request<Incoming>,
    guard: &mut Guard,
) -> Result<Served, Refusal> {
    let (mut parts, body) = request.into_parts();
    let live = worker.live.load_full();
    // Until it is taken in, a refusal leaves a body behind on the socket.
    let has_body = !body.is_end_stream();
    if has_body {
        client.linger(true);
    }
    let (main, settings) = route(&live, &parts)?;
    if request_body::is_too_large(&body, settings.body_limit) {
        return Err(StatusCode::PAYLOAD_TOO_LARGE.into());
    }
    let id = live
        .choose(main, &parts.method, &parts.headers)
        .ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let mut chosen = Chosen {
        live: live.clone(),
        id,
    };
    let mut hold = Hold::new(worker, client);
    if chosen.endpoints().is_empty() {
        hold.for_endpoints(&mut chosen, 0)
            .await
            .map_err(|why| match why {
                GivenUp::NothingComes => StatusCode::SERVICE_UNAVAILABLE.into(),
                GivenUp::Later => Refusal::Later,
            })?;
    }

    let chunked = parts.headers.contains_key(TRANSFER_ENCODING);
    let (body, upload) = match request_body::take(body, settings.body_limit, client).await {
        Ok(taken) => taken,
        Err(BodyError::TooLarge) => return Err(StatusCode::PAYLOAD_TOO_LARGE.into()),
        Err(BodyError::Client(_)) => return Err(StatusCode::BAD_REQUEST.into()),
    };
    if upload.is_none() && has_body {
        client.linger(false);
    }
    if chunked && let RequestBody::Whole(bytes) = &body {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }

    guard.given_to(&chosen.live, chosen.id);

    let upgrade = headers::asks_for_upgrade(&parts.headers);
    let on_client = parts.extensions.remove::<OnUpgrade>().filter(|_| upgrade);
    headers::to_upstream(
        &mut parts.headers,
        &client.peer,
        on_client.is_some(),
        || worker.request_id(),
    );
    parts.version = Version::HTTP_11;
    if parts.uri.authority().is_some() {
        let target = parts.uri.path_and_query().cloned();
        parts.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }

    let attempt = Attempt {
        worker,
        settings,
        upload: upload.as_deref(),
    };
    if has_body {
        // It may have taken its time.
        chosen.follow(worker.live.load_full());
    }
    let (response, connection) = attempt.send(chosen, hold, parts, body).await?;
    Ok(Served {
        response,
        connection,
        upload,
        read_timeout: settings.read_timeout,
        on_client,
    })
}

/// Host and path decide; 404 unless a location with a service serves them.
fn route<'a>(live: &'a Live, parts: &Parts) -> Result<(UpstreamId, &'a Settings), Refusal> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(StatusCode::METHOD_NOT_ALLOWED.into());
    }
    let host = host(parts)?;
    let path = normalize(parts.uri.path()).map_err(|_| StatusCode::BAD_REQUEST)?;
    match live.table.route(host, &path) {
        Route::NotFound => Err(StatusCode::NOT_FOUND.into()),
        Route::AddSlash => {
            let mut location = format!("http://{host}").into_bytes();
            location.extend_from_slice(&path);
            location.push(b'/');
            if let Some(query) = parts.uri.query() {
                location.push(b'?');
                location.extend_from_slice(query.as_bytes());
            }
            Err(HeaderValue::try_from(location)
                .map_or(StatusCode::BAD_REQUEST.into(), Refusal::AddSlash))
        }
        Route::Location(location) => {
            let upstream = location.upstream.ok_or(StatusCode::NOT_FOUND)?;
            Ok((upstream, &location.settings))
        }
    }
}

/// The host that was asked for: an absolute target's before the header's.
fn host(parts: &Parts) -> Result<&str, StatusCode> {
    let mut lines = parts.headers.get_all(HOST).iter();
    let header = match (lines.next(), lines.next()) {
        (Some(_), Some(_)) => return Err(StatusCode::BAD_REQUEST),
        (Some(line), None) => line.to_str().map_err(|_| StatusCode::BAD_REQUEST)?,
        // Only HTTP/1.0 may leave it out.
        (None, _) if parts.version == Version::HTTP_10 => "",
        (None, _) => return Err(StatusCode::BAD_REQUEST),
    };
    if header
        .bytes()
        .any(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'\\' | b'?' | b'#' | b'@'))
    {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(parts
        .uri
        .authority()
        .map_or(header, |authority| authority.as_str()))
}

/// Methods that nginx sends again after an error; all but POST, LOCK, PATCH.
fn is_repeatable(method: &Method) -> bool {
    !matches!(*method, Method::POST | Method::PATCH) && method.as_str() != "LOCK"
}

struct Attempt<'a> {
    worker: &'a Worker,
    settings: &'a Settings,
    upload: Option<&'a Upload>,
}

impl Attempt<'_> {
    /// Sends the request to endpoints of the service until one answers.
    ///
    /// A request that may have been acted upon is sent again only if its
    /// method is repeatable. One that provably was not read whole (refused
    /// connection, nothing written, or a reset, which is how a kernel refuses
    /// bytes that its program will not read) is sent again whatever its
    /// method: a rolling update loses nothing, a POST is never done twice.
    /// Where all endpoints failed it is held until there are others, if any are
    /// on the way.
    async fn send(
        &self,
        mut chosen: Chosen,
        mut hold: Hold<'_>,
        parts: Parts,
        body: RequestBody,
    ) -> Result<(Response<Incoming>, Box<Conn>), Refusal> {
        let repeatable = is_repeatable(&parts.method);
        // A body in memory can be sent as often as needed, a stream once; a
        // stream comes back only if nothing of it was written.
        let (template, whole, mut once) = match body {
            RequestBody::Whole(bytes) => (Some(parts), bytes, None),
            stream @ RequestBody::Stream(_) => {
                (None, Bytes::new(), Some(Request::from_parts(parts, stream)))
            }
        };
        let mut failure = StatusCode::BAD_GATEWAY;
        // Since the endpoints changed last, and those among all that an
        // endpoint may have acted upon.
        let (mut failures, mut acted) = (0, 0);
        let mut pooled = true;
        while acted < TRIES {
            let next = chosen.live.next_endpoint(chosen.id);
            let Some(address) = next.filter(|_| failures < TRIES) else {
                if next.is_none() {
                    failure = StatusCode::SERVICE_UNAVAILABLE;
                }
                match hold.for_endpoints(&mut chosen, whole.len()).await {
                    Ok(()) => failures = 0,
                    Err(GivenUp::Later) => return Err(Refusal::Later),
                    Err(GivenUp::NothingComes) => break,
                }
                continue;
            };
            let reused = if pooled {
                self.worker.pool.take(address, template.is_none())
            } else {
                None
            };
            let was_reused = reused.is_some();
            let mut connection = match reused {
                Some(connection) => connection,
                None => match self.connect(address).await {
                    Ok(connection) => connection,
                    Err(status) => {
                        failure = status;
                        failures += 1;
                        chosen.follow(self.worker.live.load_full());
                        continue;
                    }
                },
            };
            let request = match (once.take(), &template) {
                (Some(request), _) => request,
                (None, Some(parts)) => again(parts, &whole),
                (None, None) => break,
            };
            let patience = match self.upload {
                Some(_) => self.settings.send_timeout.max(self.settings.read_timeout),
                None => self.settings.read_timeout,
            };
            let exchange = connection.exchange(request, patience, || {
                self.upload
                    .is_some_and(|upload| upload.get() == Progress::Waiting)
            });
            let (may_repeat, was_unread) = match exchange.await {
                Ok(response) => return Ok((response, connection)),
                Err(Failure::Unsent(request)) => {
                    if template.is_none() {
                        once = Some(*request);
                    }
                    failure = StatusCode::BAD_GATEWAY;
                    (true, true)
                }
                Err(Failure::TimedOut) => {
                    failure = StatusCode::GATEWAY_TIMEOUT;
                    (template.is_some() && repeatable, false)
                }
                Err(Failure::Broken { unread, error }) => {
                    match self.upload.map(Upload::get) {
                        Some(Progress::TooLarge) => {
                            return Err(StatusCode::PAYLOAD_TOO_LARGE.into());
                        }
                        Some(Progress::Failed) => return Err(StatusCode::BAD_REQUEST.into()),
                        _ => {}
                    }
                    debug!(%address, unread, ?error, "the endpoint broke the connection");
                    failure = StatusCode::BAD_GATEWAY;
                    (template.is_some() && (unread || repeatable), unread)
                }
            };
            // A kept connection that had gone stale is no failure of the
            // endpoint; after it, only new connections are used.
            let counts = u32::from(!was_reused || failure == StatusCode::GATEWAY_TIMEOUT);
            failures += counts;
            acted += if was_unread { 0 } else { counts };
            pooled = false;
            if !may_repeat {
                break;
            }
            chosen.follow(self.worker.live.load_full());
        }
        let key = chosen.key();
        warn!(
            namespace = key.namespace,
            service = key.service,
            status = failure.as_u16(),
            "no endpoint answered"
        );
        Err(failure.into())
    }

    async fn connect(&self, address: SocketAddr) -> Result<Box<Conn>, StatusCode> {
        let connecting = self.worker.shared.connector.connect(address);
        let stream = match tokio::time::timeout(self.settings.connect_timeout, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                debug!(%address, %error, "cannot connect");
                return Err(StatusCode::BAD_GATEWAY);
            }
            Err(_) => {
                debug!(%address, "connecting takes too long");
                return Err(StatusCode::GATEWAY_TIMEOUT);
            }
        };
        match Conn::new(stream, address).await {
            Ok(connection) => Ok(Box::new(connection)),
            Err(error) => {
                debug!(%address, %error, "cannot speak HTTP");
                Err(StatusCode::BAD_GATEWAY)
            }
        }
    }
}

fn again(parts: &Parts, body: &Bytes) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::Whole(body.clone()));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    *request.extensions_mut() = Extensions::new();
    request
}
