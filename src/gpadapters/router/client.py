"""One connection of a client: requests in, answers out, strictly in order.

Rules of this file: httptools splits the bytes and `heads` judges them; a connection whose framing is in doubt is
answered once and closed; what is read ahead is bounded; no timer per connection, the router sweeps.
"""

import asyncio
import enum
from collections import deque
from typing import Protocol, cast

import httptools

from gpadapters.router import refusals
from gpadapters.router.heads import HeadError, RequestHead, read_request
from gpadapters.router.plain import plain_request
from gpadapters.router.refusals import Refusal, answer
from gpadapters.router.settings import KIB, Settings


class Request:
    """One whole request."""

    __slots__ = ("body", "close", "head", "length", "method", "model", "target")

    def __init__(self, method: bytes, target: bytes, head: RequestHead, body: bytes) -> None:
        """Hold what was read."""
        self.method = method
        self.target = target
        self.head = head
        self.body = body
        self.close = head.close
        self.model = ""
        self.length = 0


class Begun(Protocol):
    """A request on its way, as its client sees it."""

    def abandon(self) -> None:
        """Stop: the client has left."""

    def stop(self) -> None:
        """Stop: the router does."""

    def hold(self) -> None:
        """Send no more for now."""

    def go_on(self) -> None:
        """Send again."""

    def sweep(self, now: float) -> None:
        """End what takes too long."""


class Host(Protocol):
    """What all clients share."""

    settings: Settings
    tick: float
    closing: bool
    held_bytes: int

    def welcome(self, client: "Client") -> bool:
        """Say whether one more may come in."""
        ...

    def farewell(self, client: "Client") -> None:
        """Forget it."""

    def begin(self, client: "Client", request: Request) -> None:
        """Answer a request, or send it on its way."""

    def refused(self, refusal: Refusal) -> None:
        """Count an answer of the router itself."""


class _Phase(enum.Enum):
    """What a connection is doing, for the sweep."""

    BETWEEN = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    LINGER = enum.auto()


_BETWEEN, _HEAD, _BODY, _LINGER = _Phase


