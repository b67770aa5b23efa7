"""Errors as `application/problem+json` (RFC 9457)."""

from dataclasses import dataclass, field
from http import HTTPStatus

import orjson
from starlette.responses import Response

#: Most fields that one answer names; an array of a thousand bad records would
#: otherwise be answered with a megabyte.
MAX_ERRORS = 1000

#: The words of all APIs, whatever those of this Python's standard library are.
_TITLES = {413: "Payload Too Large", 422: "Unprocessable Entity"}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One bad field of a request, or query parameter; `index`: which record of an array."""

    field: str
    message: str
    index: int | None = None

    def as_json(self) -> dict[str, object]:
        """Without the index where there is none."""
        where = {} if self.index is None else {"index": self.index}
        return {"field": self.field, **where, "message": self.message}


@dataclass(eq=False)
class Problem(Exception):
    """An error as the client sees it; raised anywhere, answered by the app's handler."""

    status: int
    detail: str
    errors: list[FieldError] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def unavailable(cls, detail: str) -> "Problem":
        """503 with `Retry-After: 1`: nothing is known to have been written."""
        return cls(503, detail, headers={"Retry-After": "1"})

    @classmethod
    def method_not_allowed(cls, allow: str) -> "Problem":
        """405 with `Allow`."""
        return cls(405, f"this resource answers {allow} only", headers={"Allow": allow})

    def response(self) -> Response:
        """The answer."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": _TITLES.get(self.status) or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [error.as_json() for error in self.errors[:MAX_ERRORS]]
        if len(self.errors) > MAX_ERRORS:
            body["errors_omitted"] = len(self.errors) - MAX_ERRORS
        return Response(
            orjson.dumps(body),
            self.status,
            headers=self.headers,
            media_type="application/problem+json",
        )
