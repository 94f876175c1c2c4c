"""A planner in the middle of things: it leads, has its fleet on record, and every save is stored at once.

Rules of this file: nothing of the cluster is played here but what a test says; whatever is to be written waits until
the test lets it land, be refused, or be lost.
"""

import attrs

from gpcore.budgets import Budget
from gpcore.control import Rules, State, Transition, step
from gpcore.events import (
    Apply,
    Event,
    Froze,
    LedgerSaved,
    Listed,
    Mark,
    Marked,
    Reply,
    Save,
    Seen,
    StepApplied,
    StepRefused,
    StepUnknown,
    Submitted,
    Tell,
)
from gpcore.fences import Mint
from gpcore.ledger import Entry, Freeze, Ledger, ObjectKey
from gpcore.plans import Step
from gpcore.pools import Authority, Deployment, ParticipantId, PoolKey, Snapshot
from gpcore.testing.settled import FENCE, settled_state
from tests.core.words import fleet, key, pool, request


def stored(transition: Transition) -> Transition:
    """Return what follows when each ledger that *transition* orders to be saved is stored at once."""
    state, effects = transition.state, list(transition.effects)
    for effect in transition.effects:
        if isinstance(effect, Save):
            after = stored(step(state, LedgerSaved(str(int(effect.expected or 0) + 1))))
            state = after.state
            effects += after.effects
    return Transition(state, tuple(effects))


class Planner:
    """A planner that leads over *pools*, and what it has said so far."""

    def __init__(self, *pools: str, ceiling: int | None = None, floor: int = 0, rules: Rules | None = None) -> None:
        bounds = rules or Rules(budget=Budget(floor, ceiling), deadline_s=100.0)
        self.state: State = settled_state(bounds, fleet(*pools)).but(mint=Mint("a seed"))
        self.said: list[object] = []

    def happen(self, event: Event) -> tuple[object, ...]:
        """Let *event* happen, and return what it led to but for saves, which are stored at once."""
        return self._take(stored(step(self.state, event)))

    def waits(self, event: Event) -> tuple[object, ...]:
        """Let *event* happen, and return what it led to; what it saves is not stored yet."""
        return self._take(step(self.state, event), saves=True)

    def _take(self, transition: Transition, *, saves: bool = False) -> tuple[object, ...]:
        self.state = transition.state
        self.said += transition.effects
        return tuple(one for one in transition.effects if saves or not isinstance(one, Save | Tell))

    def ask(self, *texts: str, name: str = "1", now: float = 0.0) -> tuple[object, ...]:
        return self.happen(Submitted(name, request(*texts), now))

    def freeze(self, direction: str, *pools: str, name: str = "f", until: float = 1e9) -> tuple[object, ...]:
        """Hold changes of *pools*, or of all."""
        held = Freeze(name, direction, until, "the racks are being moved", "me", tuple(map(key, pools)))
        return self.happen(Froze(name, held))

    def see(
        self, text: str, *, present: int | None = None, uid: str = "uid", fence: str | None = FENCE
    ) -> tuple[object, ...]:
        """Show one pool as it is, alone in its deployment."""
        seen = pool(text)
        shown = attrs.evolve(
            seen,
            present=seen.replicas if present is None else present,
            authority=Authority(seen.authority.name, uid),
            fence=fence,
        )
        return self.happen(Seen(Deployment(seen.key.participant, (shown,))))

    def relist(self) -> tuple[object, ...]:
        """List what was seen last."""
        return self.happen(Listed(tuple(self.snapshot.deployments())))

    def shows(self, at: int = 0, *, draining: int = 0) -> tuple[object, ...]:
        """Show what one of the orders so far has made, while so many replicas still shut down."""
        order = self.order(at)[1]
        afters = {change.pool: change.after for change in order.changes}
        return self._show(order.participant, order.authority, self._new(order), afters, draining)

    def lands(self, at: int = 0, *, draining: int = 0) -> tuple[object, ...]:
        """Show what one of the orders so far has made, and answer it."""
        return (*self.shows(at, draining=draining), *self.applied(at))

    def applied(self, at: int = 0) -> tuple[object, ...]:
        return self.happen(StepApplied(*self.order(at)))

    def refused(self, at: int = 0, why: str = "no") -> tuple[object, ...]:
        return self.happen(StepRefused(*self.order(at), why))

    def lost(self, at: int = 0) -> tuple[object, ...]:
        return self.happen(StepUnknown(*self.order(at), "no answer"))

    def marked(self, at: int = -1) -> tuple[object, ...]:
        """Show one of the marks so far where it belongs, and answer it."""
        mark = self.marks[at]
        shown = self._show(mark.key.participant, mark.authority, mark.new, {}, 0)
        return (*shown, *self.happen(Marked(mark)))

    def absent(self, at: int = -1) -> tuple[object, ...]:
        """Answer one of the marks so far: there is no such object."""
        return self.happen(Marked(self.marks[at], absent=True))

    def _new(self, order: Step) -> str:
        assert order.fence is not None
        return order.fence.new

    def _show(
        self, participant: ParticipantId, authority: Authority, fence: str, afters: dict[PoolKey, int], draining: int
    ) -> tuple[object, ...]:
        deployment = self.snapshot.deployment(participant)
        assert deployment is not None
        pools = []
        for one in deployment.pools:
            if one.authority.name == authority.name:
                replicas = afters.get(one.key, one.replicas)
                pools.append(attrs.evolve(one, replicas=replicas, present=replicas + draining, fence=fence))
            else:
                pools.append(one)
        free = tuple(one.reserving(None) for one in pools)
        return self.happen(Seen(attrs.evolve(deployment, pools=free)))

    def order(self, at: int = 0) -> tuple[str, Step]:
        """Return the operation and the step of one of the orders so far."""
        order = [one for one in self.said if isinstance(one, Apply)][at]
        return order.operation, order.step

    @property
    def marks(self) -> list[Mark]:
        return [one for one in self.said if isinstance(one, Mark)]

    @property
    def replies(self) -> list[tuple[str, object]]:
        return [(one.id, one.outcome) for one in self.said if isinstance(one, Reply)]

    @property
    def snapshot(self) -> Snapshot:
        assert self.state.snapshot is not None
        return self.state.snapshot

    def fence(self, name: str) -> str | None:
        """Return the fence that the deployment `a` shows."""
        shown = self.snapshot.pool(key(f"{name}/prefill"))
        assert shown is not None
        return shown.fence

    @property
    def ledger(self) -> Ledger:
        """Return the ledger as it is to be, after whatever is not stored yet."""
        return self.state.ledger

    def entry(self, name: str) -> Entry | None:
        """Return the entry of the deployment `a`."""
        return self.ledger.entry(object_key(name))


def object_key(name: str) -> ObjectKey:
    """Return the name of the object that holds the pools of `a`."""
    return ObjectKey(key(f"{name}/prefill").participant, name)


def told(effects: tuple[object, ...]) -> list[str]:
    """Return each effect in a word or two."""
    return [_word(effect) for effect in effects]


def _word(effect: object) -> str:
    match effect:
        case Apply():
            changes = effect.step.changes
            return f"apply {', '.join(f'{one.pool.participant.name} {one.after}' for one in changes)}"
        case Reply():
            return f"reply {effect.id} {type(effect.outcome).__name__}"
        case Mark():
            return f"mark {effect.key.name}"
        case _:
            return type(effect).__name__
