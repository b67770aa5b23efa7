import json
from typing import Any

import pytest

from app.hora import parse_hora
from app.problem import MAX_ERRORS, Problem
from app.record import FIELDS, MAX_BATCH, Batch, parse_body

Json = dict[str, Any]


def good(**changed: object) -> Json:
    return {
        "total_ram": 8192,
        "ram_libre": 4096.5,
        "uso_ram": 4095.5,
        "porcentaje_ram": 50.0,
        "porcentaje_cpu_uso": 12.5,
        "porcentaje_cpu_libre": 87.5,
        "procesos_corriendo": 3,
        "total_procesos": 120,
        "procesos_durmiendo": 115,
        "procesos_zombie": 1,
        "procesos_parados": 1,
        "hora": "2025-03-01 12:30:59",
    } | changed


def parse(value: object) -> Batch:
    return parse_body(json.dumps(value).encode())


def errors(value: object) -> list[Json]:
    with pytest.raises(Problem) as caught:
        parse(value)
    assert caught.value.status == 422
    return [error.as_json() for error in caught.value.errors]


def test_a_good_record_is_taken_whole() -> None:
    batch = parse(good())
    assert batch.records == [tuple(good().values())]
    assert batch.unknown == []


def test_every_missing_field_is_named() -> None:
    assert errors({}) == [{"field": field, "message": "is missing"} for field in FIELDS]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("total_ram", -0.1, "is -0.1; expected a number of 0 or more"),
        ("total_ram", "8192", 'is the string "8192"; expected a number of 0 or more'),
        ("ram_libre", None, "is null; expected a number of 0 or more"),
        ("porcentaje_ram", 100.01, "is 100.01; expected a number from 0 to 100"),
        ("porcentaje_ram", 1e21, f"is 1{'0' * 21}; expected a number from 0 to 100"),
        ("porcentaje_cpu_uso", -1, "is -1; expected a number from 0 to 100"),
        ("porcentaje_cpu_libre", True, "is a boolean; expected a number from 0 to 100"),
        ("procesos_corriendo", 1.5, "is 1.5; expected an integer from 0 to 4294967295"),
        ("procesos_corriendo", -1, "is -1; expected an integer from 0 to 4294967295"),
        ("total_procesos", 2**32, "is 4294967296; expected an integer from 0 to 4294967295"),
        ("total_procesos", 2e300, "is 2e+300; expected an integer from 0 to 4294967295"),
        ("procesos_zombie", "1", 'is the string "1"; expected an integer from 0 to 4294967295'),
        ("procesos_parados", [1], "is an array; expected an integer from 0 to 4294967295"),
        (
            "hora",
            "x" * 41,
            f'is the string "{"x" * 40}"…; expected local time as YYYY-MM-DD HH:MM:SS, or RFC 3339',
        ),
        ("hora", {}, "is an object; expected local time as YYYY-MM-DD HH:MM:SS, or RFC 3339"),
    ],
)
def test_a_bad_field_is_named_alone(field: str, value: object, message: str) -> None:
    assert errors(good(**{field: value})) == [{"field": field, "message": message}]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("porcentaje_ram", 0),
        ("porcentaje_ram", 100),
        ("procesos_zombie", 2**32 - 1),
        ("procesos_zombie", 5.0),
        ("total_ram", 1e300),
        ("hora", "2025-03-01T12:30:59-06:00"),
    ],
)
def test_the_bounds_themselves_are_good(field: str, value: object) -> None:
    assert len(parse(good(**{field: value})).records) == 1


def test_unknown_fields_are_named_not_refused() -> None:
    assert parse(good(zona={"a": 1}, maquina="vm-1")).unknown == ["maquina", "zona"]


def test_the_names_of_unknown_fields_are_bounded() -> None:
    unknown = parse(good(**{f"{n:02}{'x' * 100}": n for n in range(40)})).unknown
    assert len(unknown) == 32
    assert unknown[-1] == f"31{'x' * 62}"


def test_errors_of_an_array_carry_the_index() -> None:
    found = errors([good(), good(uso_ram="x"), 7, good(hora="")])
    assert [(error["index"], error["field"]) for error in found] == [
        (1, "uso_ram"),
        (2, ""),
        (3, "hora"),
    ]


@pytest.mark.parametrize("bad", [[], [good()] * (MAX_BATCH + 1), "text", 1, None])
def test_an_array_holds_one_to_a_thousand(bad: object) -> None:
    assert len(parse([good()] * MAX_BATCH).records) == MAX_BATCH
    assert [error["field"] for error in errors(bad)] == [""]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":}',
        b"total_ram=1",
        b'{"a":NaN}',
        b'{"a":1e400}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_what_is_not_json_is_a_syntax_error(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        parse_body(body)
    assert caught.value.status == 400


def test_an_answer_names_a_thousand_bad_fields_and_counts_the_rest() -> None:
    with pytest.raises(Problem) as caught:
        parse([{}] * 100)
    body = json.loads(caught.value.response().body)
    assert len(body["errors"]) == MAX_ERRORS
    assert body["errors_omitted"] == 200


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("2025-03-01 12:30:59", "2025-03-01 12:30:59"),
        ("2024-02-29 00:00:00", "2024-02-29 00:00:00"),
        ("2025-03-01T12:30:59Z", "2025-03-01 12:30:59"),
        ("2025-03-01t12:30:59z", "2025-03-01 12:30:59"),
        ("2025-12-31T23:59:59.999999-06:00", "2025-12-31 23:59:59"),
        ("2025-03-01 12:30:59+05:30", "2025-03-01 12:30:59"),
        ("2016-12-31T23:59:60Z", "2016-12-31 23:59:59"),
    ],
)
def test_the_wall_clock_is_kept(text: str, clock: str) -> None:
    assert parse_hora(text) == clock


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-03-01",
        "2025-02-29 00:00:00",
        "2025-13-01 00:00:00",
        "2025-03-01 24:00:00",
        "2025-03-01 12:60:00",
        "2025-03-01 12:30:60",
        "2025/03/01 12:30:59",
        "0999-03-01 12:30:59",
        "2025-03-01T12:30:59",
        "2025-03-01T12:30:59.Z",
        "2025-03-01T12:30:59+24:00",
        "2025-03-01T12:30:59 Z",
        "2025-03-01 12:30:5\uff19",
        " 2025-03-01 12:30:59",
        "2025-03-01 12:30:59 ",
        "2025-03-01 12:30:59\n",
        "+025-03-01 12:30:59",
    ],
)
def test_anything_else_is_no_clock(text: str) -> None:
    assert parse_hora(text) is None
