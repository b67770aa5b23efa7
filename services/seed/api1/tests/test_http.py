"""The application without a database: what is answered before one is asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from app.body import MAX_BODY, is_json
from app.config import Config
from app.main import create_app
from app.problem import Problem
from app.read import Page
from app.service import Service

JSON = {"Content-Type": "application/json"}
LONG_KEY = {"Idempotency-Key": "x" * 65}


def service(**env: str) -> Service:
    # Port 1 on loopback: nobody listens there.
    base = {"DB_USER": "u", "DB_PASSWORD": "p", "DB_HOST": "127.0.0.1", "DB_PORT": "1"}
    return Service.of(Config.from_env(base | {"DB_ACQUIRE_TIMEOUT_MS": "50"} | env))


@asynccontextmanager
async def client(of: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(of))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as one:
        yield one


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ("application/json", True),
        ("Application/JSON; charset=UTF-8", True),
        ('application/json;charset="utf-8"', True),
        ("application/vnd.telemetry+json", True),
        ("application/json; charset=latin1", False),
        ("text/json", False),
        ("application/x-www-form-urlencoded", False),
        ("", False),
        (None, False),
    ],
)
def test_json_by_its_type(value: str | None, json: bool) -> None:
    assert is_json(value) is json


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ({}, Page(100)),
        ({"limit": "1", "after": "0"}, Page(1, 0)),
        ({"limit": "1000", "after": "9223372036854775807"}, Page(1000, 2**63 - 1)),
    ],
)
def test_pages(query: dict[str, str], page: Page) -> None:
    assert Page.from_query(query) == page


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"limit": "1_0"},
        {"limit": ""},
        {"after": "-1"},
        {"after": "9223372036854775808"},
        {"after": "1.0"},
    ],
)
def test_bad_pages(query: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        Page.from_query(query)
    assert [error.field for error in caught.value.errors] == list(query)


async def test_refusals_come_before_the_database() -> None:
    async with client(service()) as api:
        answers = [
            (415, await api.post("/api", content="{}")),
            (400, await api.post("/api", content="{", headers=JSON)),
            (422, await api.post("/api", content="{}", headers=JSON)),
            (413, await api.post("/api", content=" " * (MAX_BODY + 1), headers=JSON)),
            (
                422,
                await api.post("/api", content="{}", headers=JSON | {"Idempotency-Key": "x" * 65}),
            ),
            (405, await api.put("/api")),
            (404, await api.get("/apix")),
            (404, await api.get("/docs")),
        ]
    for status, answer in answers:
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
    assert answers[5][1].headers["allow"] == "POST, OPTIONS"


async def test_a_key_that_is_there_twice_is_refused() -> None:
    async with client(service()) as api:
        headers = [*JSON.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        answer = await api.post("/api", content="{}", headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "Idempotency-Key", "message": "is there twice"}]


async def test_without_a_database_it_is_alive_and_not_ready() -> None:
    one = service()
    async with client(one) as api:
        assert (await api.get("/healthz")).text == "ok\n"
        for path in ("/readyz", "/api/records"):
            answer = await api.get(path)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
        assert 'telemetry_db_up{api="api1"} 0.0' in (await api.get("/metrics")).text
        one.draining = True
        answer = await api.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "stopping\n")
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("configured", "origin", "allowed"),
    [
        ("*", "http://x", "*"),
        ("http://a.example", "http://a.example", "http://a.example"),
        ("http://a.example", "http://b.example", None),
        ("", "http://x", None),
    ],
)
async def test_cors(configured: str, origin: str, allowed: str | None) -> None:
    async with client(service(CORS_ORIGIN=configured)) as api:
        plain = await api.get("/healthz", headers={"Origin": origin})
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = await api.options("/api", headers=asked)
    for answer in (plain, preflight):
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert ("vary" in answer.headers) is ("example" in configured)
    assert preflight.status_code == 204
    assert ("access-control-allow-headers" in preflight.headers) is (allowed is not None)
