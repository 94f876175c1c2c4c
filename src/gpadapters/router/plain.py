"""Messages in the plain form that nearly all have, read in few steps.

Rules of this file: pure; what is accepted here is a small part of what HTTP allows, so small that there is one way to
read it: one read holds exactly one message, its first line is one of a few, every line is `name: value` of visible
characters, and Content-Length is the length of what follows. Whatever is not of that form gives None and goes to the
parser untouched; nothing is refused here. A line is judged once and remembered, because clients and engines send the
same few again and again.
"""

import re
from typing import NamedTuple

from gpadapters.router.heads import (
    DROPPED,
    JSON_TYPES,
    MEANT_IN_ANSWERS,
    MEANT_IN_REQUESTS,
    OURS,
    UNREADABLE,
    AnswerHead,
    RequestHead,
)
from gpadapters.router.settings import Limits

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([!-~\x80-\xff](?:[ -~\x80-\xff]*[!-~\x80-\xff])?)")
_DIGITS = re.compile(rb"[0-9]{1,9}")
_REMEMBERED = 8192
_SHORT = 512

_TTFT = b"x-slo-ttft-ms"
_TARGETS = frozenset({_TTFT, b"x-slo-tpot-ms"})
_PASS, _HOST, _JSON, _ODD = range(4)
_LENGTHS = 4
"""A number from here on is a Content-Length, this much too large."""

_PATHS = (b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings")
_FIRST = {b"POST %b HTTP/1.1" % path: path for path in _PATHS}
_OK = b"HTTP/1.1 200 OK"


class PlainRequest(NamedTuple):
    """A whole request."""

    target: bytes
    head: RequestHead
    body: bytes


class _Said(NamedTuple):
    """A target that a header names."""

    ttft: bool
    value: bytes


_Meaning = bytes | int | _Said


class _Lines:
    """Remember what lines mean: bytes to pass on, a number, or a target; bounded, and begun anew when full."""

    __slots__ = ("_request", "known")

    def __init__(self, *, request: bool) -> None:
        self.known: dict[bytes, _Meaning] = {}
        self._request = request

    def learn(self, line: bytes) -> _Meaning:
        """Judge *line*."""
        match = _LINE.fullmatch(line) if len(line) <= _SHORT else None
        if match is None:
            return _ODD
        what = self._meaning(match[1].lower(), match[2])
        if len(self.known) >= _REMEMBERED:
            self.known.clear()
        self.known[line] = what
        return what

    def _meaning(self, name: bytes, value: bytes) -> _Meaning:
        if name == b"content-length":
            return int(value) + _LENGTHS if _DIGITS.fullmatch(value) else _ODD
        if name == b"content-type":
            return self._content(value)
        if name == b"connection" and value.lower() == b"keep-alive":
            return _PASS
        if name in (_REQUEST_MEANINGS if self._request else _ANSWER_MEANINGS):
            return self._of_request(name, value)
        if name in DROPPED or name.startswith(OURS) or (self._request and name in UNREADABLE):
            return _PASS
        return b"%b: %b\r\n" % (name, value)

    def _of_request(self, name: bytes, value: bytes) -> _Meaning:
        if name in _TARGETS:
            return _Said(name == _TTFT, value)
        return _HOST if name == b"host" else _ODD

    def _content(self, value: bytes) -> bytes | int:
        if self._request:
            return _JSON if value in JSON_TYPES else _ODD
        return _ODD if value.startswith(b"text/event-stream") else b"content-type: %b\r\n" % value


_ANSWER_MEANINGS = frozenset({*MEANT_IN_ANSWERS, b"upgrade"})
_REQUEST_MEANINGS = frozenset(MEANT_IN_REQUESTS)
_REQUESTS = _Lines(request=True)
_ANSWERS = _Lines(request=False)


def plain_request(data: bytes, limits: Limits) -> PlainRequest | None:
    """Return the request that *data* is, if it is one plain and whole request."""
    raw, _, body = data.partition(b"\r\n\r\n")
    first, *lines = raw.split(b"\r\n")
    target = _FIRST.get(first)
    if target is None or len(lines) > limits.headers or len(raw) > limits.header_bytes:
        return None
    known = _REQUESTS.known
    kept: list[bytes] = []
    said: list[_Said] = []
    hosts, length = 0, -1
    for line in lines:
        what = known.get(line)
        if what is None:
            what = _REQUESTS.learn(line)
        if what.__class__ is bytes:
            kept.append(what)  # the line above says what it is, in a way that costs less
        elif what.__class__ is _Said:
            said.append(what)
        elif what >= _LENGTHS and length < 0:  # type: ignore[operator] # as above
            length = what - _LENGTHS  # type: ignore[operator] # as above
        elif what == _HOST:
            hosts += 1
        elif what not in _HARMLESS:
            return None
    if hosts != 1 or length != len(body):
        return None
    return PlainRequest(target, _head(kept, said), body)


_HARMLESS = frozenset({_PASS, _JSON})


def _head(kept: list[bytes], said: list[_Said]) -> RequestHead:
    head = RequestHead()
    head.lines = b"".join(kept)
    for one in said:
        if one.ttft:
            head.ttft = one.value
        else:
            head.tpot = one.value
    return head


def plain_answer(data: bytes) -> tuple[AnswerHead, bytes] | None:
    """Return the answer that *data* is, if it is one plain and whole answer that is no stream."""
    raw, _, body = data.partition(b"\r\n\r\n")
    first, *lines = raw.split(b"\r\n")
    if first != _OK:
        return None
    known = _ANSWERS.known
    kept: list[bytes] = []
    length = -1
    for line in lines:
        what = known.get(line)
        if what is None:
            what = _ANSWERS.learn(line)
        if what.__class__ is bytes:
            kept.append(what)  # the line above says what it is, in a way that costs less
        elif what >= _LENGTHS and length < 0:  # type: ignore[operator] # as above
            length = what - _LENGTHS  # type: ignore[operator] # as above
        elif what != _PASS:
            return None
    if length != len(body):
        return None
    head = AnswerHead()
    head.lines = b"".join(kept)
    head.length = length
    return head, body
