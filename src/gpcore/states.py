"""What the planner knows at one moment.

Rules of this file: values, and the small changes of them that several transitions share. The ledger is the truth about
what is promised; the rest can be lost, and a planner that begins anew finds it again.
"""

from collections.abc import Iterable, Mapping

import attrs
from attrs.validators import gt

from gpcore.budgets import Budget
from gpcore.events import Effect
from gpcore.fences import Mint
from gpcore.holding import Limits
from gpcore.indexes import Index, amended
from gpcore.intents import Intents
from gpcore.ledger import Entry, Freeze, Ledger, ObjectKey, object_of
from gpcore.management import Management
from gpcore.operations import Operation
from gpcore.plans import Step
from gpcore.policy import Policy, decide
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Snapshot
from gpcore.successors import Successive

MAX_WAITERS = 1_000
"""How many requests may share one operation; to one more its pools are busy."""

MAX_OPERATIONS = 512
"""How many operations may be under way at once, since each takes room in the ledger."""

FULL_BYTES = 629_145
"""From where on the ledger takes no new object: 60 % of the MiB that a store surely takes."""

NOTHING = Snapshot()


@attrs.frozen
class Rules:
    """Hold what does not change while the planner runs.

    *intent_ttl_s* is how long a wish stays fresh; *deadline_s* how long an operation waits for GPUs to come free
    before what it has done is given back.
    """

    management: Management = attrs.field(factory=Management)
    budget: Budget = attrs.field(factory=Budget)
    intent_ttl_s: float = attrs.field(default=360.0, validator=gt(0))
    deadline_s: float = attrs.field(default=1800.0, validator=gt(0))
    limits: Limits = attrs.field(factory=Limits)
    policy: Policy = decide


@attrs.frozen
class Drive:
    """What this planner knows of an operation that it carries out, beyond the ledger.

    Of its reserved steps *sent* are not answered, *unsure* may land or not, *killing* were refused and are being made
    sure of. *waiters* are the requests that are answered when it ends; *started_at* is monotonic.
    """

    started_at: float
    waiters: tuple[str, ...] = ()
    sent: tuple[Step, ...] = ()
    unsure: tuple[Step, ...] = ()
    killing: tuple[Step, ...] = ()

    @property
    def begun(self) -> tuple[Step, ...]:
        """Return the steps of which something is under way."""
        return (*self.sent, *self.unsure, *self.killing)

    def without(self, step: Step) -> "Drive":
        """Return this with nothing known to be under way for *step*."""
        left = [tuple([one for one in steps if one != step]) for steps in (self.sent, self.unsure, self.killing)]
        return Drive(self.started_at, self.waiters, *left)


@attrs.frozen
class Book:
    """The ledger as this planner has it.

    *stored* is what was last known to be stored, as *version* (None: nothing is); *draft* what it should be, and
    *saving* what is being stored. *urgent*: something waits for the draft to be stored. *size* is in bytes.
    *outdated*: somebody else may have stored another one, so it is read before anything is stored. *dirty*: the draft
    is to be stored soon, though nothing waits for it.
    """

    stored: Ledger
    version: str | None
    draft: Ledger
    saving: Ledger | None = None
    urgent: bool = False
    size: int = 0
    outdated: bool = False
    dirty: bool = False

    @property
    def full(self) -> bool:
        """Say whether no new object may be taken in."""
        return self.size >= FULL_BYTES


