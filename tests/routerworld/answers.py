"""Clients that send bytes, and read what comes back as it comes."""

import contextlib
import json
import socket
import struct
import time
from typing import Any, NamedTuple, Self

_HEAD_END = b"\r\n\r\n"


def chat(*, body: object = None, headers: str = "", path: str = "/v1/chat/completions", **fields: object) -> bytes:
    """Return the bytes of a request."""
    content = body if isinstance(body, bytes) else json.dumps(body or {"model": "m", "messages": [], **fields}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: router\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode("latin-1") + content


class Answer(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """Return the error that it tells."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class Raw:
    """A connection, by hand."""

    def __init__(self, port: int, *, timeout_s: float = 10.0, receive_bytes: int | None = None) -> None:
        """Connect."""
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(timeout_s)
        self.socket.connect(("127.0.0.1", port))
        self._read = b""

    def send(self, data: bytes) -> Self:
        """Send *data*."""
        self.socket.sendall(data)
        return self

    def offer(self, data: bytes) -> Self:
        """Send *data*, as much as the other side takes."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)
        return self

    def answer(self) -> Answer:
        """Read one whole answer."""
        status, headers = self.head()
        while status == 100:
            status, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, self._chunks())
        return Answer(status, headers, self._exactly(int(headers.get("content-length", 0))))

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer."""
        while _HEAD_END not in self._read:
            self._more()
        head, _, self._read = self._read.partition(_HEAD_END)
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        return int(first.split()[1]), {name.lower(): value for name, _, value in pairs}

    def chunk(self) -> bytes:
        """Read one chunk."""
        while b"\r\n" not in self._read:
            self._more()
        size, _, self._read = self._read.partition(b"\r\n")
        return self._exactly(int(size, 16) + 2)[:-2]

    def closed(self, *, within_s: float = 5.0) -> bool:
        """Say whether the other side closes; what it still sends is read."""
        self.socket.settimeout(within_s)
        try:
            while data := self.socket.recv(65536):
                self._read += data
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return True

    @property
    def rest(self) -> bytes:
        """Return what was read and not used."""
        return self._read

    def close(self) -> None:
        """Close."""
        self.socket.close()

    def reset(self) -> None:
        """Close so that the other side is told that something is wrong."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        """Give it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _chunks(self) -> bytes:
        parts = []
        while part := self.chunk():
            parts.append(part)
        return b"".join(parts)

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        data, self._read = self._read[:size], self._read[size:]
        return data

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {self._read[:200]!r}")
        self._read += data


def ask(port: int, data: bytes, *, timeout_s: float = 10.0) -> Answer:
    """Send *data* on a connection of its own and read one answer."""
    with Raw(port, timeout_s=timeout_s) as raw:
        return raw.send(data).answer()


def took(began: float) -> float:
    """Return the seconds since *began*."""
    return time.monotonic() - began
