"""The application, put together: routes, errors, and the life of its database."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from .db import DbError
from .observe import Observe
from .problem import FieldError, Problem
from .routes import ALLOW, router
from .service import Service
from .write import PRUNE_EVERY, KeyReusedError, prune

log = logging.getLogger(__name__)


def create_app(service: Service) -> ASGIApp:
    """Put the application together around the service's state."""
    # The contract is written down elsewhere; of this API nothing is published.
    app = FastAPI(lifespan=_lifespan, openapi_url=None, redirect_slashes=False)
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(DbError, _db_error)
    app.add_exception_handler(KeyReusedError, _key_reused)
    app.add_exception_handler(Exception, _bug)
    return Observe(app, service, frozenset(ALLOW))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    pruner = asyncio.create_task(_prune_forever(service))
    yield
    pruner.cancel()
    await service.db.close(2.0)


async def _prune_forever(service: Service) -> None:
    while True:
        # Not at the start, when there is better to do.
        await asyncio.sleep(PRUNE_EVERY)
        try:
            if removed := await prune(service.db):
                log.info("old idempotency keys removed", extra={"removed": removed})
        except DbError as error:
            log.debug("old idempotency keys stay for now", extra={"error": str(error)})


async def _problem(_: Request, problem: Problem) -> Response:
    return problem.response()


async def _http_error(request: Request, error: HTTPException) -> Response:
    allow = ALLOW.get(request.url.path)
    if error.status_code == 405 and allow:
        return Problem.method_not_allowed(allow).response()
    if error.status_code == 404:
        path = request.scope.get("raw_path", b"").decode("latin-1")[:200]
        return Problem(404, f"there is nothing at {path}").response()
    return Problem(error.status_code, str(error.detail)).response()


async def _db_error(_: Request, error: DbError) -> Response:
    if error.passing:
        return Problem.unavailable(f"{error}; try again in a moment").response()
    # The driver's words may name tables and values: for the log only.
    log.error("a statement failed", extra={"error": str(error.__cause__)})
    return Problem(500, str(error)).response()


async def _key_reused(_: Request, error: KeyReusedError) -> Response:
    reused = FieldError("Idempotency-Key", "was used with another body")
    return Problem(422, str(error), [reused]).response()


async def _bug(_: Request, __: Exception) -> Response:
    return Problem(500, "answering this request failed").response()
