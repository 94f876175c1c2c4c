"""The limit of Python on uvloop: a proxy that checks nothing, `python _proxy_toy.py PORT UPSTREAM_PORT`.

Both sides are bare protocols. It knows keep-alive, Content-Length and chunks that end with the usual five bytes, and
believes whatever it reads; nobody should run it for anything but a comparison.
"""

import asyncio
import re
import socket
import sys
from typing import cast

import uvloop

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_HOST = "127.0.0.1"


class Front(asyncio.Protocol):
    """A client."""

    def __init__(self, back_port: int, idle: "list[Back]") -> None:
        """Begin with no request."""
        self._back_port = back_port
        self._idle = idle
        self._got = b""
        self.transport: asyncio.Transport | None = None
        self.back: Back | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Send a whole request on."""
        data = self._got + data if self._got else data
        at = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, at) if at >= 0 else None
        if at < 0 or len(data) < at + 4 + (int(length[1]) if length else 0):
            self._got = data
            return
        self._got = b""
        if self._idle:
            self._idle.pop().ask(self, data)
        else:
            task = asyncio.get_running_loop().create_task(self._connect(data))
            task.add_done_callback(asyncio.Task.result)

    async def _connect(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, back = await loop.create_connection(lambda: Back(self._idle), _HOST, self._back_port)
        back.ask(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        del exc
        self.transport = None
        if self.back is not None and self.back.transport is not None:
            self.back.transport.abort()


class Back(asyncio.Protocol):
    """A connection to the upstream."""

    def __init__(self, idle: "list[Back]") -> None:
        """Begin unconnected."""
        self._idle = idle
        self._left: int | None = None
        self._chunked = False
        self._front: Front | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self.transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        del exc
        self.transport = None
        if self in self._idle:
            self._idle.remove(self)

    def ask(self, front: Front, data: bytes) -> None:
        """Send *data* for *front*."""
        self._front, front.back, self._left = front, self, None
        if self.transport is not None:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Pass *data* back, and see whether it ends the answer."""
        front = self._front
        if front is None or front.transport is None:
            return
        front.transport.write(data)
        if self._left is None:
            at = data.find(b"\r\n\r\n")
            length = _LENGTH.search(data, 0, at)
            self._chunked = length is None
            self._left = int(length[1]) + at + 4 if length else 0
        self._left -= len(data)
        if data.endswith(b"\r\n0\r\n\r\n") if self._chunked else self._left == 0:
            self._front = front.back = None
            self._idle.append(self)


async def main(port: int, back_port: int) -> None:
    """Serve until killed."""
    idle: list[Back] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Front(back_port, idle), _HOST, port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
