import asyncio

import pytest
from asyncmy.errors import IntegrityError, OperationalError, ProgrammingError

from app.db import Fault, fault
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
