"""What no HTTP library would send: raw bytes on a socket."""

import asyncio
import json
import logging
from urllib.parse import urlsplit

import pytest

from tests.adapters.http.world import World, document

BODY = json.dumps(document()).encode()
HEAD = b"Host: planner\r\nContent-Type: application/json\r\n"


async def answer(world: World, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send *parts* and return all that comes until the server closes."""
    url = urlsplit(world.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


async def test_a_body_that_does_not_arrive_in_time_is_given_up(world: World) -> None:
    head = b"POST /v1/scale HTTP/1.1\r\n" + HEAD + b"Content-Length: 300\r\n\r\n"
    found = await answer(world, head, BODY[:10])
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b'"kind":"body_timeout"' in found


async def test_chunks_that_do_not_end_are_given_up(world: World) -> None:
    head = b"POST /v1/scale HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    found = await answer(world, head, *([b"1\r\n \r\n"] * 8), pause_s=0.02)
    assert found.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1/scale HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/scale HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
        b"POST /v1/scale HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n",
        b"POST /v1/scale HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/pools HTTP/9.9\r\nHost: planner\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/pools HTTP/1.1\r\nHost: planner\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /v1/pools HTTP/1.1\r\nHost: planner\r\n" + b"X: x\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: planner\r\n\r\n",
        b"GET /v1/pools HTTP/1.1\r\nHost: planner\r\nX y: x\r\n\r\n",
        b"GET /v1/pools HTTP/1.1\r\nHost: planner\r\nX: a\x00b\r\n\r\n",
        b"GET /v1/pools HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
    ],
    ids=lambda one: ascii(one[:24]) + str(len(one)),
)
async def test_what_is_not_http_is_refused_without_a_trace_of_how_it_is_made(
    world: World, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = world.planner.state.snapshot
    found = await answer(world, request_bytes)
    assert all(one.levelno <= logging.INFO and not one.exc_info for one in caplog.records)
    assert all(len(one.getMessage()) < 300 for one in caplog.records if one.name.startswith("gpadapters.http"))
    assert found.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"Traceback" not in found
    assert world.planner.state.snapshot == before


async def test_requests_in_one_packet_are_answered_in_their_order(world: World) -> None:
    scale = b"POST /v1/scale HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    found = await answer(world, scale + b"GET /healthz HTTP/1.1\r\nHost: planner\r\nConnection: close\r\n\r\n")
    assert found.index(b'"status":"success"') < found.index(b'"status":"ok"')
