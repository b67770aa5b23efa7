"""The telemetry record: twelve fields, their bounds, and how a body becomes records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from .hora import parse_hora
from .problem import FieldError, Problem

#: Most records that one request may carry.
MAX_BATCH = 1000

#: Most unknown fields that one answer names, and how much of each name.
MAX_WARNINGS = 32
MAX_NAME = 64

#: Most of an `INT UNSIGNED`.
MAX_COUNT = 4_294_967_295

AMOUNTS = ("total_ram", "ram_libre", "uso_ram")
PERCENTAGES = ("porcentaje_ram", "porcentaje_cpu_uso", "porcentaje_cpu_libre")
COUNTS = (
    "procesos_corriendo",
    "total_procesos",
    "procesos_durmiendo",
    "procesos_zombie",
    "procesos_parados",
)

#: The twelve fields, in the table's order.
FIELDS = (*AMOUNTS, *PERCENTAGES, *COUNTS, "hora")
_KNOWN = frozenset(FIELDS)

#: The values of one record, in the order of FIELDS.
Record = tuple[float | int | str, ...]


@dataclass(slots=True)
class Batch:
    """A request's body, understood."""

    #: One record, or those of the array, in its order.
    records: list[Record]
    #: Fields that are no part of a record: ignored, but named in the answer,
    #: because real senders add fields and a typo should be seen.
    unknown: list[str]


def parse_body(body: bytes) -> Batch:
    """Read one record or an array of 1 to MAX_BATCH.

    Raises a Problem: 400 when it is no JSON, 422 that names every bad field of
    every record.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    reader = _Reader()
    records: list[Record] = []
    match value:
        case dict():
            records.append(reader.record(None, value))
        case list() if not 1 <= len(value) <= MAX_BATCH:
            reader.bad("", f"the array holds {len(value)} records; expected 1 to {MAX_BATCH}", None)
        case list():
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    records.append(reader.record(index, item))
                else:
                    reader.bad("", f"is {_kind(item)}; expected a record (an object)", index)
        case _:
            reader.bad(
                "",
                f"the body is {_kind(value)}; expected a record (an object) or an array of records",
                None,
            )
    if reader.errors:
        raise Problem(422, "the body is not a record, or not records", reader.errors)
    return Batch(records, sorted(reader.unknown))


@dataclass(slots=True)
class _Reader:
    errors: list[FieldError] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def bad(self, name: str, message: str, index: int | None) -> None:
        self.errors.append(FieldError(name, message, index))

    def record(self, index: int | None, values: Mapping[str, Any]) -> Record:
        """Read every field even after a bad one, so that all are named."""
        if values.keys() - _KNOWN:
            for name in sorted(values.keys() - _KNOWN):
                if len(self.unknown) < MAX_WARNINGS:
                    self.unknown.add(name[:MAX_NAME])
        record: list[float | int | str] = []
        for name in FIELDS:
            if name not in values:
                self.bad(name, "is missing", index)
                continue
            try:
                record.append(_check(name, values[name]))
            except ValueError as error:
                self.bad(name, str(error), index)
        return tuple(record)


def _check(name: str, value: object) -> float | int | str:
    """Give the value as it is stored; raises ValueError with what is wrong."""
    if name in COUNTS:
        # 5.0 is an integer in JSON: some senders write every number that way.
        if _is_number(value) and 0 <= value <= MAX_COUNT and value == int(value):
            return int(value)
        raise ValueError(f"is {_described(value)}; expected an integer from 0 to {MAX_COUNT}")
    if name == "hora":
        hora = parse_hora(value) if isinstance(value, str) else None
        if hora is None:
            raise ValueError(
                f"is {_described(value)}; expected local time as YYYY-MM-DD HH:MM:SS, or RFC 3339"
            )
        return hora
    percentage = name in PERCENTAGES
    wanted = "from 0 to 100" if percentage else "of 0 or more"
    if not _is_number(value):
        raise ValueError(f"is {_described(value)}; expected a number {wanted}")
    if not 0 <= value <= (100 if percentage else float("inf")):
        raise ValueError(f"is {_plain(float(value))}; expected a number {wanted}")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(number: float) -> str:
    """Without an exponent, and without a fraction where there is none."""
    if number.is_integer():
        return f"{number:.0f}"
    return f"{Decimal(repr(number)):f}"


def _described(value: object) -> str:
    """Show a bad value: numbers as they are, strings cut short."""
    if isinstance(value, str):
        short = orjson.dumps(value[:40]).decode()
        return f"the string {short}{'…' if len(value) > 40 else ''}"
    if _is_number(value):
        return repr(value)
    return _kind(value)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
