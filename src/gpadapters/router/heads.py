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

# What a header is to the router, other than something to pass on.
_HOST, _LENGTH, _MEDIA, _CONNECTION, _CODING, _EXPECT, _UPGRADE, _COMPRESSED, _TTFT, _TPOT = range(10)

MEANT_IN_REQUESTS = {
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
MEANT_IN_ANSWERS = {
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"content-type": _MEDIA,
}
DROPPED = frozenset({b"keep-alive", b"te", b"trailer", b"upgrade", b"forwarded", b"http2-settings"})
UNREADABLE = frozenset({b"accept-encoding"})
"""What would make an answer come compressed: then nothing in it could be counted."""
OURS = (b"x-gp-", b"x-prefiller-", b"x-forwarded-", b"proxy-")
"""What no client may say: the router's own words, and those of a proxy before it that nobody has vouched for."""

JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})

_SILENT = DROPPED | UNREADABLE
_REFUSED = {
    _CODING: refusals.ENCODING,
    _EXPECT: refusals.EXPECTATION,
    _UPGRADE: refusals.UPGRADE,
    _COMPRESSED: refusals.CONTENT_ENCODING,
}


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


def read_request(headers: Headers, limits: Limits) -> RequestHead:
    """Return what is kept of *headers*, or raise HeadError."""
    if _large(headers, limits):
        raise HeadError(refusals.HEAD_LARGE)
    head = RequestHead()
    kept: list[bytes] = []
    hosts, hop = 0, b""
    for name, value in headers:
        lowered = name.lower()
        meaning = MEANT_IN_REQUESTS.get(lowered)
        if meaning is None:
            if lowered not in _SILENT and not lowered.startswith(OURS):
                kept.append(b"%b: %b\r\n" % (lowered, value))
        elif meaning == _HOST:
            hosts += 1 if value else 2
        elif meaning == _CONNECTION:
            hop += b"," + value
        else:
            _judge(head, meaning, value)
    if hosts != 1:
        raise HeadError(refusals.NO_HOST)
    if head.coded and (head.coded > 1 or head.length is not None):
        raise HeadError(refusals.AMBIGUOUS)
    head.close = _drop_hop(kept, hop)
    head.lines = b"".join(kept)
    return head


def _large(headers: Headers, limits: Limits) -> bool:
    """Say whether one header, their number, or all of them together are over their limits."""
    if len(headers) > limits.headers:
        return True
    sizes = [len(name) + len(value) for name, value in headers]
    return max(sizes, default=0) > limits.header_bytes or sum(sizes) > limits.head_bytes


def _judge(head: RequestHead, what: int, value: bytes) -> None:
    """Take a header that has a meaning for the router, or refuse it."""
    if what == _LENGTH:
        head.length = int(value)
        return
    if what == _TTFT:
        head.ttft = value
        return
    if what == _TPOT:
        head.tpot = value
        return
    said = value.strip().lower()
    if what == _MEDIA:
        head.json = said in JSON_TYPES
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
    head = AnswerHead()
    kept: list[bytes] = []
    hop = b""
    for name, value in headers:
        lowered = name.lower()
        meaning = MEANT_IN_ANSWERS.get(lowered)
        if meaning is None:
            if lowered not in DROPPED and not lowered.startswith(OURS):
                kept.append(b"%b: %b\r\n" % (lowered, value))
        elif meaning == _LENGTH:
            head.length = int(value)
        elif meaning == _MEDIA:
            head.stream = value.startswith(b"text/event-stream")
            kept.append(b"content-type: %b\r\n" % value)
        elif meaning == _CODING:
            head.length = CHUNKED
        else:
            hop += b"," + value
    _drop_hop(kept, hop)
    head.lines = lines = b"".join(kept)
    if len(lines) > limits.answer_head_bytes:
        raise HeadError(refusals.UPSTREAM_BAD)
    return head