class Client(asyncio.Protocol):
    """Speak HTTP/1.1 with one client."""

    __slots__ = (
        "_arrived",
        "_body",
        "_body_bytes",
        "_broken",
        "_head",
        "_head_bytes",
        "_headers",
        "_limits",
        "_parser",
        "_phase",
        "_refusal",
        "_router",
        "_since",
        "_target",
        "_waiting",
        "exchange",
        "paused",
        "paused_since",
        "peer",
        "transport",
    )

    def __init__(self, router: Host) -> None:
        """Begin unconnected."""
        self._router = router
        self._limits = router.settings.limits
        self._parser = httptools.HttpRequestParser(self)
        self._phase = _BETWEEN
        self._since = router.tick
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: RequestHead | None = None
        self._head_bytes = 0
        self._arrived = 0
        self._target = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._waiting: deque[Request] | None = None
        self._refusal: Refusal | None = None
        self._broken: Refusal | None = None
        self.exchange: Begun | None = None
        self.paused = False
        self.paused_since = 0.0
        self.peer = ""
        self.transport: asyncio.Transport | None = None

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or turn it away when there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=self._limits.stream_bytes // 2)
        peer = self.transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        if not self._router.welcome(self):
            self.refuse(refusals.CROWDED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what was going on: nobody waits for it any more."""
        del exc
        self._forget_body()
        for request in self._waiting or ():
            self._router.held_bytes -= len(request.body)
        self.transport = None
        self._waiting = None
        self._router.farewell(self)
        if self.exchange is not None:
            self.exchange.abandon()

    def eof_received(self) -> bool:
        """Close: a client that says it is done is taken to have left, or its upstream would work for nobody."""
        if self.exchange is not None:
            self.abort()
        return False

    def pause_writing(self) -> None:
        """Stop reading the upstream while the client does not read."""
        self.paused = True
        self.paused_since = self._router.tick
        if self.exchange is not None:
            self.exchange.hold()

    def resume_writing(self) -> None:
        """Go on."""
        self.paused = False
        if self.exchange is not None:
            self.exchange.go_on()

    def data_received(self, data: bytes) -> None:
        """Read *data*, and begin the requests that it completes."""
        if self._phase is _BETWEEN and self.exchange is None and not self._waiting and self._broken is None:
            plain = plain_request(data, self._limits)
            if plain is not None:
                self._router.held_bytes += len(plain.body)
                self._router.begin(self, Request(b"POST", plain.target, plain.head, plain.body))
                return
        if self._phase is _LINGER or self._broken is not None:
            return
        self._arrived = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break(self._refusal or refusals.UPGRADE)
        except httptools.HttpParserError:
            self._break(self._refusal or refusals.MALFORMED)
        else:
            if self._phase is not _BETWEEN:
                self._bound()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._headers = []
        self._target = b""
        self._phase = _HEAD
        self._since = self._router.tick
        self._head_bytes = -self._arrived  # what came before it in the same read is not its own

    def on_url(self, part: bytes) -> None:
        """Take a part of the target."""
        self._target = self._target + part if self._target else part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header; what is too many is judged when all are there, or by `_bound`."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Judge the head."""
        if self._parser.get_http_version() != "1.1":
            raise self._stop(refusals.VERSION)
        if len(self._target) > self._limits.target_bytes:
            raise self._stop(refusals.TARGET_LONG)
        if not self._target.startswith(b"/") or b"#" in self._target:
            raise self._stop(refusals.TARGET_FORM)
        try:
            self._head = head = read_request(self._headers, self._limits)
        except HeadError as error:
            raise self._stop(error.refusal) from error
        self._headers = []  # the next ones are trailers
        self._phase = _BODY
        if head.length is not None and head.length > self._limits.body_bytes:
            raise self._stop(refusals.BODY_LARGE)
        if head.expects and self.transport is not None and self.exchange is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        size = len(part)
        self._body.append(part)
        self._body_bytes += size
        router = self._router
        router.held_bytes += size
        if self._body_bytes > self._limits.body_bytes:
            raise self._stop(refusals.BODY_LARGE)
        if router.held_bytes > self._limits.bodies_bytes:
            raise self._stop(refusals.BODIES_LARGE)

    def on_message_complete(self) -> None:
        """Begin what was asked, or keep it until the one before is answered."""
        head = self._head
        if head is None:  # the parser ends a request that was refused in its head
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(self._parser.get_method(), self._target, head, body)
        self._body, self._body_bytes, self._head, self._phase = [], 0, None, _BETWEEN
        if self.exchange is None and not self._waiting:
            self._router.begin(self, request)
        else:
            self._queue(request)

    # What an exchange calls.

    def send(self, data: bytes) -> None:
        """Write *data*, unless the client has left."""
        if self.transport is not None:
            self.transport.write(data)

    def done(self, *, close: bool) -> None:
        """End the exchange, and begin the next one if it is here already."""
        self.exchange = None
        self._since = self._router.tick
        if self.transport is None:
            return
        if close:
            self._linger()
        elif self._waiting:  # in a turn of its own, so that a thousand refusals do not nest
            asyncio.get_running_loop().call_soon(self._next)
        elif self._broken is not None:
            self.refuse(self._broken)
        elif self._router.closing:
            self.transport.close()

    def abort(self) -> None:
        """Cut the connection, so that nobody takes what was sent for a whole answer."""
        if self.transport is not None:
            self.transport.abort()

    def refuse(self, refusal: Refusal) -> None:
        """Answer with *refusal* and close."""
        self._forget_body()
        self._router.refused(refusal)
        self.send(answer(refusal, close=True))
        self._linger()

    # What the router calls.

    def sweep(self, now: float) -> None:
        """End what takes too long."""
        times = self._router.settings.timeouts
        since = now - self._since
        if self.paused and now - self.paused_since > times.stopped_reading_s:
            self.abort()
        elif self._phase is _LINGER:
            if since > times.linger_s:
                self.abort()
        elif self.exchange is not None:
            self.exchange.sweep(now)
        elif self._phase is _HEAD:
            if since > times.head_s:
                self.refuse(refusals.SLOW)
        elif self._phase is _BODY:
            if since > times.body_s and self._body_bytes < since * KIB:
                self.refuse(refusals.SLOW)
        elif since > times.idle_s or self._router.closing:
            self.close()

    def close(self) -> None:
        """Close the connection when what was written has gone out."""
        if self.transport is not None:
            self.transport.close()

    # Helpers.

    def _stop(self, refusal: Refusal) -> HeadError:
        """Return what ends the parsing; what to answer is remembered here, because the parser wraps it."""
        self._refusal = refusal
        self._head = None
        return HeadError(refusal)

    def _break(self, refusal: Refusal) -> None:
        """Read no more; answer with *refusal*, after the answers that are still to come."""
        self._phase = _BETWEEN
        self._forget_body()
        if self.exchange is None and not self._waiting:
            if self.transport is not None and not self.transport.is_closing():
                self.refuse(refusal)
        else:
            self._broken = refusal

    def _bound(self) -> None:
        """Bound what has arrived of a head, and of trailers."""
        if self._phase is _HEAD:
            self._head_bytes += self._arrived
            if len(self._target) > self._limits.target_bytes:
                self._break(refusals.TARGET_LONG)
            elif self._head_bytes > self._limits.head_bytes + self._limits.target_bytes:
                self._break(refusals.HEAD_LARGE)
        elif len(self._headers) > self._limits.headers:
            self._break(refusals.HEAD_LARGE)

    def _queue(self, request: Request) -> None:
        if self._waiting is None:
            self._waiting = deque()
        if len(self._waiting) >= self._limits.pipelined:
            raise self._stop(refusals.CROWDED)
        self._waiting.append(request)

    def _next(self) -> None:
        """Begin the oldest that waits, if it still may."""
        if self._waiting and self.transport is not None and self.exchange is None:
            self._router.begin(self, self._waiting.popleft())

    def _forget_body(self) -> None:
        if self._body_bytes:
            self._router.held_bytes -= self._body_bytes
        self._body, self._body_bytes = [], 0

    def _linger(self) -> None:
        """Send what is left and read on for a while: closing at once would take back what was sent."""
        for request in self._waiting or ():
            self._router.held_bytes -= len(request.body)
        self._waiting = None
        self._phase = _LINGER
        self._since = self._router.tick
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()
