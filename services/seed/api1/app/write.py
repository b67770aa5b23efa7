"""Writing records: all of a request or nothing.

With an `Idempotency-Key` once, however often and through whichever API it
comes. Rows and key share one transaction. The key goes in first: its primary
key makes a concurrent duplicate wait inside the database until the first one
has committed (then it reads the first one's answer) or rolled back (then it
takes over), also across processes and after a crash of either.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
from asyncmy.connection import Connection
from asyncmy.cursors import Cursor
from asyncmy.errors import MySQLError

from .db import Database, DbBusy, DbContended, DbLate, Fault, fault, sorted_error
from .record import FIELDS, Record

log = logging.getLogger(__name__)

#: Seconds that all attempts of one write may take together. A proxy's usual
#: patience is 60 s; a client is better served with an early 503.
LIMIT = 10.0

#: Attempts when the database rolls back because of locks.
ATTEMPTS = 6

#: Answers to keys are kept this long, and looked through this often (seconds).
KEEP_KEYS_HOURS = 24
PRUNE_EVERY = 600.0


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request's `Idempotency-Key` with what it was sent for."""

    key: str
    #: SHA-256 of the body as it came, in hexadecimal.
    body_sha256: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was written."""

    #: Ids of the rows, in the request's order.
    ids: list[int]
    #: The API that took them: with a repeated key, the one that took the first.
    api: str
    #: Whether this is the answer to an earlier request with the same key.
    replayed: bool = False


class KeyReusedError(Exception):
    """The key was used for another body."""

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was used with another body; a new request needs a new key"
        )


def parse_key(value: bytes) -> str | None:
    """Read the header's value: 1 to 64 printable ASCII characters, or nothing."""
    if not all(0x20 <= byte <= 0x7E for byte in value):
        return None
    # Blanks around it are no part of a header's value, and the column would not
    # tell them apart.
    key = value.decode("ascii").strip()
    return key if 1 <= len(key) <= 64 else None