@attrs.frozen(slots=False)
class State(Successive):
    """Hold all that the planner knows.

    *snapshot* None: the cluster was never read as a whole. *book* None: the ledger was never read, or cannot be, for
    the reason *fault*. *busy* leads from a pool to its operation, *behind* to the objects that are not as the ledger
    has them (and for how many ticks), *marking* to the marks under way (those of *resting* were answered in vain, and
    wait for the next tick); *telling* are the operations whose end is being handed on, *noting* the freezes (and ends
    of some) that are to be put on record. *leading* says whether this planner decides, since *epoch* of the ledger;
    *leader* is the address of the one that does; *exclusive* whether it is the only one. *now* is when it was last
    told the time, and *wall_offset* wall-clock less monotonic time.
    """

    rules: Rules = attrs.field(factory=Rules)
    snapshot: Snapshot | None = None
    stale: bool = False
    intents: Intents = attrs.field(factory=Intents)
    book: Book | None = None
    fault: str = "it has not been read yet"
    drives: Mapping[str, Drive] = attrs.field(factory=dict, hash=False)
    busy: Index[PoolKey, str] = attrs.field(factory=Index)
    behind: Index[ObjectKey, int] = attrs.field(factory=Index)
    marking: Index[ObjectKey, str] = attrs.field(factory=Index)
    resting: frozenset[ObjectKey] = frozenset()
    telling: frozenset[str] = frozenset()
    noting: Mapping[str, Freeze | str] = attrs.field(factory=dict, hash=False)
    mint: Mint = attrs.field(factory=Mint)
    leading: bool = False
    leader: str = ""
    exclusive: bool = True
    epoch: int = -1
    now: float = 0.0
    wall_offset: float = 0.0

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Return the operations under way, those of other planners included."""
        return {} if self.book is None else self.book.draft.operations

    @property
    def ledger(self) -> Ledger:
        """Return the ledger as it should be now; an empty one where it is not known."""
        return Ledger() if self.book is None else self.book.draft

    @property
    def view(self) -> Snapshot:
        """Return what is deployed; nothing, where nothing was ever read."""
        return NOTHING if self.snapshot is None else self.snapshot

    @property
    def ready(self) -> bool:
        """Say whether requests can be answered on a current view, be it by decisions or by naming who decides."""
        current = self.snapshot is not None and not self.stale
        return current and (not self.leading or (self.ledger.complete and self.epoch == self.ledger.epoch))

    def drafting(self, draft: Ledger, *, urgent: bool = False, lazy: bool = False) -> "State":
        """Return this state with another *draft* of the ledger.

        It is stored at once where it is *urgent*, with whatever is stored next where it is *lazy*, and else soon.
        """
        book = self.book
        if book is None or draft is book.draft:
            return self
        dirty, urgent = book.dirty or not lazy, book.urgent or urgent
        return self.but(
            book=Book(book.stored, book.version, draft, book.saving, urgent, book.size, book.outdated, dirty)
        )

    def driving(self, key: str, drive: Drive | None) -> "State":
        """Return this state with *drive* for the operation *key*, or none."""
        return self.but(drives=amended(self.drives, {key: drive}))


@attrs.frozen
class Transition:
    """The next state, and what to do now, in this order."""

    state: State
    effects: tuple[Effect, ...] = ()


def objects_of(deployment: Deployment) -> dict[ObjectKey, list[Pool]]:
    """Return the pools of *deployment* by the object that holds them; without those that another ledger claims."""
    objects: dict[ObjectKey, list[Pool]] = {}
    for pool in deployment.pools:
        if pool.fence is not None:
            objects.setdefault(object_of(pool), []).append(pool)
    return objects


def as_recorded(entry: Entry | None, pool: Pool) -> bool:
    """Say whether *pool* is seen just as the ledger has it, with nothing under way."""
    return (
        entry is not None
        and entry.reservation is None
        and entry.fence == pool.fence
        and any(one == (pool.key.role, pool.replicas, pool.gpus_per_replica) for one in entry.held)
    )


def carried(state: State, deployment: Deployment) -> Deployment:
    """Return *deployment*, as observed, with what is promised to each of its pools.

    A pool that an operation has is promised what the operation will make of it; one that is not as the ledger has it
    counts for the more of both, and nobody can have it meanwhile.
    """
    for pool in deployment.pools:
        promised = _promised(state, pool)
        if promised != pool.reserved:
            deployment = deployment.with_pool(pool.reserving(promised))
    return deployment


def _promised(state: State, pool: Pool) -> int | None:
    if state.book is None:
        return None
    operation = state.busy.get(pool.key)
    if operation is not None:
        return state.operations[operation].goal(pool.key)
    entry = state.ledger.entry(object_of(pool))
    if as_recorded(entry, pool):
        return None
    recorded = None if entry is None else entry.replicas(pool.key.role)
    return pool.replicas if recorded is None else recorded


def recarried(state: State, participants: Iterable[ParticipantId]) -> State:
    """Return *state* with what is promised to the pools of *participants* as the ledger has it now."""
    snapshot, keys = state.view, []
    for participant in participants:
        before = snapshot.deployment(participant)
        after = None if before is None else carried(state, before)
        if after is not None and after is not before:
            snapshot = snapshot.with_deployment(after)
            keys += [pool.key for pool in after.pools]
    if not keys:
        return state
    return state.but(snapshot=snapshot, intents=state.intents.follow(snapshot, keys))
