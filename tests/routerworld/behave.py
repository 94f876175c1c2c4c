"""A pool of one server, as a program: `python behave.py MANNER`.

It listens on a free port of the loopback and tells everything on stdout, one JSON object a line: the port, each request
as it came, and each connection that ended. A line on stdin changes the manner for the requests after it. It speaks as
little HTTP as it needs, by hand, because most of its manners are what no HTTP library would send.
"""

import asyncio
import inspect
import json
import sys
from collections.abc import AsyncIterator, Callable

USAGE = b'"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}'
JSON = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],%b}'
    % USAGE
)
EVENTS = 50
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def event(at: int) -> bytes:
    """Return the event number *at* of a stream, as engines write it; every third one is not ASCII."""
    text = "hé\u2028🙂" if at % 3 == 0 else f"w{at} "
    delta = json.dumps({"content": text}, ensure_ascii=False)
    return (
        '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
        f'"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}'
    ).encode()


def stream() -> bytes:
    """Return every byte of a whole stream."""
    events = b"".join(b"data: %b\n\n" % event(at) for at in range(EVENTS))
    last = b'{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],%b}' % USAGE
    return events + b"data: %b\n\ndata: [DONE]\n\n" % last


def chunk(data: bytes) -> bytes:
    """Return *data* as a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, body: bytes, *lines: bytes) -> bytes:
    """Return an answer."""
    phrase = b"OK" if status == 200 else b"Said"
    first = b"HTTP/1.1 %d %b\r\n" % (status, phrase)
    head = first + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
    return head + b"".join(b"%b\r\n" % line for line in lines) + b"\r\n" + body


async def _json() -> AsyncIterator[bytes]:
    yield whole(200, JSON)


async def _prefill() -> AsyncIterator[bytes]:
    params = b'{"remote_engine_id":"e","remote_block_ids":[1,2]}'
    yield whole(200, JSON[:-1] + b',"kv_transfer_params":%b}' % params)


async def _late() -> AsyncIterator[bytes]:
    await asyncio.sleep(0.5)
    yield whole(200, JSON)


async def _named() -> AsyncIterator[bytes]:
    """Say what must not go on to a client."""
    yield whole(200, JSON, b"connection: keep-alive, x-secret", b"x-secret: 1", b"x-gp-pool: mine", b"keep-alive: 5")


async def _stream() -> AsyncIterator[bytes]:
    yield SSE
    data = stream()
    for at in range(0, len(data), 37):  # boundaries anywhere: within events, within characters
        yield chunk(data[at : at + 37])
        if at % 5 == 0:
            await asyncio.sleep(0.001)
    yield b"0\r\n\r\n"


async def _slow_stream() -> AsyncIterator[bytes]:
    yield SSE
    for at in range(EVENTS):
        yield chunk(b"data: %b\n\n" % event(at))
        await asyncio.sleep(0.05)
    yield chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def _silent() -> AsyncIterator[bytes]:
    await asyncio.sleep(3600)
    yield b""


async def _stall() -> AsyncIterator[bytes]:
    yield SSE + chunk(b"data: %b\n\n" % event(1))
    await asyncio.sleep(3600)


async def _die() -> AsyncIterator[bytes]:
    yield SSE + chunk(b"data: %b\n\n" % event(1)) + chunk(b"data: %b\n\n" % event(2))
    await asyncio.sleep(0.05)
    raise ConnectionAbortedError


async def _die_json() -> AsyncIterator[bytes]:
    yield whole(200, JSON)[:-20]
    await asyncio.sleep(0.05)
    raise ConnectionAbortedError


async def _die_first() -> AsyncIterator[bytes]:
    raise ConnectionAbortedError
    yield b""


async def _drip() -> AsyncIterator[bytes]:
    for at in range(200):
        yield whole(200, JSON)[at : at + 1]
        await asyncio.sleep(0.02)
    yield whole(200, JSON)[200:]


async def _garbage() -> AsyncIterator[bytes]:
    yield b"\x00\xff this is not HTTP\r\n\r\n"


async def _garbage_midway() -> AsyncIterator[bytes]:
    yield SSE + chunk(b"data: %b\n\n" % event(1))
    await asyncio.sleep(0.05)
    yield b"zz\r\nnot a chunk\r\n"
    await asyncio.sleep(3600)


async def _large_head() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nx: " + b"a" * (1 << 20)
    await asyncio.sleep(3600)


async def _unavailable() -> AsyncIterator[bytes]:
    yield whole(503, b'{"error":"busy"}')


async def _error() -> AsyncIterator[bytes]:
    yield whole(500, b'{"error":"broken"}')


async def _until_closed() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n" + JSON
    await asyncio.sleep(0.05)
    raise EOFError


async def _endless() -> AsyncIterator[bytes]:
    yield SSE
    piece = chunk(b"data: " + b"x" * 65000 + b"\n\n")
    while True:
        yield piece


async def _extra() -> AsyncIterator[bytes]:
    yield whole(200, JSON) + whole(200, b'{"smuggled":true}')


async def _continue() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 100 Continue\r\n\r\n" + whole(200, JSON)


async def _once() -> AsyncIterator[bytes]:
    """Answer, and reset the connection when it is used again: the race of kept connections."""
    yield whole(200, JSON)


MANNERS: dict[str, Callable[[], AsyncIterator[bytes]]] = {
    name.removeprefix("_").replace("_", "-"): found
    for name, found in list(globals().items())
    if inspect.isasyncgenfunction(found)
}


class Pool:
    """Serve in one manner."""

    def __init__(self, manner: str) -> None:
        """Begin with nothing served."""
        self.manner = manner
        self.served = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        first = True
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(_length(head))
                self.served += 1
                tell(request=head.decode("latin-1"), body=body.decode("latin-1"))
                if self.manner == "once" and not first:
                    raise ConnectionAbortedError
                first = False
                await self._answer(reader, writer)
        except (EOFError, ConnectionError):
            pass
        finally:
            tell(closed=self.served)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Write the answer, unless the other side goes away before it is whole."""
        gone = asyncio.create_task(reader.read(1))
        writing = asyncio.create_task(self._write(writer))
        done, _ = await asyncio.wait([gone, writing], return_when=asyncio.FIRST_COMPLETED)
        if writing not in done:
            writing.cancel()
            raise EOFError
        gone.cancel()
        await asyncio.wait([gone])
        writing.result()

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        async for data in MANNERS[self.manner]():
            writer.write(data)
            await writer.drain()


def _length(head: bytes) -> int:
    found = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(found[0].partition(b":")[2]) if found else 0


def tell(**what: object) -> None:
    """Tell the test."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main(manner: str) -> None:
    """Serve until killed."""
    pool = Pool(manner)
    server = await asyncio.start_server(pool.serve, "127.0.0.1", 0, backlog=2048, limit=1 << 24)
    tell(port=server.sockets[0].getsockname()[1])
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        pool.manner = line.decode().strip()
        tell(manner=pool.manner)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