class KeyLocks:
    """Lets requests with the same key take turns.

    So fifty duplicates hold one connection to the database and not fifty.
    """

    def __init__(self) -> None:
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Wait until nobody else in this process works on `key`."""
        lock, users = self._turns.get(key) or (asyncio.Lock(), 0)
        self._turns[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            users = self._turns[key][1] - 1
            if users:
                self._turns[key] = lock, users
            else:
                del self._turns[key]

    def __len__(self) -> int:
        return len(self._turns)


async def insert(
    db: Database, locks: KeyLocks, api: str, records: Sequence[Record], keyed: Keyed | None
) -> Receipt:
    """Commit the records, stamped with `api`.

    Raises DbError or KeyReusedError. After DbAway or DbLate it is unknown
    whether the rows were committed; with a key, the same request sent again
    finds out and leaves exactly one row for each record.
    """
    deadline = asyncio.get_running_loop().time() + LIMIT
    if keyed is None:
        return await _attempts(db, api, records, None, deadline)
    try:
        async with asyncio.timeout_at(deadline) as waiting, locks.turn(keyed.key):
            # The wait for the turn is bounded by this, the work by `run`, which
            # parts with the connection in order.
            waiting.reschedule(None)
            return await _attempts(db, api, records, keyed, deadline)
    except TimeoutError as error:
        raise DbLate(LIMIT) from error


async def _attempts(
    db: Database, api: str, records: Sequence[Record], keyed: Keyed | None, deadline: float
) -> Receipt:
    now = asyncio.get_running_loop().time

    async def work(connection: Connection) -> Receipt | None:
        async with connection.cursor() as cursor:
            if keyed is None:
                return Receipt(await _insert_all(connection, cursor, api, records), api)
            return await _insert_keyed(connection, cursor, api, records, keyed)

    for attempt in range(1, ATTEMPTS + 1):
        error: MySQLError | None = None
        try:
            receipt = await db.run(work, max(deadline - now(), 0))
            if receipt is not None:
                return receipt
        except MySQLError as failure:
            if fault(failure) is not Fault.ROLLED_BACK:
                raise sorted_error(failure) from failure
            error = failure
        if attempt == ATTEMPTS or deadline <= now():
            break
        log.debug("the database rolled back, trying again", extra={"attempt": attempt})
        # Doubles with each attempt, up to half of it by chance: two that met
        # must not meet again.
        base = 0.004 * 2**attempt
        await asyncio.sleep(random.uniform(base / 2, base))
    if error is None:
        raise DbBusy
    raise DbContended from error


async def _insert_keyed(
    connection: Connection, cursor: Cursor, api: str, records: Sequence[Record], keyed: Keyed
) -> Receipt | None:
    """Write under a key; None when it was taken a moment ago and is free now."""
    await connection.begin()
    try:
        try:
            await cursor.execute(
                "INSERT INTO idempotency (`key`, body_sha256, api, ids, created_at) "
                "VALUES (%s, %s, %s, '[]', UTC_TIMESTAMP(6))",
                (keyed.key, keyed.body_sha256, api),
            )
        except MySQLError as error:
            if fault(error) is not Fault.DUPLICATE:
                raise
            await connection.rollback()
            return await _first_answer(cursor, keyed)
        ids = await _insert_rows(cursor, api, records)
        await cursor.execute(
            "UPDATE idempotency SET ids = %s WHERE `key` = %s",
            (orjson.dumps(ids).decode(), keyed.key),
        )
        await connection.commit()
    except MySQLError as error:
        if fault(error) is not Fault.AWAY:
            # A lock wait that timed out rolls back its statement only.
            await connection.rollback()
        raise
    return Receipt(ids, api)


async def _first_answer(cursor: Cursor, keyed: Keyed) -> Receipt | None:
    await cursor.execute(
        "SELECT api, body_sha256, CAST(ids AS CHAR) FROM idempotency WHERE `key` = %s",
        (keyed.key,),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    api, body_sha256, ids = row
    if body_sha256 != keyed.body_sha256:
        raise KeyReusedError
    return Receipt(orjson.loads(ids), api, replayed=True)


async def _insert_all(
    connection: Connection, cursor: Cursor, api: str, records: Sequence[Record]
) -> list[int]:
    """Write without a key; one statement is its own transaction."""
    try:
        return await _insert_rows(cursor, api, records)
    except MySQLError as error:
        if fault(error) is not Fault.AWAY:
            await connection.rollback()
        raise


_COLUMNS = f"INSERT INTO records ({', '.join(FIELDS)}, api, created_at) VALUES "
_ROW = f"({', '.join(['%s'] * (len(FIELDS) + 1))}, UTC_TIMESTAMP(6))"


async def _insert_rows(cursor: Cursor, api: str, records: Sequence[Record]) -> list[int]:
    """Insert all in one statement.

    InnoDB gives the rows of an INSERT whose number of rows is known beforehand
    ids in one run, in every `innodb_autoinc_lock_mode`,
    `auto_increment_increment` apart (which group replication and Galera set to
    the number of servers).
    """
    step = 1
    if len(records) > 1:
        await cursor.execute("SELECT CAST(@@SESSION.auto_increment_increment AS UNSIGNED)")
        (step,) = await cursor.fetchone()
    values = [value for record in records for value in (*record, api)]
    await cursor.execute(_COLUMNS + ", ".join([_ROW] * len(records)), values)
    first = cursor.lastrowid
    return [first + n * step for n in range(len(records))]


async def prune(db: Database) -> int:
    """Remove answers older than KEEP_KEYS_HOURS; says how many.

    A thousand at a time, so that no lock is held for long; what was removed
    before an error stays removed.
    """

    async def batch(connection: Connection) -> int:
        async with connection.cursor() as cursor:
            return await cursor.execute(
                "DELETE FROM idempotency WHERE created_at < UTC_TIMESTAMP(6) - INTERVAL %s HOUR "
                "ORDER BY created_at LIMIT 1000",
                (KEEP_KEYS_HOURS,),
            )

    removed = 0
    while True:
        rows = await db.query(batch, LIMIT)
        removed += rows
        if rows < 1000:
            return removed
