"""What is answered where: the records, the probes, the metrics."""

import hashlib
import time
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from .body import read_json
from .db import DbError
from .problem import FieldError, Problem
from .read import Page, page
from .record import parse_body
from .service import Service
from .write import Keyed, insert, parse_key

#: How long `/readyz` may take; a kubelet's default patience is one second.
READY_WITHIN = 0.9

READING = "GET, HEAD, OPTIONS"

#: The methods of each resource, as 405 and OPTIONS name them.
ALLOW = {
    "/api": "POST, OPTIONS",
    "/api/records": READING,
    "/healthz": READING,
    "/readyz": READING,
    "/metrics": READING,
}

router = APIRouter()


def _service(request: Request) -> Service:
    return request.app.state.service


App = Annotated[Service, Depends(_service)]


@router.post("/api")
async def accept(request: Request, service: App) -> Response:
    """Take one record, or an array of them, all or none."""
    key = _idempotency_key(request)
    body = await read_json(request)
    batch = parse_body(body)
    keyed = Keyed(key, hashlib.sha256(body).hexdigest()) if key else None
    started = time.perf_counter()
    try:
        receipt = await insert(
            service.db, service.locks, service.config.api_name, batch.records, keyed
        )
    except DbError as error:
        if not error.passing:
            raise
        raise Problem.unavailable(
            f"{error}; try again in a moment, with the same Idempotency-Key if there was one"
        ) from error
    answer: dict[str, object] = {"ids": receipt.ids, "api": receipt.api}
    if batch.unknown:
        answer["warnings"] = [
            {"field": name, "message": "is no field of a record and was ignored"}
            for name in batch.unknown
        ]
    response = _json(answer, 201)
    if receipt.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    else:
        service.metrics.insert(len(receipt.ids), time.perf_counter() - started)
    return response


def _idempotency_key(request: Request) -> str | None:
    values = [value for name, value in request.headers.raw if name == b"idempotency-key"]
    if not values:
        return None
    key = parse_key(values[0])
    if len(values) == 1 and key is not None:
        return key
    message = "is there twice" if len(values) > 1 else "expected 1 to 64 printable ASCII characters"
    raise Problem(
        422, "the Idempotency-Key can't be used", [FieldError("Idempotency-Key", message)]
    )


@router.api_route("/api/records", methods=["GET", "HEAD"])
async def records(request: Request, service: App) -> Response:
    """Give a page of the records, newest first."""
    # Of a name that is there twice the last one counts.
    wanted = Page.from_query(dict(request.query_params.multi_items()))
    return _json(await page(service.db, wanted))


@router.api_route("/healthz", methods=["GET", "HEAD"])
async def healthz() -> Response:
    """Alive: does not ask the database, as a restart would not mend it."""
    return _text("ok\n")


@router.api_route("/readyz", methods=["GET", "HEAD"])
async def readyz(service: App) -> Response:
    """Ready: rows could be written now."""
    if service.draining:
        return _text("stopping\n", 503)
    await service.db.check(READY_WITHIN)
    return _text("ok\n")


@router.api_route("/metrics", methods=["GET", "HEAD"])
async def metrics(service: App) -> Response:
    """Give the counters."""
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


async def options(request: Request) -> Response:
    """Name the methods of a resource."""
    return Response(status_code=204, headers={"Allow": ALLOW[request.url.path]})


for path in ALLOW:
    router.add_api_route(path, options, methods=["OPTIONS"])


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")


def _text(text: str, status: int = 200) -> Response:
    return Response(text, status, headers={"Content-Type": "text/plain; charset=utf-8"})
