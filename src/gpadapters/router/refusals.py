"""What a client is told when the router itself answers.

Rules of this file: each refusal is a value with its status, its type and its sentence, in the error form of OpenAI's
API; nothing that the client sent is repeated in it unescaped; the bytes of an answer are made here and nowhere else.
"""

from http import HTTPStatus

import attrs
import msgspec

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


@attrs.frozen
class Refusal:
    """Say why a request is not served; *close* when the connection cannot be trusted after it."""

    status: int
    kind: str
    message: str
    close: bool = attrs.field(default=False, kw_only=True)
    retry_after_s: int | None = attrs.field(default=None, kw_only=True)
    param: str | None = attrs.field(default=None, kw_only=True)
    allow: str | None = attrs.field(default=None, kw_only=True)


MALFORMED = Refusal(400, "malformed_request", "the request is not valid HTTP/1.1", close=True)
AMBIGUOUS = Refusal(400, "malformed_request", "the length of the body is ambiguous", close=True)
NO_HOST = Refusal(400, "malformed_request", "exactly one Host is needed", close=True)
TARGET_FORM = Refusal(400, "malformed_request", "the target must be a path, without a fragment", close=True)
TARGET_LONG = Refusal(414, "too_large", "the target is longer than the limit", close=True)
HEAD_LARGE = Refusal(431, "too_large", "the head of the request is over its limits", close=True)
BODY_LARGE = Refusal(413, "too_large", "the body is over its limit", close=True)
BODIES_LARGE = Refusal(503, "overloaded", "too many bytes of requests are held", close=True, retry_after_s=1)
ENCODING = Refusal(501, "unsupported", "the only transfer coding is chunked", close=True)
CONTENT_ENCODING = Refusal(415, "unsupported", "the body must not be compressed", close=True)
MEDIA_TYPE = Refusal(415, "unsupported", "the body must be application/json in UTF-8")
VERSION = Refusal(505, "unsupported", "only HTTP/1.1 is spoken here", close=True)
UPGRADE = Refusal(400, "unsupported", "the protocol cannot be changed", close=True)
EXPECTATION = Refusal(417, "unsupported", "the only expectation is 100-continue", close=True)
NOT_FOUND = Refusal(404, "not_found", "there is nothing at this path")
SLOW = Refusal(408, "timeout", "the request did not arrive in time", close=True)
CROWDED = Refusal(503, "overloaded", "too many connections", close=True, retry_after_s=1)
NOT_JSON = Refusal(400, "invalid_request_error", "the body is not JSON that can be read")
STOPPING = Refusal(503, "stopping", "the router is stopping", close=True, retry_after_s=1)
NO_REPLICA = Refusal(503, "no_replica", "no pool has a replica yet", retry_after_s=5)
NO_HEALTHY = Refusal(
    503, "no_healthy_endpoint", "no endpoint of the pools for this request is healthy", retry_after_s=1
)
WAITING_FULL = Refusal(503, "no_replica", "too many requests wait for a first replica", retry_after_s=5)
UPSTREAM_BAD = Refusal(502, "upstream_error", "the pool gave no answer that can be read")
UPSTREAM_SLOW = Refusal(504, "upstream_timeout", "the pool did not answer in time")
DIED = Refusal(502, "upstream_error", "the pool failed while it answered", close=True)
STALLED = Refusal(504, "upstream_timeout", "the pool stopped while it answered", close=True)
TOO_LONG = Refusal(504, "upstream_timeout", "the answer took longer than the limit", close=True)


def shed(retry_after_s: int) -> Refusal:
    """Say that the pool for this request is full for its priority."""
    return Refusal(429, "overloaded", "the pool for this request is full", retry_after_s=retry_after_s)


def not_allowed(allow: str) -> Refusal:
    """Say which methods there are at this path."""
    return Refusal(405, "unsupported", f"the method here is {allow}", allow=allow)


def invalid(message: str, param: str | None = None) -> Refusal:
    """Say what is wrong with the content of a request."""
    return Refusal(400, "invalid_request_error", message, param=param)


def unknown_model(model: str) -> Refusal:
    """Say that this router does not serve *model*."""
    return Refusal(404, "model_not_found", f"the model {ascii(model)[:80]} does not exist here", param="model")


def answer(refusal: Refusal, *, close: bool = False, extra: bytes = b"") -> bytes:
    """Return the whole HTTP answer; *extra* is lines of a head."""
    body = msgspec.json.encode({"error": _error(refusal)})
    lines = extra
    if refusal.retry_after_s is not None:
        lines += b"retry-after: %d\r\n" % refusal.retry_after_s
    if refusal.allow is not None:
        lines += b"allow: %b\r\n" % refusal.allow.encode()
    return whole(refusal.status, body, close=close or refusal.close, extra=lines)


def whole(status: int, body: bytes, *, close: bool = False, extra: bytes = b"") -> bytes:
    """Return an HTTP answer of JSON."""
    ending = b"connection: close\r\n" if close else b""
    head = b"%bcontent-type: application/json\r\ncontent-length: %d\r\n" % (status_line(status), len(body))
    return b"".join((head, extra, ending, b"\r\n", body))


def status_line(status: int) -> bytes:
    """Return the first line of an answer."""
    known = _LINES.get(status)
    return known if known is not None else b"HTTP/1.1 %d Unknown\r\n" % status


def error_event(refusal: Refusal) -> bytes:
    """Return what ends a stream that cannot go on: one event, and no [DONE] after it."""
    return b"\n\ndata: %b\n\n" % msgspec.json.encode({"error": _error(refusal)})


def _error(refusal: Refusal) -> dict[str, str | int | None]:
    return {"message": refusal.message, "type": refusal.kind, "param": refusal.param, "code": refusal.status}


_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _REASONS.items()}
