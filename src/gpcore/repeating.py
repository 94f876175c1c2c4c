"""Requests that are sent again.

Rules of this file: what a request with an id was answered is on record together with its effect, so it has one of
each, whoever leads when it comes again. What was refused before it was looked at (nobody leads, the view is stale, a
pool is busy) had no effect, and is looked at when it comes again.
"""

from base64 import urlsafe_b64encode
from hashlib import blake2b

import attrs

from gpcore.decisions import AnotherBody, OldSequence, Rejected
from gpcore.ledger import ALL_REPEATS, CALLERS, REPEATS, Ledger, Repeat
from gpcore.requests import ScaleRequest

_BYTES = 12


def digest(request: ScaleRequest) -> str:
    """Return a short text that tells what *request* asks for from anything else."""
    targets = [f"{one.role.value}={one.replicas}={one.component}" for one in request.targets]
    said = "/".join([str(request.participant), *targets]).encode()
    return urlsafe_b64encode(blake2b(said, digest_size=_BYTES).digest()).decode()


def earlier(ledger: Ledger, request: ScaleRequest) -> Repeat | None:
    """Return what is remembered of the request of the same caller and id."""
    if request.request_id is None:
        return None
    caller = str(request.caller)
    for one in ledger.repeats:
        if one.request_id == request.request_id and one.caller == caller:
            return one
    return None


def refusal(ledger: Ledger, request: ScaleRequest) -> Rejected | None:
    """Return why *request* cannot be taken for a new one, or None where it can."""
    before = earlier(ledger, request)
    if before is not None:
        return None if before.digest == digest(request) else Rejected(AnotherBody(before.request_id))
    last = ledger.sequences.get(str(request.caller))
    if request.sequence is None or last is None or request.sequence > last:
        return None
    return Rejected(OldSequence(request.sequence, last))


def remembered(ledger: Ledger, request: ScaleRequest, status: str, message: str, operation: str | None) -> Ledger:
    """Return *ledger* with what *request* was answered; *status* "scaling": it is carried out by *operation*."""
    caller = str(request.caller)
    if request.sequence is not None:
        sequences = {name: last for name, last in ledger.sequences.items() if name != caller}
        for name in list(sequences)[: max(0, len(sequences) + 1 - CALLERS)]:
            del sequences[name]
        ledger = attrs.evolve(ledger, sequences={**sequences, caller: request.sequence})
    if request.request_id is None:
        return ledger
    told = Repeat(caller, request.request_id, digest(request), status, message, operation)
    others = [one for one in ledger.repeats if (one.caller, one.request_id) != (caller, request.request_id)]
    own = [one for one in others if one.caller == caller]
    if len(own) >= REPEATS:
        others.remove(own[0])
    return attrs.evolve(ledger, repeats=(*others[1 - ALL_REPEATS :], told))


def answered(ledger: Ledger, operation: str, status: str, message: str) -> Ledger:
    """Return *ledger* in which requests that *operation* carried out have their answer."""
    if not any(one.operation == operation for one in ledger.repeats):
        return ledger
    repeats = [
        attrs.evolve(one, status=status, message=message) if one.operation == operation else one
        for one in ledger.repeats
    ]
    return attrs.evolve(ledger, repeats=tuple(repeats))
