import asyncio
from types import SimpleNamespace

import pytest
from asyncmy.errors import IntegrityError, OperationalError, ProgrammingError

from app.config import DatabaseConfig
from app.db import Database, Fault, fault
from app.write import KeyLocks, parse_key


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"a", "a"),
        (b" with blank ", "with blank"),
        (b"x" * 64, "x" * 64),
        (b"x" * 65, None),
        (b"", None),
        (b"   ", None),
        (b"tab\tbed", None),
        ("ñ".encode(), None),
    ],
)
def test_keys_are_printable_and_short(value: bytes, key: str | None) -> None:
    assert parse_key(value) == key


async def test_the_same_key_takes_turns_and_nothing_stays_behind() -> None:
    locks = KeyLocks()
    order: list[str] = []

    async def work(key: str, name: str, go: asyncio.Event) -> None:
        async with locks.turn(key):
            order.append(name)
            await go.wait()

    go, never = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(work("k", "first", go))
    await asyncio.sleep(0)
    second = asyncio.create_task(work("k", "second", go))
    third = asyncio.create_task(work("k", "third", never))
    other = asyncio.create_task(work("other", "other", go))
    await asyncio.sleep(0)
    assert order == ["first", "other"]
    # A wait that is given up leaves nothing either.
    third.cancel()
    go.set()
    await asyncio.gather(first, second, other)
    with pytest.raises(asyncio.CancelledError):
        await third
    assert order == ["first", "other", "second"]
    assert len(locks) == 0


class GreedyPool:
    """A pool of one that gives to whoever asks at the moment when it is free."""

    def __init__(self) -> None:
        self.free = True
        self._freed = asyncio.Event()

    async def acquire(self) -> object:
        while not self.free:
            await self._freed.wait()
        self.free = False
        self._freed.clear()
        return SimpleNamespace(last_usage=asyncio.get_running_loop().time())

    def release(self, _: object) -> None:
        self.free = True
        self._freed.set()


async def test_who_waits_for_a_connection_is_not_passed_by() -> None:
    db = Database(DatabaseConfig("h", 1, "u", "p", "d", pool_max=1))
    db._pool = GreedyPool()
    order: list[str] = []

    async def work(name: str, go: asyncio.Event | None = None) -> None:
        async def note(_: object) -> None:
            order.append(name)
            if go is not None:
                await go.wait()

        await db.run(note, 60)

    async def again_and_again() -> None:
        # Asks in the very moment in which it gave back: it has the processor.
        await work("first", go)
        await work("late")

    go = asyncio.Event()
    greedy = asyncio.create_task(again_and_again())
    await asyncio.sleep(0)
    patient = asyncio.create_task(work("patient"))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(greedy, patient)
    assert order == ["first", "patient", "late"]


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (IntegrityError(1062, "Duplicate entry"), Fault.DUPLICATE),
        (OperationalError(1213, "Deadlock found"), Fault.ROLLED_BACK),
        (OperationalError(2013, "Lost connection"), Fault.AWAY),
        (OperationalError(1040, "Too many connections"), Fault.AWAY),
        (ProgrammingError(1146, "Table doesn't exist"), Fault.AWAY),
        (ProgrammingError(1064, "You have an error in your SQL syntax"), Fault.REFUSED),
        (ConnectionResetError(104, "reset"), Fault.AWAY),
    ],
)
def test_errors_of_the_driver_are_sorted(error: Exception, meaning: Fault) -> None:
    assert fault(error) is meaning
