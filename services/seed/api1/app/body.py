"""Reading a request's JSON body within bounds."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from .problem import Problem

#: Largest body, bytes: nginx's `proxy-body-size` of 1m lets the same through.
MAX_BODY = 1 << 20

#: How much of a body that is too large is still taken in, so that a client that
#: only listens after sending reads the 413 and not a reset.
DRAIN_UP_TO = 16 << 20
DRAIN_WITHIN = 5.0

#: Seconds that a body may take to arrive.
BODY_WITHIN = 30.0


async def read_json(request: Request) -> bytes:
    """Give the whole body of a request that says it is JSON.

    Raises a Problem: 415, 413, 408, or 400 when the client broke off.
    """
    expects = "expect" in request.headers
    # With `Expect: 100-continue` the body has not been sent yet, and by not
    # reading it the server never asks for it; the connection can't go on then.
    unread = {"Connection": "close"} if expects else {}
    if not is_json(request.headers.get("content-type")):
        raise Problem(415, "expected Content-Type: application/json in UTF-8", headers=unread)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY:
        if not expects:
            await _discard(request.stream())
        raise _too_large(unread)
    try:
        async with asyncio.timeout(BODY_WITHIN):
            return await _collect(request)
    except TimeoutError:
        raise Problem(
            408,
            f"the body did not arrive within {BODY_WITHIN:.0f}s",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise Problem(400, "the body broke off") from None


async def _collect(request: Request) -> bytes:
    """Collect a body whose length is not known beforehand, or is and is small."""
    whole = bytearray()
    stream = request.stream()
    async for chunk in stream:
        if len(whole) + len(chunk) > MAX_BODY:
            await _discard(stream)
            raise _too_large({})
        whole += chunk
    return bytes(whole)


def _too_large(headers: dict[str, str]) -> Problem:
    return Problem(
        413,
        f"the body is larger than {MAX_BODY} bytes; send fewer records at a time",
        headers=headers,
    )


async def _discard(stream: AsyncIterator[bytes]) -> None:
    seen = 0
    try:
        async with asyncio.timeout(DRAIN_WITHIN):
            async for chunk in stream:
                seen += len(chunk)
                if seen > DRAIN_UP_TO:
                    return
    except (TimeoutError, ClientDisconnect):
        return


def is_json(value: str | None) -> bool:
    """`application/json` or `application/*+json`; JSON is UTF-8 (RFC 8259)."""
    media, *parameters = [part.strip() for part in (value or "").lower().split(";")]
    if media != "application/json" and not (
        media.startswith("application/") and media.endswith("+json")
    ):
        return False
    for parameter in parameters:
        name, equals, charset = parameter.partition("=")
        if equals and name == "charset" and charset.strip('"') not in {"utf-8", "utf8", "us-ascii"}:
            return False
    return True
