"""The heads of messages: what is refused, what is dropped, what is written anew.

Rules of this file: pure; a parser has split the message already, and accepts what this file must refuse (no Host, two
of them, any size); nothing is relayed: what goes on is built from what is known to be harmless (RFC 9112, section 6).
"""

from gpadapters.router import refusals
from gpadapters.router.refusals import Refusal
from gpadapters.router.settings import Limits

Headers = list[tuple[bytes, bytes]]

CLOSE_FRAMED = -1
"""The length of a body that ends with its connection."""
CHUNKED = -2
"""The length of a body that comes in chunks."""

# What a header is to the router, other than something to pass on. Plain numbers: these are compared for every request.
_HOST, _LENGTH, _MEDIA, _CONNECTION, _CODING, _EXPECT, _UPGRADE, _COMPRESSED, _TTFT, _TPOT = range(10)

_REQUEST = {
    b"host": _HOST,
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"expect": _EXPECT,
    b"upgrade": _UPGRADE,
    b"content-encoding": _COMPRESSED,
    b"content-type": _MEDIA,
    b"x-slo-ttft-ms": _TTFT,
    b"x-slo-tpot-ms": _TPOT,
}
_ANSWER = {
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"content-type": _MEDIA,
}
_DROPPED = frozenset({b"keep-alive", b"te", b"trailer", b"upgrade", b"forwarded", b"http2-settings"})
_UNREADABLE = frozenset({b"accept-encoding"})
"""What would make an answer come compressed: then nothing in it could be counted."""
_OURS = (b"x-gp-", b"x-prefiller-", b"x-forwarded-", b"proxy-")
"""What no client may say: the router's own words, and those of a proxy before it that nobody has vouched for."""

_JSON = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})

_REFUSED = {
    _CODING: refusals.ENCODING,
    _EXPECT: refusals.EXPECTATION,
    _UPGRADE: refusals.UPGRADE,
    _COMPRESSED: refusals.CONTENT_ENCODING,
}

_REMEMBERED = 4096
_SHORT = 256


class RequestHead:
    """What is kept of the head of a request: *lines* go on as they are."""

    lines = b""
    ttft: bytes | None = None
    tpot: bytes | None = None
    close = False
    length: int | None = None
    coded = 0
    expects = False
    json = True


class AnswerHead:
    """What is kept of the head of an upstream's answer; *length* may be CLOSE_FRAMED or CHUNKED."""

    lines = b""
    length = CLOSE_FRAMED
    stream = False


class HeadError(Exception):
    """The head of a message is refused."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


class _Lines:
    """Remember what becomes of a header: clients and engines send the same few again and again.

    The line to pass on, or the number of what it means here. Bounded: it starts anew when it is full.
    """

    __slots__ = ("_known", "_meanings", "_silent", "known")

    def __init__(self, meanings: dict[bytes, int], silent: frozenset[bytes]) -> None:
        self._known: dict[tuple[bytes, bytes], bytes | int] = {}
        self._meanings = meanings
        self._silent = silent
        self.known = self._known.get

    def learn(self, header: tuple[bytes, bytes]) -> bytes | int:
        """Work out what becomes of *header*, and remember it unless it is long or secret."""
        name, value = header
        lowered = name.lower()
        meaning = self._meanings.get(lowered)
        if meaning is not None:
            what: bytes | int = meaning
        elif lowered in self._silent or lowered.startswith(_OURS):
            what = b""
        else:
            what = b"%b: %b\r\n" % (lowered, value)
        if len(name) + len(value) <= _SHORT and lowered != b"authorization":
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[header] = what
        return what


_REQUEST_LINES = _Lines(_REQUEST, _DROPPED | _UNREADABLE)
_ANSWER_LINES = _Lines(_ANSWER, _DROPPED)


def read_request(headers: Headers, limits: Limits, *, received: int) -> RequestHead:
    """Return what is kept of *headers*, or raise HeadError; what is within *received* bytes need not be measured."""
    if len(headers) > limits.headers or (received > limits.header_bytes and _large(headers, limits)):
        raise HeadError(refusals.HEAD_LARGE)
    known, learn = _REQUEST_LINES.known, _REQUEST_LINES.learn
    head = RequestHead()
    kept: list[bytes] = []
    hosts, hop = 0, b""
    for header in headers:
        what = known(header)
        if what is None:
            what = learn(header)
        if what.__class__ is bytes:
            kept.append(what)  # type: ignore[arg-type] # the line above says it, in a way that costs less
        elif what == _HOST:
            hosts += 1 if header[1] else 2
        elif what == _LENGTH:
            head.length = int(header[1])
        elif what == _CONNECTION:
            hop = hop + b"," + header[1]
        elif what != _MEDIA or header[1] not in _JSON:
            _unusual(head, what, header[1])  # type: ignore[arg-type] # as above
    if hosts != 1:
        raise HeadError(refusals.NO_HOST)
    if head.coded and (head.coded > 1 or head.length is not None):
        raise HeadError(refusals.AMBIGUOUS)
    if hop:
        head.close = _drop_hop(kept, hop)
    head.lines = b"".join(kept)
    return head


def _large(headers: Headers, limits: Limits) -> bool:
    """Say whether one header, or all of them, are over their limits."""
    sizes = [len(name) + len(value) for name, value in headers]
    return max(sizes, default=0) > limits.header_bytes or sum(sizes) > limits.head_bytes


def _unusual(head: RequestHead, what: int, value: bytes) -> None:
    """Judge a header that most requests do not have, or have in one form."""
    if what == _TTFT:
        head.ttft = value
        return
    if what == _TPOT:
        head.tpot = value
        return
    said = value.strip().lower()
    if what == _MEDIA:
        head.json = said in _JSON
    elif what == _CODING and said == b"chunked":
        head.coded += 1
    elif what == _EXPECT and said == b"100-continue":
        head.expects = True
    elif what != _COMPRESSED or said != b"identity":
        raise HeadError(_REFUSED[what])


def _drop_hop(kept: list[bytes], hop: bytes) -> bool:
    """Drop what is said to be for this hop only, and say whether it is the last message on it."""
    named = {one.strip() for one in hop.lower().split(b",")}
    if named - {b"close", b"keep-alive"}:
        kept[:] = [line for line in kept if line.partition(b":")[0] not in named]
    return b"close" in named


def read_answer(headers: Headers, limits: Limits) -> AnswerHead:
    """Return what is kept of the head of an answer, or raise HeadError for one that must not go on."""
    known, learn = _ANSWER_LINES.known, _ANSWER_LINES.learn
    head = AnswerHead()
    kept: list[bytes] = []
    hop = b""
    for header in headers:
        what = known(header)
        if what is None:
            what = learn(header)
        if what.__class__ is bytes:
            kept.append(what)  # type: ignore[arg-type] # the line above says it, in a way that costs less
        elif what == _LENGTH:
            head.length = int(header[1])
        elif what == _MEDIA:
            head.stream = header[1].startswith(b"text/event-stream")
            kept.append(b"content-type: %b\r\n" % header[1])
        elif what == _CODING:
            head.length = CHUNKED
        elif header[1] != b"keep-alive":
            hop = hop + b"," + header[1]
    if hop:
        _drop_hop(kept, hop)
    head.lines = lines = b"".join(kept)
    if len(lines) > limits.answer_head_bytes:
        raise HeadError(refusals.UPSTREAM_BAD)
    return head
