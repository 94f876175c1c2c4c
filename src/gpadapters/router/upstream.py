"""One connection to an endpoint, kept between requests.

Rules of this file: httptools splits the bytes; what one read brought is handed over at once, so that it is written at
once; an endpoint that says more than it was asked for, or what is not HTTP, loses its connection.
"""

import asyncio
from typing import Protocol, cast

import httptools

from gpadapters.router import refusals
from gpadapters.router.fleet import Asker, Connection, Endpoint
from gpadapters.router.heads import CLOSE_FRAMED, AnswerHead, HeadError, read_answer
from gpadapters.router.plain import plain_answer
from gpadapters.router.settings import KIB, Settings

READ_BYTES = 64 * KIB
_READ = bytearray(READ_BYTES)
_VIEW = memoryview(_READ)
"""Every connection reads into the same memory: what was read is used up before the next one reads."""

_FINAL = 200


class Keeper(Protocol):
    """Who keeps connections between requests."""

    settings: Settings

    def keep(self, connection: Connection) -> None:
        """Keep it for the next request."""

    def forget(self, connection: Connection) -> None:
        """Forget it: it was closed."""


class Upstream(asyncio.BufferedProtocol):
    """Speak HTTP/1.1 with one endpoint, one request at a time."""

    __slots__ = (
        "_body",
        "_complete",
        "_extra",
        "_fresh_head",
        "_head",
        "_head_bytes",
        "_headers",
        "_held",
        "_lasting",
        "_parser",
        "_router",
        "endpoint",
        "exchange",
        "idle_since",
        "reused",
        "transport",
    )

    def __init__(self, router: Keeper, endpoint: Endpoint) -> None:
        """Begin unconnected."""
        self._router = router
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: AnswerHead | None = None
        self._fresh_head = False
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._complete = False
        self._extra = False
        self._lasting = False
        self._held = False
        self.endpoint = endpoint
        self.exchange: Asker | None = None
        self.reused = False
        self.idle_since = 0.0
        self.transport: asyncio.Transport | None = None

    @property
    def open(self) -> bool:
        """Say whether it can be asked over."""
        return self.transport is not None and not self.transport.is_closing()

    def ask(self, asker: Asker, data: bytes) -> None:
        """Send the request *data* of *asker*."""
        self.exchange = asker
        if self.transport is None:
            asker.lost(refusals.UPSTREAM_BAD)
        else:
            self.transport.write(data)

    def drop(self) -> None:
        """Close at once: nobody wants the rest."""
        self.exchange = None
        if self.transport is not None:
            self.transport.abort()

    def hold(self) -> None:
        """Read no more for now."""
        if self.transport is not None and not self._held:
            self._held = True
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        if self.transport is not None and self._held:
            self._held = False
            self.transport.resume_reading()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits; it may be the end of an answer that ends so."""
        self.transport = None
        exchange = self.exchange
        if exchange is None:
            self._router.forget(self)
            return
        self.exchange = None
        if exc is None and self._head is not None and self._head.length == CLOSE_FRAMED:
            exchange.received(None, b"", complete=True)
        else:
            exchange.lost(refusals.UPSTREAM_BAD)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where to read to."""
        del sizehint
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        """Read what arrived, and hand it over."""
        exchange = self.exchange
        if exchange is None:  # nobody asked
            self.drop()
            return
        if self._head is None and not self._head_bytes:  # nothing of this answer was read before
            plain = plain_answer(bytes(_VIEW[:nbytes]))
            if plain is not None:
                self.exchange = None
                exchange.whole(*plain)
                if self._held:
                    self.go_on()
                self._router.keep(self)
                return
        try:
            self._parser.feed_data(_VIEW[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._garbage(exchange)
            return
        self._head_bytes += nbytes
        if self._head is None:
            if self._head_bytes > self._router.settings.limits.answer_head_bytes:
                self._garbage(exchange)
            return
        self._hand_over(exchange, self._head)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin an answer; a second one was not asked for."""
        self._extra = self._complete
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Judge the head, unless it only says to wait."""
        if self._parser.get_status_code() >= _FINAL and not self._extra:
            try:
                self._head = read_answer(self._headers, self._router.settings.limits)
            except HeadError as error:
                self._head = None
                raise error from None
            self._fresh_head = True
        self._headers = []

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        if not self._extra:
            self._body.append(part)

    def on_message_complete(self) -> None:
        """Remember that the answer is whole, if it was the answer."""
        if self._head is not None:
            self._complete = True
            self._lasting = self._parser.should_keep_alive()  # the parser forgets it after this

    # Helpers.

    def _hand_over(self, exchange: Asker, head: AnswerHead) -> None:
        """Give *exchange* what one read brought."""
        pieces = self._body
        if not pieces:
            body = b""
        elif len(pieces) == 1:
            body = pieces[0]
            self._body = []
        else:
            body = b"".join(pieces)
            self._body = []
        status = self._parser.get_status_code() if self._fresh_head else 0
        fresh = head if self._fresh_head else None
        self._fresh_head = False
        if not self._complete:
            exchange.received(fresh, body, complete=False, status=status)
            return
        self._head = None
        self._complete = False
        self._head_bytes = 0
        self.exchange = None
        keep = self._lasting and not self._extra
        exchange.received(fresh, body, complete=True, status=status)
        if keep:
            self.go_on()
            self._router.keep(self)
        else:
            self.drop()

    def _garbage(self, exchange: Asker) -> None:
        """Give up a connection that cannot be understood."""
        self.drop()
        exchange.lost(refusals.UPSTREAM_BAD)
