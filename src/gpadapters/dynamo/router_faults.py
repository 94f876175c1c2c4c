"""What a failure that came over Dynamo's runtime means: whose it is, and whether another pool may be asked.

Rules of this file: pure. The runtime tells the category of a failure as the first words of its text, and each process
that it passed puts one in front, so the last one that is known is the true one.
"""

import enum
import json
import re

import attrs


class Kind(enum.StrEnum):
    """Whose failure it is."""

    REFUSED = "refused"
    """The request itself cannot be served, so no other pool is asked."""
    NO_REPLICA = "no_replica"
    """The pool has nobody who works; nothing was done."""
    UNREACHABLE = "unreachable"
    """The pool's router cannot be connected to; nothing was done."""
    FAILED = "failed"
    """The pool failed."""


@attrs.frozen
class Fault:
    """Say what happened; *status* is the HTTP status for a client, *message* is for the log and for the client."""

    kind: Kind
    status: int
    message: str

    @property
    def elsewhere(self) -> bool:
        """Say whether another pool may do better."""
        return self.kind is not Kind.REFUSED


SLOW = Fault(Kind.FAILED, 504, "the pool did not answer in time")
EMPTY = Fault(Kind.FAILED, 502, "the pool gave no answer")
CUT = Fault(Kind.FAILED, 502, "the pool ended its answer before it was complete")

_BAD_GATEWAY = 502
_UNAVAILABLE = 503
_GATEWAY = {_BAD_GATEWAY, _UNAVAILABLE, 504}
_STATUSES = range(400, 600)

_WORD = re.compile(r"([A-Z][A-Za-z]*): ")
_BEHIND = "Backend"
"""Before a category: a handler raised it, so the connection to it was good."""
_NOBODY = re.compile(r"no (?:workers|endpoints|instances) available|no instances found", re.IGNORECASE)
_NOT_CONNECTED = re.compile(r"connection refused|TCP (?:connection|request) to \S+ failed", re.IGNORECASE)
_OURS: tuple[list[str], ...] = ([], ["Unavailable"])
_NEVER_CONNECTED = (["CannotConnect"], ["ConnectionTimeout"])
"""The words before a failure of our own connection; with others it is the pool that could not connect."""

_KINDS = {
    "InvalidArgument": (Kind.REFUSED, 400),
    "InvalidRequest": (Kind.REFUSED, 400),
    "RateLimited": (Kind.REFUSED, 429),
    "CannotConnect": (Kind.FAILED, _BAD_GATEWAY),
    "ConnectionTimeout": (Kind.FAILED, _BAD_GATEWAY),
    "Unavailable": (Kind.FAILED, _UNAVAILABLE),
    "Cancelled": (Kind.FAILED, _BAD_GATEWAY),
    "Disconnected": (Kind.FAILED, _BAD_GATEWAY),
    "EngineShutdown": (Kind.FAILED, _BAD_GATEWAY),
    "StreamIncomplete": (Kind.FAILED, _BAD_GATEWAY),
    "Unknown": (Kind.FAILED, _BAD_GATEWAY),
    "Internal": (Kind.FAILED, _BAD_GATEWAY),
}
"""What the categories of both lines of the runtime mean."""


def fault(text: str) -> Fault:
    """Return what the *text* of a failure says.

    >>> fault("BackendInvalidArgument: ValueError: max_tokens is negative")
    Fault(kind=<Kind.REFUSED: 'refused'>, status=400, message='max_tokens is negative')
    >>> fault("BackendUnknown: Exception: no endpoints available to route work").kind
    <Kind.NO_REPLICA: 'no_replica'>
    """
    words, message = _split(text)
    if _NOBODY.search(message):
        return Fault(Kind.NO_REPLICA, _UNAVAILABLE, message)
    said = _of_http(message)
    if said is not None:
        return said
    if words in _NEVER_CONNECTED or (words in _OURS and _NOT_CONNECTED.search(message)):
        return Fault(Kind.UNREACHABLE, _BAD_GATEWAY, message)
    known = [_KINDS[word] for word in (word.removeprefix(_BEHIND) for word in words) if word in _KINDS]
    kind, status = known[-1] if known else (Kind.FAILED, _BAD_GATEWAY)
    return Fault(kind, status, message)


def _split(text: str) -> tuple[list[str], str]:
    """Return the words in front of *text*, and the rest."""
    words: list[str] = []
    at = 0
    while (found := _WORD.match(text, at)) is not None:
        words.append(found[1])
        at = found.end()
    return words, text[at:]


def _of_http(message: str) -> Fault | None:
    """Return what *message* says where it is the JSON of an HTTP status that somebody behind us chose."""
    if not message.startswith("{"):
        return None
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        return None
    code = said.get("code") if isinstance(said, dict) else None
    if type(code) is not int or code not in _STATUSES:
        return None
    return Fault(Kind.FAILED if code in _GATEWAY else Kind.REFUSED, code, str(said.get("message", "")))
