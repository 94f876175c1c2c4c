"""An engine that streams: `python _upstream_sse.py PORT [PAUSE_MS]` answers every POST with 50 chunks, one event each.

Each turn of the loop sends one chunk of every stream, with a system call of its own as engines do, so that what joins
chunks is the proxy or the kernel. With PAUSE_MS there is that long between two turns.
"""

import asyncio
import contextlib
import json
import os
import re
import sys
from typing import cast

import uvloop

CHUNKS = 50

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_OK = b"HTTP/1.1 200 OK\r\n"
_HEAD = _OK + b"content-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
_JSON = b'{"status":"ok"}'
_WELL = _OK + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_JSON), _JSON)


def events() -> list[bytes]:
    """Return the events of an answer."""
    common = {"id": "chatcmpl-0123456789", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m"}
    delta = {"choices": [{"index": 0, "delta": {"content": " token"}, "finish_reason": None}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 480, "completion_tokens": CHUNKS - 2, "total_tokens": 528}}
    spoken = [*[json.dumps(common | delta)] * (CHUNKS - 2), json.dumps(common | usage), "[DONE]"]
    return [f"data: {one}\n\n".encode() for one in spoken]


def _pieces() -> list[bytes]:
    """Return what is sent, turn by turn."""
    pieces = [b"%x\r\n%b\r\n" % (len(one), one) for one in events()]
    return [_HEAD + pieces[0], *pieces[1:-1], pieces[-1] + b"0\r\n\r\n"]


PIECES = _pieces()


class Engine(asyncio.Protocol):
    """One connection."""

    def __init__(self, streams: "Streams") -> None:
        """Begin with no request."""
        self._streams = streams
        self._got = b""
        self._number = -1
        self._transport: asyncio.Transport | None = None
        self.at = 0
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._number = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say no more."""
        del exc
        self._number = -1

    def data_received(self, data: bytes) -> None:
        """Begin to answer a whole request."""
        data = self._got + data if self._got else data
        at = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, at) if at >= 0 else None
        if at < 0 or len(data) < at + 4 + (int(length[1]) if length else 0):
            self._got = data
            return
        self._got = b""
        if data.startswith(b"POST"):
            self.at = 0
            self._streams.begin(self)
        elif self._transport is not None:
            self._transport.write(_WELL)

    def go_on(self) -> bool:
        """Send one piece more, and say whether there are others."""
        if self._number < 0:
            return False
        piece = self.rest or PIECES[self.at]
        sent = 0
        with contextlib.suppress(BlockingIOError):  # the reader is slow: the next turn tries again
            try:
                sent = os.write(self._number, piece)
            except (BrokenPipeError, ConnectionResetError):
                return False
        self.rest = piece[sent:]
        if not self.rest:
            self.at += 1
        return self.at < CHUNKS


class Streams:
    """What is being answered."""

    def __init__(self, pause_s: float) -> None:
        """Begin with nothing."""
        self._pause_s = pause_s
        self._under_way: list[Engine] = []

    def begin(self, engine: Engine) -> None:
        """Answer *engine* from the next turn on."""
        self._under_way.append(engine)
        if len(self._under_way) == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._under_way = [engine for engine in self._under_way if engine.go_on()]
        if not self._under_way:
            return
        loop = asyncio.get_running_loop()
        if self._pause_s:
            loop.call_later(self._pause_s, self._turn)
        else:
            loop.call_soon(self._turn)


async def main(port: int, pause_ms: float) -> None:
    """Serve until killed."""
    streams = Streams(pause_ms / 1000)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Engine(streams), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
