"""Reading records: newest first, page by page along the primary key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncmy.connection import Connection
from asyncmy.cursors import DictCursor

from .db import Database
from .problem import FieldError, Problem
from .record import FIELDS

#: Seconds that one page may take.
LIMIT = 5.0

#: Most records of one page, and how many without a number.
MAX_PAGE = 1000
DEFAULT_PAGE = 100

MAX_ID = 2**63 - 1

_NUMBERS = ", ".join(FIELDS[:-1])
_SELECT = (
    f"SELECT id, {_NUMBERS}, DATE_FORMAT(hora, '%%Y-%%m-%%d %%H:%%i:%%s') AS hora, api, "
    "DATE_FORMAT(created_at, '%%Y-%%m-%%dT%%H:%%i:%%s.%%fZ') AS created_at "
    "FROM records WHERE id < %s ORDER BY id DESC LIMIT %s"
)


@dataclass(frozen=True, slots=True)
class Page:
    """The newest `limit` records with an id below `after`."""

    limit: int
    after: int | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> "Page":
        """Read `limit` and `after`; raises a Problem (422) that names each bad one."""
        errors = []
        limit = _whole(query.get("limit", str(DEFAULT_PAGE)))
        if limit is None or not 1 <= limit <= MAX_PAGE:
            errors.append(FieldError("limit", f"expected a whole number from 1 to {MAX_PAGE}"))
        after = _whole(query["after"]) if "after" in query else None
        if "after" in query and (after is None or after > MAX_ID):
            errors.append(FieldError("after", "expected the id of a record"))
        if errors:
            raise Problem(422, "the query has bad parameters", errors)
        return cls(limit or DEFAULT_PAGE, after)


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\+?[0-9]{1,20}", text) else None


async def page(db: Database, wanted: Page) -> dict[str, Any]:
    """Read one page, `next_after` being where the next one starts; raises DbError."""

    async def read(connection: Connection) -> list[dict[str, Any]]:
        async with connection.cursor(DictCursor) as cursor:
            # One row more than asked for tells whether there is another page.
            before = MAX_ID if wanted.after is None else wanted.after
            await cursor.execute(_SELECT, (before, wanted.limit + 1))
            return list(await cursor.fetchall())

    records = await db.query(read, LIMIT)
    more = len(records) > wanted.limit
    records = records[: wanted.limit]
    return {"records": records, "next_after": records[-1]["id"] if more else None}
