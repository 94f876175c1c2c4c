"""What was decided, and the sentence that says why.

Rules of this file: a refusal is a value with its numbers. `kind` is the stable word that programs, metrics and the
table of HTTP codes know a refusal by; `explain` makes the sentence for people, and nobody else does.
"""

from collections.abc import Sequence
from typing import ClassVar, assert_never

import attrs

from gpcore.plans import Change, Plan
from gpcore.pools import ParticipantId, PoolKey, Totals


@attrs.frozen
class Approved:
    """Carry out *plan*; *totals* are the fleet's when it is done. An empty plan: all is as asked."""

    plan: Plan
    totals: Totals


@attrs.frozen
class Nearest:
    """The nearest thing to a refused request that would be approved now.

    *own* are the changes left of the request (none: only to stay as it is), *partners* those of others.
    """

    own: tuple[Change, ...] = ()
    partners: tuple[Change, ...] = ()


@attrs.frozen
class CeilingBreach:
    """The request would end above the ceiling, whatever partners give."""

    kind: ClassVar[str] = "above_ceiling"
    total: int
    ceiling: int
    partners_offer: int = 0
    nearest: Nearest = attrs.field(factory=Nearest)


@attrs.frozen
class FloorBreach:
    """The request would end below the floor, whatever partners take."""

    kind: ClassVar[str] = "below_floor"
    total: int
    floor: int
    tolerance: int = 0
    partners_offer: int = 0
    nearest: Nearest = attrs.field(factory=Nearest)


@attrs.frozen
class ShapeUnknown:
    """The GPUs of these deployments are not known, so the budget cannot be checked."""

    kind: ClassVar[str] = "shape_unknown"
    participants: tuple[ParticipantId, ...]


@attrs.frozen
class UnknownPool:
    """The deployment has no pool that answers to the role."""

    kind: ClassVar[str] = "unknown_pool"
    pool: PoolKey


@attrs.frozen
class NotScaled:
    """The deployment has workers of the role, and *why* says what keeps them from being scaled."""

    kind: ClassVar[str] = "not_scaled"
    pool: PoolKey
    why: str


@attrs.frozen
class WrongComponent:
    """The request calls the pool by the name of another component."""

    kind: ClassVar[str] = "wrong_component"
    pool: PoolKey
    component: str
    named: str


@attrs.frozen
class OnePoolTwice:
    """Two targets of the request mean one pool."""

    kind: ClassVar[str] = "one_pool_twice"
    pool: PoolKey


@attrs.frozen
class CallerRefused:
    """The caller may not ask for anything."""

    kind: ClassVar[str] = "not_authorized"
    caller: str


@attrs.frozen
class NotYours:
    """The deployment is not managed, or not the caller's."""

    kind: ClassVar[str] = "not_yours"
    caller: str
    participant: ParticipantId


@attrs.frozen
class AmbiguousName:
    """Two deployments derive the Dynamo namespace, so it does not say which of them the caller is."""

    kind: ClassVar[str] = "ambiguous_name"
    name: str
    participants: tuple[ParticipantId, ...]


@attrs.frozen
class UnknownDeployment:
    """The deployment may be managed, but there is none of that name."""

    kind: ClassVar[str] = "unknown_deployment"
    participant: ParticipantId


@attrs.frozen
class Busy:
    """A pool of the request is part of an operation that is not finished."""

    kind: ClassVar[str] = "busy"
    pool: PoolKey
    operation: str


@attrs.frozen
class NotReady:
    """The cluster was never read as a whole."""

    kind: ClassVar[str] = "not_ready"


@attrs.frozen
class ViewStale:
    """The cluster is not being followed at the moment, so nothing may grow."""

    kind: ClassVar[str] = "view_stale"


@attrs.frozen
class Unsettled:
    """What these pools have is not on record as the cluster shows it: somebody else changed them, or they are new."""

    kind: ClassVar[str] = "unsettled"
    pools: tuple[PoolKey, ...]


@attrs.frozen
class NotLeading:
    """Another planner decides; *leader* is its address, empty where it is not known."""

    kind: ClassVar[str] = "not_leading"
    leader: str = ""


@attrs.frozen
class LedgerDown:
    """The ledger cannot be read or written, so nothing can be promised."""

    kind: ClassVar[str] = "ledger_down"
    detail: str


@attrs.frozen
class Frozen:
    """Changes of *pool* in *direction* ("up" or "down") are held until *until* (wall-clock seconds), for a *reason*."""

    kind: ClassVar[str] = "frozen"
    pool: PoolKey
    direction: str
    until: float
    reason: str


@attrs.frozen
class LimitReached:
    """As much has changed within *window_s* as may: *limit* "gpus", or "changes" of *pool*; *what* says which."""

    kind: ClassVar[str] = "limit_reached"
    what: str
    limit: int
    window_s: float
    pool: PoolKey | None = None


@attrs.frozen
class AnotherBody:
    """The caller has sent another request with the same id."""

    kind: ClassVar[str] = "another_body"
    request_id: str


@attrs.frozen
class OldSequence:
    """The caller has counted to *last* already."""

    kind: ClassVar[str] = "old_sequence"
    sequence: int
    last: int


