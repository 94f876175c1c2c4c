"""Operations of a ledger, their steps a line of text each.

A step reads `NAMESPACE/NAME OBJECT UID CHANGES`, and with a fence `... OLD NEW KILL`. CHANGES are its pools in a row,
as `p4:2x8=-24`: prefill from 4 replicas to 2, of 8 GPUs each, which takes 24 GPUs off the total; `=` is there only
where that is not what the replicas say. A leg reads as its stage and its step, or `#N`, the plan's step N without the
fence.

Rules of this file: as `entries`, whose way of writing names this is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import attrs

from gpcore.errors import InvalidError
from gpcore.fences import Fence
from gpcore.operations import Leg, Operation, Stage
from gpcore.plans import Change, Plan, Step
from gpcore.pools import MAX_GPUS_PER_REPLICA, Authority, ParticipantId, PoolKey, Totals
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.wire.documents import Json, Node, shown
from gpcore.wire.entries import LETTERS, MAX_COUNT, ROLES, plain, unplain

T = TypeVar("T")

_CHANGE = rf"([{''.join(ROLES)}])(\d{{1,19}}):(\d{{1,19}})(?:x(\d{{1,19}}))?(?:=(-?\d{{1,40}}))?"
_CHANGES = re.compile(rf"(?:{_CHANGE})+", re.ASCII)
_ONE = re.compile(_CHANGE, re.ASCII)
_TARGET = re.compile(rf"([{''.join(ROLES)}])(\d{{1,10}})(?: ([!-~]+))?", re.ASCII)
_NUMBER = re.compile(r"#\d{1,4}", re.ASCII)
_STAGES = {stage.value: stage for stage in Stage}
_OF_A_STEP = 4
_OF_A_FENCE = 3

_TOTALS = ("before", "totals")
_COUNTS = ("excess", "escrow", "dip", "retries")


def operation_document(operation: Operation) -> Json:
    """Return *operation* as a document; what is zero or empty is left out."""
    request, plan = operation.request, [_step_text(step) for step in operation.plan.steps]
    document = {
        "id": operation.id,
        "caller": str(request.caller),
        "participant": str(request.participant),
        "targets": [_target_text(target) for target in request.targets],
        "blocking": request.blocking,
        "request_id": request.request_id,
        "plan": plan,
        "legs": [_leg_text(leg, plan) for leg in operation.legs],
        "began_at": operation.began_at,
        **{name: _both(getattr(operation, name)) for name in _TOTALS},
        **{name: getattr(operation, name) for name in _COUNTS},
        "problem": operation.problem,
        "returning": operation.returning,
    }
    said = {name: value for name, value in document.items() if value not in (None, False, 0, [])}
    return said if request.sequence is None else said | {"sequence": request.sequence}  # 0 says something


def read_operation(node: Node) -> Operation | None:
    """Return the operation that is here, or note what is wrong with it."""
    optional = (
        "blocking",
        "request_id",
        "sequence",
        "plan",
        "legs",
        "began_at",
        *_TOTALS,
        *_COUNTS,
        "problem",
        "returning",
    )
    known = len(node.reading.problems)
    fields = node.fields(("id", "caller", "participant", "targets"), optional)
    name = fields["id"].built(str)
    plan = Plan(tuple(_built(fields, "plan", _step)))
    legs = _built(fields, "legs", lambda text: _leg(text, plan.steps))
    request = _request(fields)
    began_at = fields["began_at"].number(low=0) if "began_at" in fields else 0.0
    before, totals = [_sum(fields[key]) if key in fields else Totals() for key in _TOTALS]
    excess, escrow, dip, retries = [(fields[key].integer() or 0) if key in fields else 0 for key in _COUNTS]
    problem = fields["problem"].built(str) if "problem" in fields else None
    returning = "returning" in fields and fields["returning"].boolean()
    if not name:
        fields["id"].refuse("must not be empty")
    if name is None or request is None or len(node.reading.problems) > known:
        return None
    return Operation(
        name,
        request,
        plan,
        tuple(legs),
        began_at=began_at,
        before=before,
        totals=totals,
        excess=excess,
        escrow=escrow,
        dip=dip,
        retries=retries,
        problem=problem,
        returning=returning,
    )


def _request(fields: Mapping[str, Node]) -> ScaleRequest | None:
    caller = fields["caller"].built(Claimed)
    participant = fields["participant"].built(ParticipantId.parse)
    targets = _built(fields, "targets", _target)
    blocking = "blocking" in fields and fields["blocking"].boolean()
    request_id = fields["request_id"].built(str) if "request_id" in fields else None
    sequence = fields["sequence"].integer() if "sequence" in fields else None
    if caller is None or participant is None:
        return None
    return fields["targets"].built_from(
        lambda: ScaleRequest(
            caller, participant, tuple(targets), blocking=blocking, request_id=request_id, sequence=sequence
        )
    )


def _built(fields: Mapping[str, Node], name: str, build: Callable[[str], T]) -> list[T]:
    """Return what *build* makes of each text of the list *name*, which need not be there."""
    nodes = fields[name].items() if name in fields else ()
    return [one for node in nodes if (one := node.built(build)) is not None]


def _both(totals: Totals) -> list[int]:
    return [totals.charged, totals.least] if totals != Totals() else []


def _sum(node: Node) -> Totals:
    """Return two sums of GPUs, of which that of a recovery may be below zero."""
    values = [item.value for item in node.items(low=2, high=2)]
    match values:
        case [int() as charged, int() as least] if bool not in map(type, values):
            return Totals(charged, least)
        case _:
            node.refuse("must be two integers")
            return Totals()


def _target_text(target: Target) -> str:
    return f"{LETTERS[target.role]}{target.replicas}" + (f" {plain(target.component)}" if target.component else "")


def _target(text: str) -> Target:
    match = _TARGET.fullmatch(text)
    if match is None:
        raise InvalidError([f"must be a target as 'p4': {shown(text)}"])
    return Target(ROLES[match[1]], int(match[2]), unplain(match[3]) if match[3] else None)


def _step_text(step: Step) -> str:
    changes = "".join(map(_change_text, step.changes))
    return f"{step.participant} {plain(step.authority.name)} {plain(step.authority.uid)} {changes}{_fence(step.fence)}"


def _change_text(change: Change) -> str:
    gpus = "" if change.gpus_per_replica is None else f"x{change.gpus_per_replica}"
    charged = "" if change.charged == change.gpus else f"={change.charged}"
    return f"{LETTERS[change.pool.role]}{change.before}:{change.after}{gpus}{charged}"


def _fence(fence: Fence | None) -> str:
    return "" if fence is None else "".join(f" {plain(mark)}" for mark in fence)


def _leg_text(leg: Leg, plan: Sequence[str]) -> str:
    bare = _step_text(attrs.evolve(leg.step, fence=None))
    step = f"#{plan.index(bare)}" if bare in plan else bare
    return f"{leg.stage.value} {step}{_fence(leg.step.fence)}"


def _leg(text: str, steps: Sequence[Step]) -> Leg:
    word, _, rest = text.partition(" ")
    if word not in _STAGES:
        raise InvalidError([f"must begin with one of {', '.join(_STAGES)}: {shown(text)}"])
    if not rest.startswith("#"):
        return Leg(_step(rest), _STAGES[word])
    number, *fence = rest.split(" ")
    if not _NUMBER.fullmatch(number) or int(number[1:]) >= len(steps):
        raise InvalidError([f"the plan has {len(steps)} steps: {shown(number)}"])
    return Leg(attrs.evolve(steps[int(number[1:])], fence=_read_fence(fence)), _STAGES[word])


def _step(text: str) -> Step:
    fields = text.split(" ")
    if len(fields) not in (_OF_A_STEP, _OF_A_STEP + _OF_A_FENCE) or not _CHANGES.fullmatch(fields[3]):
        raise InvalidError([f"must be a deployment, an object, its uid and changes as 'p4:2x8': {shown(text)}"])
    participant, authority = ParticipantId.parse(fields[0]), Authority(unplain(fields[1]), unplain(fields[2]))
    changes = tuple(_change(match, participant, authority) for match in _ONE.finditer(fields[3]))
    return Step(changes, _read_fence(fields[_OF_A_STEP:]))


def _change(match: re.Match[str], participant: ParticipantId, authority: Authority) -> Change:
    before, after, gpus = int(match[2]), int(match[3]), None if match[4] is None else int(match[4])
    if max(before, after) > MAX_COUNT or (gpus or 0) > MAX_GPUS_PER_REPLICA:
        bounds = f"{MAX_COUNT} replicas of {MAX_GPUS_PER_REPLICA} GPUs"
        raise InvalidError([f"a pool has at most {bounds}: {shown(match[0])}"])
    change = Change(PoolKey(participant, ROLES[match[1]]), before, after, gpus, authority)
    return change if match[5] is None else attrs.evolve(change, charged=int(match[5]))


def _read_fence(marks: Sequence[str]) -> Fence | None:
    if len(marks) not in (0, _OF_A_FENCE):
        raise InvalidError([f"a fence is three marks: {len(marks)}"])
    return Fence(*map(unplain, marks)) if marks else None
