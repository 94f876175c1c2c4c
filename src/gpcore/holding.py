"""What holds changes back although the budget has room: freezes that people ask for, and limits on the pace.

Rules of this file: pure; times are wall-clock seconds since 1970, since a freeze outlives the planner that took it.
What is under way when a freeze begins is finished: half a transfer would help nobody.
"""

from collections.abc import Iterable

import attrs
from attrs.validators import ge, gt, instance_of, optional

from gpcore.decisions import Frozen, LimitReached
from gpcore.errors import InvalidError
from gpcore.ledger import Freeze, Ledger, Move
from gpcore.plans import Change, Plan
from gpcore.pools import PoolKey

DIRECTIONS = ("up", "down", "all")

MAX_FREEZES = 64
"""How many freezes may hold at once; of one more its caller is told so, since none that was promised ends early."""

MAX_FREEZE_S = 30 * 24 * 3600.0
"""The longest freeze; what is to hold for longer is a setting."""


MAX_REASON = 256
"""The longest reason of a freeze, in characters."""


@attrs.frozen
class Limits:
    """Bound the pace: within *window_s* at most *gpus* GPUs change hands, and each pool changes *changes* times.

    A GPU that goes from one pool to another counts at both. None: no such bound.
    """

    gpus: int | None = attrs.field(default=None, validator=optional([instance_of(int), ge(0)]))
    changes: int | None = attrs.field(default=None, validator=optional([instance_of(int), ge(0)]))
    window_s: float = attrs.field(default=300.0, validator=gt(0))

    @property
    def bounded(self) -> bool:
        """Say whether there is anything to keep to."""
        return self.gpus is not None or self.changes is not None


def checked_freeze(freeze: Freeze, *, wall: float) -> Freeze:
    """Return *freeze*, or raise `InvalidError` with all that is wrong with it at the moment *wall*."""
    problems = []
    if freeze.direction not in DIRECTIONS:
        problems.append(f"direction must be up, down or all: {freeze.direction[:80]!a}")
    if not 0 < freeze.until - wall <= MAX_FREEZE_S:
        problems.append(f"a freeze lasts up to {MAX_FREEZE_S:g} s: {freeze.until - wall:g}")
    if not freeze.reason.strip() or len(freeze.reason) > MAX_REASON or not freeze.reason.isprintable():
        problems.append(f"reason must be 1 to {MAX_REASON} printable characters: {freeze.reason[:80]!a}")
    if problems:
        raise InvalidError(problems)
    return freeze


def frozen(freezes: Iterable[Freeze], pool: PoolKey, *, up: bool, wall: float) -> Frozen | None:
    """Return what holds a change of *pool* up or down at the moment *wall*, or None."""
    direction = "up" if up else "down"
    for freeze in freezes:
        if (
            freeze.until > wall
            and freeze.direction in (direction, "all")
            and (not freeze.pools or pool in freeze.pools)
        ):
            return Frozen(pool, direction, freeze.until, freeze.reason)
    return None


def held_back(ledger: Ledger, limits: Limits, plan: Plan, *, wall: float) -> Frozen | LimitReached | None:
    """Return what keeps *plan* from being carried out at the moment *wall*, or None."""
    for change in plan.changes:
        freeze = frozen(ledger.freezes, change.pool, up=not change.releases, wall=wall)
        if freeze is not None:
            return freeze
    return _beyond(ledger.moves, limits, plan.changes, wall) if limits.bounded else None


def _beyond(moves: Iterable[Move], limits: Limits, changes: tuple[Change, ...], wall: float) -> LimitReached | None:
    recent = [move for move in moves if move.at > wall - limits.window_s]
    moved = sum([abs(move.gpus) for move in recent]) + sum([abs(change.gpus) for change in changes])
    if limits.gpus is not None and moved > limits.gpus:
        return LimitReached("gpus", limits.gpus, limits.window_s)
    for change in changes if limits.changes is not None else ():
        if sum([move.pool == change.pool for move in recent]) >= (limits.changes or 0):
            return LimitReached("changes", limits.changes or 0, limits.window_s, change.pool)
    return None


def noted(ledger: Ledger, limits: Limits, plan: Plan, *, wall: float) -> Ledger:
    """Return *ledger* with the changes of *plan* among those that count, and those that are too old left out."""
    if not limits.bounded:
        return ledger
    recent = [move for move in ledger.moves if move.at > wall - limits.window_s]
    made = [Move(change.pool, wall, change.gpus) for change in plan.changes]
    return attrs.evolve(ledger, moves=(*recent, *made))


def with_freeze(ledger: Ledger, freeze: Freeze) -> Ledger:
    """Return *ledger* with *freeze* in the place of an earlier one of its id."""
    if freeze in ledger.freezes:
        return ledger
    others = [one for one in ledger.freezes if one.id != freeze.id]
    return attrs.evolve(ledger, freezes=(*others, freeze))


def without_freezes(ledger: Ledger, *, key: str | None = None, wall: float | None = None) -> Ledger:
    """Return *ledger* without the freeze *key*, or without those that are over at the moment *wall*."""
    left = tuple([one for one in ledger.freezes if one.id != key and (wall is None or one.until > wall)])
    return ledger if len(left) == len(ledger.freezes) else attrs.evolve(ledger, freezes=left)
