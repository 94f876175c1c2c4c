"""What is said over Dynamo's runtime: payloads as requests, and ends as the peer's answers.

Rules of this file: pure, and without the runtime. The word `error` makes stock planners stop scaling or exit, so it is
kept for faults of our own; whatever can be expected is `rejected`, which they take as "not now".
"""

from collections.abc import Mapping

from gpadapters.answering import Answer
from gpcore import wire
from gpcore.control import State
from gpcore.decisions import (
    AmbiguousName,
    CallerRefused,
    CeilingBreach,
    FloorBreach,
    PolicyBroken,
    Rejected,
    explain,
)
from gpcore.errors import InvalidError, MalformedError
from gpcore.pools import Snapshot
from gpcore.requests import ScaleRequest

COMPONENT = "GlobalPlanner"
"""What the planner is called within its Dynamo namespace; stock planners know no other name."""

MAX_PAYLOAD = 64 * 1024
"""The longest text that is read as a request, in characters."""

HEALTH_CHECK: wire.Json = {"text": "health"}
"""What the runtime may ask the health endpoint to find out whether it answers."""

_FAULTS = {"internal", PolicyBroken.kind}
_BREACHES = {CeilingBreach.kind, FloorBreach.kind}
_TURNED_AWAY: Mapping[str, str] = {
    "overloaded": "too many requests wait for an answer; ask again",
    "stopping": "the planner is being stopped; ask again",
    "internal": "a fault of the planner's; its log says more",
}


def request(payload: object) -> ScaleRequest:
    """Return the request that *payload* holds: a JSON text, as stock planners send it, or an object.

    Raises `MalformedError` where it cannot be decoded, and `InvalidError` with every problem where it contradicts
    itself. Fields that nobody knows are ignored.
    """
    return wire.scale_request(_document(payload), extras=wire.Extras.IGNORED)


def stranger(asked: ScaleRequest, state: State) -> wire.Json | None:
    """Return the answer to *asked* where everybody may ask and this caller may not all the same, or None.

    The runtime says nothing about who calls. All that a claim can be held against is the deployment that it asks for,
    after which its planner is called; so nobody is believed to be somebody else who was not named for that.
    """
    management, caller, participant = state.rules.management, asked.caller.caller, asked.participant
    if management.managed is not None or management.callers is not None:
        return None  # then the planner itself compares names
    own = participant.dynamo_namespace
    if caller != own:
        return _rejected(CallerRefused.kind, f"Namespace {caller} not authorized for {participant}, whose own is {own}")
    same_name = (state.snapshot or Snapshot()).named(own)
    if len(same_name) > 1:
        reason = AmbiguousName(own, tuple(sorted(same_name, key=str)))
        return _rejected(reason.kind, explain(Rejected(reason)))
    return None


def invalid(problem: InvalidError) -> wire.Json:
    """Return the answer to a request that contradicts itself."""
    return {**_rejected("invalid", f"Invalid request: {problem}"), "problems": list(problem.problems)}


def response(answer: Answer) -> wire.Json:
    """Return *answer* as the peer gives it, with our fields besides."""
    kind, document = answer.kind, answer.document
    if document is None:
        return _rejected(kind, _TURNED_AWAY[kind]) | {"status": _status(kind)}
    return {**document, "status": _status(kind), "message": _message(kind, str(document["message"]))}


FAULT = Answer("internal")
"""How a request ends where something of our own failed."""


def health(namespace: str, state: State) -> wire.Json:
    """Return what the health endpoint of *namespace* says."""
    managed = state.rules.management.managed
    names = "all" if managed is None else sorted(managed)
    return {"status": "healthy", "component": COMPONENT, "namespace": namespace, "managed_namespaces": names}


def _document(payload: object) -> wire.Json:
    match payload:
        case dict():
            return payload
        case str() if len(payload) > MAX_PAYLOAD:
            raise MalformedError([f"a scale request must have at most {MAX_PAYLOAD} characters: {len(payload)}"])
        case str():
            document = wire.loads(payload.encode(errors="surrogatepass"))
        case _:
            document = payload
    if not isinstance(document, dict):
        raise MalformedError([f"a scale request must be a JSON object: {type(document).__name__}"])
    return document


def _status(kind: str) -> str:
    if kind in {"success", "scaling"}:
        return kind
    return "error" if kind in _FAULTS else "rejected"


def _message(kind: str, message: str) -> str:
    """Return *message* in the peer's words where it has some."""
    if kind not in _BREACHES:
        return message
    breach, semicolon, more = message.partition("; ")
    return f"GPU budget breach: {breach}; no feasible pair packing{semicolon}{more}"


def _rejected(kind: str, message: str) -> wire.Json:
    return {"status": "rejected", "message": message, "current_replicas": {}, "reason": {"kind": kind}}