@attrs.frozen
class PolicyBroken:
    """The policy made a plan that breaks the rules; nothing of it was done."""

    kind: ClassVar[str] = "policy_broken"
    problem: str


Reason = (
    CeilingBreach
    | FloorBreach
    | ShapeUnknown
    | UnknownPool
    | NotScaled
    | WrongComponent
    | OnePoolTwice
    | CallerRefused
    | NotYours
    | AmbiguousName
    | UnknownDeployment
    | Busy
    | NotReady
    | ViewStale
    | Unsettled
    | NotLeading
    | LedgerDown
    | Frozen
    | LimitReached
    | AnotherBody
    | OldSequence
    | PolicyBroken
)


@attrs.frozen
class Rejected:
    """Do nothing, because of *reason*."""

    reason: Reason


Decision = Approved | Rejected

INVALID = (UnknownPool, WrongComponent, OnePoolTwice, UnknownDeployment)
"""The reasons that mean the request makes no sense for this fleet, whatever the budget."""


def explain(decision: Decision, *, participant: ParticipantId | None = None) -> str:
    """Return the sentence that says what was decided and why.

    *participant* is who asked; the changes of others are then called partners.
    """
    match decision:
        case Approved(plan, totals):
            return _approval(plan, totals, participant)
        case Rejected(reason):
            return _refusal(reason)
        case _:
            assert_never(decision)


def _approval(plan: Plan, totals: Totals, participant: ParticipantId | None) -> str:
    if not plan.steps:
        return f"unchanged: the pools are as asked, total {totals.charged} GPUs"
    own = [change for change in plan.changes if participant in (None, change.pool.participant)]
    partners = [change for change in plan.changes if change not in own]
    paired = f", paired with {_changes(partners)}" if partners else ""
    return f"approved: {_changes(own)}{paired}, total {totals.charged} GPUs when done"


def _changes(changes: Sequence[Change]) -> str:
    return ", ".join(f"{change.pool} {change.before} to {change.after}" for change in changes)


def _refusal(reason: Reason) -> str:  # noqa: C901, PLR0911, PLR0912 - one sentence a reason, nothing else
    match reason:
        case CeilingBreach(total, ceiling, offer, nearest):
            offered = f"; partners can release {offer} GPUs" if offer else ""
            return f"total {total} exceeds ceiling ({ceiling}){offered}{_nearest(nearest, 'largest')}"
        case FloorBreach(total, floor, tolerance, offer, nearest):
            bound = f"{floor} - tol {tolerance}" if tolerance else f"{floor}"
            offered = f"; partners can take {offer} GPUs" if offer else ""
            return f"total {total} below floor ({bound}){offered}{_nearest(nearest, 'smallest')}"
        case ShapeUnknown(participants):
            named = ", ".join(map(str, participants))
            return f"the GPUs per replica of {named} are not known, so nothing may grow until they are"
        case UnknownPool(pool):
            return f"{pool.participant} has no pool for role '{pool.role.value}'"
        case NotScaled(pool, why):
            return f"{pool} is not scaled: {why}"
        case WrongComponent(pool, component, named):
            return f"the component of {pool} is {component!r}, not {named!r}"
        case OnePoolTwice(pool):
            return f"two targets mean the pool {pool}"
        case CallerRefused(caller):
            return f"Namespace {caller} not authorized"
        case NotYours() | UnknownDeployment():
            return f"{reason.participant} is not a managed deployment that you may scale"
        case AmbiguousName(name, participants):
            return f"the name {name} is derived by {' and by '.join(map(str, participants))}; rename one"
        case Busy(pool, operation):
            return f"{pool} is being changed by operation {operation}; ask again when it has ended"
        case NotReady():
            return "the cluster has not been read yet"
        case ViewStale():
            return "the cluster is not being followed at the moment, so nothing may grow until it is"
        case Unsettled(pools):
            return f"what {', '.join(map(str, pools))} may have is being put on record; ask again in a moment"
        case NotLeading(leader):
            return f"another planner decides, at {leader}" if leader else "who decides is not known at the moment"
        case LedgerDown(detail):
            return f"nothing can be promised without the ledger: {detail}"
        case Frozen(pool, direction, _, why):
            return f"{pool} may not go {direction} until the freeze ends: {why}"
        case LimitReached(what, limit, window_s, pool):
            changed = "GPUs have moved" if pool is None else f"changes of {pool} were made"
            return f"{what} limit: {limit} {changed} within {window_s:g} s, and no more may be"
        case AnotherBody(request_id):
            return f"request {request_id} was sent before, and asked for something else"
        case OldSequence(sequence, last):
            return f"sequence {sequence} comes too late: {last} was seen already"
        case PolicyBroken(problem):
            return f"the policy's plan was not carried out: {problem}"
        case _:
            assert_never(reason)


def _nearest(nearest: Nearest, extreme: str) -> str:
    given = f", with {_changes(nearest.partners)}" if nearest.partners else ""
    match nearest.own:
        case ():
            return "; nothing but to stay as it is fits now"
        case (change,):
            return f"; the {extreme} count that fits is {change.after}{given}"
        case changes:
            return f"; the nearest that fits is {_changes(changes)}{given}"
