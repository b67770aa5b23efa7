"""Around every request: counting, CORS, and the farewell of a service on its way out."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import VERSION
from .service import Service

METHODS = "GET, HEAD, POST, OPTIONS"
REQUEST_HEADERS = "Content-Type, Idempotency-Key, Accept, X-Request-ID, traceparent, tracestate"
EXPOSED = "Retry-After, Idempotency-Replayed, X-Request-ID"


class Observe:
    """Counts each request and answers it with the CORS headers of the configuration."""

    def __init__(self, app: ASGIApp, service: Service, routes: frozenset[str]) -> None:
        self._app = app
        self._service = service
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the server, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        # Whether the page may go on is said by the headers alone; the path need
        # not know of it.
        preflight = (
            scope["method"] == "OPTIONS"
            and origin is not None
            and "access-control-request-method" in headers
        )

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope["path"] if scope["path"] in self._routes else "other"
                self._service.metrics.request(route, scope["method"], message["status"])
                answer = MutableHeaders(scope=message)
                allow(answer, self._service.config.cors_origins, origin, preflight)
                answer["X-Service-Version"] = VERSION
                if self._service.draining:
                    answer["Connection"] = "close"
            await send(message)

        app = Response(status_code=204) if preflight else self._app
        await app(scope, receive, observed)


def allow(
    headers: MutableHeaders, allowed: frozenset[str] | None, origin: str | None, preflight: bool
) -> None:
    """Add the CORS headers (Fetch standard, "CORS protocol")."""
    if allowed is None:
        return
    if "*" in allowed:
        headers["Access-Control-Allow-Origin"] = "*"
    else:
        # Caches must keep the answers to different pages apart.
        headers.add_vary_header("Origin")
        if origin is None or origin.lower() not in allowed:
            return
        headers["Access-Control-Allow-Origin"] = origin
    if preflight:
        headers["Access-Control-Allow-Methods"] = METHODS
        headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
        headers["Access-Control-Max-Age"] = "600"
    else:
        headers["Access-Control-Expose-Headers"] = EXPOSED
