"""Two calls for one request: the prefill pool first, then the decode pool with what it said.

For engines without a sidecar that understands `x-prefiller-host-port`: vLLM with a connector that hands the cache over
by `kv_transfer_params` (NixlConnector and its like).

Rules of this file: the bodies are made by pure functions; a prefill that fails costs time and not the request, because
an engine that is handed nothing reads the prompt itself.
"""

from typing import Any, Protocol

import msgspec

from gpadapters.router.client import Request
from gpadapters.router.fleet import Asker, Connection, Endpoint
from gpadapters.router.heads import AnswerHead
from gpadapters.router.refusals import Refusal
from gpadapters.router.settings import MIB

_MAX_BYTES = 4 * MIB
_OK = 200
_PARAMS = "kv_transfer_params"
_ASKED = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


def prefill_body(body: bytes) -> bytes:
    """Return what asks for the cache of the prompt of *body* and one token."""
    asked: dict[str, Any] = msgspec.json.decode(body)
    asked.pop("stream_options", None)
    if "max_completion_tokens" in asked:
        asked["max_completion_tokens"] = 1
    if "min_tokens" in asked:
        asked["min_tokens"] = 1
    return msgspec.json.encode({**asked, "stream": False, "max_tokens": 1, _PARAMS: _ASKED})


def decode_body(body: bytes, answer: bytes) -> bytes:
    """Return *body* with what the *answer* of the prefill says about its cache, or as it is if that says nothing."""
    try:
        said = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    params = said.get(_PARAMS) if isinstance(said, dict) else None
    if not isinstance(params, dict):
        return body
    return msgspec.json.encode({**msgspec.json.decode(body), _PARAMS: params})


class Connections(Protocol):
    """Who has connections to endpoints."""

    tick: float

    def connection(self, endpoint: Endpoint) -> Connection | None:
        """Return a kept one."""
        ...

    def connect(self, endpoint: Endpoint, asker: Asker) -> None:
        """Make one for *asker*."""

    def keep(self, connection: Connection) -> None:
        """Keep one that is not needed."""


class Prefilling(Protocol):
    """A request whose prompt is read first."""

    request: Request

    def prefilled(self, body: bytes) -> None:
        """Go on with *body*."""


class PrefillCall:
    """The first of the two calls; to a connection it looks like any request."""

    def __init__(self, router: Connections, exchange: Prefilling, endpoint: Endpoint) -> None:
        """Begin nothing yet."""
        self._router = router
        self._exchange = exchange
        self._endpoint = endpoint
        self._upstream: Connection | None = None
        self._parts: list[bytes] = []
        self._status = 0
        self._bytes = 0
        self._done = False

    def begin(self) -> None:
        """Send it."""
        upstream = self._router.connection(self._endpoint)
        if upstream is None:
            self._router.connect(self._endpoint, self)
        else:
            self.connected(upstream)

    def connected(self, connection: Connection) -> None:
        """Send the request: there is a connection."""
        if self._done:
            self._router.keep(connection)
            return
        self._upstream = connection
        request = self._exchange.request
        body = prefill_body(request.body)
        start = b"POST %b HTTP/1.1\r\n%b" % (request.target, self._endpoint.request_head)
        connection.ask(self, b"%b%bcontent-length: %d\r\n\r\n%b" % (start, request.head.lines, len(body), body))

    def whole(self, head: AnswerHead, body: bytes) -> None:
        """Take an answer that came in one read."""
        self.received(head, body, complete=True, status=_OK)

    def received(self, head: AnswerHead | None, body: bytes, *, complete: bool, status: int = 0) -> None:
        """Take a part of the answer."""
        if self._done:
            return
        if head is not None:
            self._status = status
        self._parts.append(body)
        self._bytes += len(body)
        if self._bytes > _MAX_BYTES:
            self.give_up()
        elif complete:
            self._end(b"".join(self._parts) if self._status == _OK else b"", failed=self._status != _OK)

    def lost(self, why: Refusal) -> None:
        """Go on without: the connection ended early."""
        del why
        upstream, self._upstream = self._upstream, None
        if self._done:
            return
        if upstream is not None and upstream.reused and not self._status:
            self._router.connect(self._endpoint, self)
        else:
            self._end(b"", failed=True)

    def give_up(self) -> None:
        """Go on without: it takes too long, or says too much."""
        self.drop()
        self._end(b"", failed=True)

    def drop(self) -> None:
        """Stop: nobody waits for it."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.drop()

    def leave(self) -> None:
        """Stop for good: the client has left."""
        self._done = True
        self.drop()

    def _end(self, answer: bytes, *, failed: bool) -> None:
        self._done = True
        if failed:
            self._endpoint.failed(self._router.tick)
        else:
            self._endpoint.succeeded()
        self._exchange.prefilled(decode_body(self._exchange.request.body, answer))
