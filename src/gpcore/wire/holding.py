"""The JSON form of freezes, of what holds the planner back, and of operations that only the ledger remembers.

Rules of this file: as the other forms: a document is read strictly with every problem, and what leaves is plain.
"""

import enum

import attrs

from gpcore.conditions import Condition
from gpcore.errors import InvalidError, MalformedError
from gpcore.holding import MAX_FREEZE_S
from gpcore.ledger import Ended, Freeze
from gpcore.operations import Leg, Operation
from gpcore.pools import PoolKey
from gpcore.records import OperationRecord
from gpcore.wire.answers import change_json, operation_json
from gpcore.wire.documents import Extras, Json, Node, Reading, certain, shown
from gpcore.wire.flat import pool_text, read_pool

MIN_FREEZE_S = 1
"""The shortest freeze that can be asked for, in seconds; the longest is `gpcore.holding.MAX_FREEZE_S`."""

MAX_FROZEN = 256
"""The most pools that one freeze may name; where there are more, it is for all."""

MAX_NAME = 64
"""The longest name of who asked for a freeze, in characters."""


class Direction(enum.StrEnum):
    """Which changes a freeze holds."""

    UP = "up"
    DOWN = "down"
    ALL = "all"


@attrs.frozen
class AskedFreeze:
    """What somebody asked to be held: *pools* (none: all) in *direction* for so many seconds, and why."""

    direction: str
    for_s: float
    reason: str
    by: str
    pools: tuple[PoolKey, ...] = ()

    def begun(self, key: str, *, wall: float) -> Freeze:
        """Return the freeze *key* that begins at *wall*, in seconds since 1970."""
        return Freeze(key, self.direction, wall + self.for_s, self.reason, self.by, self.pools)


def asked_freeze(document: object) -> AskedFreeze:
    """Return the freeze that *document* asks for, or raise `InvalidError` with every problem."""
    if not isinstance(document, dict):
        raise MalformedError([f"a freeze must be a JSON object: {shown(document)}"])
    reading = Reading(Extras.REFUSED)
    fields = reading.root(document).fields(("direction", "for_seconds", "reason", "by"), ("pools",))
    direction = fields["direction"].one_of((Direction.UP, Direction.DOWN, Direction.ALL))
    for_s = _length(fields["for_seconds"])
    reason = fields["reason"].built(str)
    by = fields["by"].built(_name)
    items = fields["pools"].items(low=1, high=MAX_FROZEN) if "pools" in fields else ()
    pools = [pool for item in items if (pool := item.built(read_pool)) is not None]
    reading.finish()
    return AskedFreeze(certain(direction).value, for_s, certain(reason), certain(by), tuple(dict.fromkeys(pools)))


def _length(node: Node) -> float:
    seconds = node.number()
    if not MIN_FREEZE_S <= seconds <= MAX_FREEZE_S:
        node.refuse(f"must be {MIN_FREEZE_S} to {MAX_FREEZE_S:g} seconds: {shown(node.value)}")
    return seconds


def _name(text: str) -> str:
    if not (0 < len(text.strip()) <= len(text) <= MAX_NAME and text.isprintable()):
        raise InvalidError([f"must be 1 to {MAX_NAME} printable characters: {shown(text)}"])
    return text


def freeze_json(freeze: Freeze) -> Json:
    """Return all that is known of *freeze*; no pools: it is for all."""
    return {
        "id": freeze.id,
        "direction": freeze.direction,
        "until": freeze.until,
        "reason": freeze.reason,
        "by": freeze.by,
        "pools": [pool_text(pool) for pool in freeze.pools],
    }


def condition_json(condition: Condition) -> Json:
    """Return the word for *condition*, and its sentence."""
    return {"kind": condition.kind, "detail": condition.detail}


def under_way_json(operation: Operation) -> Json:
    """Return how far *operation* is, leg by leg."""
    record = OperationRecord(operation.id, operation.request, operation.plan, operation.began_at)
    going = operation_json(record)
    problem = operation.problem or ""
    message = f"{problem}; what was done is being given back" if operation.returning else problem
    return {
        **going,
        "message": message or going["message"],
        "caller": str(operation.request.caller),
        "legs": [_leg_json(leg) for leg in operation.legs],
        "escrow": operation.escrow,
        "written": "",
    }


def record_json(record: OperationRecord, ended: Ended | None = None) -> Json:
    """Return how the operation of *record* ended; *ended* is what the ledger remembers of it."""
    return {
        **operation_json(record),
        "caller": str(record.request.caller),
        "legs": [],
        "escrow": 0,
        "written": "" if ended is None else ended.changes,
    }


def ended_json(ended: Ended) -> Json:
    """Return how an operation ended of which only the ledger knows: what was asked is not on record any more."""
    return {
        "id": ended.id,
        "status": ended.status,
        "participant": ended.participant,
        "targets": [],
        "plan": [],
        "began_at": ended.began_at,
        "ended_at": ended.ended_at,
        "message": ended.message,
        "caller": ended.caller,
        "legs": [],
        "escrow": 0,
        "written": ended.changes,
    }


def _leg_json(leg: Leg) -> Json:
    fence = leg.step.fence
    return {
        "stage": leg.stage.value,
        "changes": [change_json(change) for change in leg.step.changes],
        "fence": None if fence is None else fence.new,
    }
