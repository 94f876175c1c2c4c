"""Hypothesis strategies for the values of the core.

Rules of this file: a strategy builds valid values directly and filters nothing, and its simplest choice comes first,
so that what fails shrinks to a few small pools.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import attrs
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.decisions import Decision
from gpcore.events import Event, Gone, Listed, Seen, Stale, StepApplied, StepRefused, StepUnknown, Submitted, Ticked
from gpcore.fences import Fence
from gpcore.intents import Intent, Intents
from gpcore.ledger import Ended, Entry, Freeze, Held, Ledger, Move, ObjectKey, Repeat, Reservation
from gpcore.operations import Leg, Operation, Stage
from gpcore.plans import Change, Plan, Step
from gpcore.policy import Policy
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, PoolKey, Role, Snapshot, Totals
from gpcore.requests import MAX_SEQUENCE, Claimed, ScaleRequest, Target

T = TypeVar("T")

PARTICIPANTS = tuple(ParticipantId("ns", name) for name in "abcd")
"""The deployments that are drawn: few, so that requests and wishes meet."""

_SHAPES = ((Role.PREFILL,), (Role.DECODE,), (Role.PREFILL, Role.DECODE), (Role.WORKER,))
_ASKABLE = {
    Role.PREFILL: (Role.PREFILL,),
    Role.DECODE: (Role.DECODE,),
    Role.WORKER: (Role.DECODE, Role.PREFILL),
}
_GPUS = (1, 2, 4, 8, 3, 0)
_MOVES = (1, 2, 3, 4, 6)
_SLACK = (0, 1, 2, 4, 8, -1, -2, -4)


@attrs.frozen
class Scenario:
    """Everything that one decision depends on; *intents* are fresh, in the order in which they were told."""

    snapshot: Snapshot
    intents: tuple[Intent, ...]
    budget: Budget
    request: ScaleRequest

    @property
    def filed(self) -> Intents:
        """Return the intents as a policy takes them."""
        return Intents.of(self.intents, self.snapshot)

    def decide(self, policy: Policy) -> Decision:
        """Return what *policy* decides."""
        return policy(self.request, snapshot=self.snapshot, intents=self.filed, budget=self.budget)

    def __str__(self) -> str:
        pools = sorted(self.snapshot.pools(), key=lambda pool: pool.key.order)
        others = sorted(
            (one for one in self.snapshot.deployments() if one.fixed_gpus != 0), key=lambda one: str(one.id)
        )
        asked = [f"{target.role.value} to {target.replicas}" for target in self.request.targets]
        bounds = f"floor {self.budget.floor}, ceiling {self.budget.ceiling}"
        totals = self.snapshot.totals
        lines = [
            f"asked:  {self.request.participant} {' and '.join(asked)}",
            f"bounds: {bounds}; now {totals.charged} count against the ceiling, {totals.least} toward the floor",
            *(f"pool:   {_told(pool)}" for pool in pools),
            *(f"else:   {one.id} uses {_gpus(one.fixed_gpus)}" for one in others),
            *(f"wish:   {wish.pool} {wish.replicas}, since {wish.seen_at:g} s" for wish in self.intents),
        ]
        return "\n".join(lines)


def participants() -> st.SearchStrategy[ParticipantId]:
    """Draw one of `PARTICIPANTS`."""
    return st.sampled_from(PARTICIPANTS)


def pool_keys() -> st.SearchStrategy[PoolKey]:
    """Draw the name of a pool, whether there is one or not."""
    return st.builds(PoolKey, participants(), st.sampled_from(Role))


@st.composite
def pools(draw: st.DrawFn, key: PoolKey | None = None, *, settled: bool = False, known: bool = False) -> Pool:
    """Draw a pool, that of *key* where one is given.

    A *settled* one has nothing under way; one that is *known* says how many GPUs a replica uses.
    """
    name = draw(pool_keys()) if key is None else key
    replicas = draw(st.integers(0, 8))
    gpus = draw(st.sampled_from(_GPUS if known else (*_GPUS, None)))
    adapter = draw(st.booleans())
    lag, relay, reserved = (0, 0, None) if settled else draw(_under_way())
    return Pool(
        name,
        replicas,
        gpus,
        present=max(0, replicas + lag),
        ready=replicas,
        relayed=max(0, replicas + relay) if adapter else None,
        reserved=reserved,
        component=f"{name.role.value}-worker",
        authority=Authority(f"{name.participant.name}-{name.role.value}" if adapter else name.participant.name, "uid"),
    )


def _under_way() -> st.SearchStrategy[tuple[int, int, int | None]]:
    """Draw how far the status and the relay are off, and what is reserved."""
    off = st.sampled_from((0, 0, 0, 1, 2, -1))
    return st.tuples(off, off, st.none() | st.none() | st.none() | st.integers(0, 8))


@st.composite
def deployments(
    draw: st.DrawFn,
    participant: ParticipantId | None = None,
    *,
    shapes: Sequence[Sequence[Role]] = _SHAPES,
    settled: bool = False,
    known: bool = False,
) -> Deployment:
    """Draw a deployment, that of *participant* where one is given.

    It has a pool for each role of one of the *shapes*; *settled* and *known* are those of `pools`. What else of it uses
    GPUs are workers of another role that something keeps from being scaled.
    """
    owner = draw(participants()) if participant is None else participant
    shape = draw(st.sampled_from(tuple(shapes)))
    drawn = tuple(draw(pools(PoolKey(owner, role), settled=settled, known=known)) for role in shape)
    fixed = draw(st.sampled_from((0, 0, 0, 1, 4) if known else (0, None, 1)))
    held = () if fixed == 0 else tuple((role, "something keeps them") for role in Role if role not in shape)
    return Deployment(owner, drawn, fixed_gpus=fixed, unscaled=held[:1])


@st.composite
def snapshots(draw: st.DrawFn, *, settled: bool = False, known: bool = False) -> Snapshot:
    """Draw a fleet of one to four deployments; *settled* and *known* are those of `pools`."""
    first = draw(participants())
    rest = [draw(st.none() | deployments(one, settled=settled, known=known)) for one in PARTICIPANTS if one != first]
    drawn = (draw(deployments(first, settled=settled, known=known)), *rest)
    return Snapshot.of(one for one in drawn if one is not None)


@st.composite
def budgets(draw: st.DrawFn, totals: Totals = Totals(16, 16)) -> Budget:  # noqa: B008 - frozen
    """Draw bounds at, near and beyond *totals*; often so tight that nothing may change without a partner."""
    if draw(st.sampled_from((False, True))):
        return Budget(max(0, totals.least), max(0, totals.least, totals.charged))
    room, spare = draw(st.sampled_from((None, *_SLACK))), draw(st.sampled_from((None, *_SLACK)))
    ceiling = None if room is None else max(0, totals.charged + room)
    floor = 0 if spare is None else max(0, totals.least - spare)
    return Budget(floor if ceiling is None else min(floor, ceiling), ceiling)


@st.composite
def intents(draw: st.DrawFn, pool: Pool, *, ways: Sequence[int] = (1, -1)) -> Intent:
    """Draw a wish of *pool*, in one of the *ways* (1: more, -1: less)."""
    moved = draw(st.sampled_from((1, 2, 3, 6))) * draw(st.sampled_from(tuple(ways)))
    return Intent(pool.key, max(0, pool.replicas + moved), float(draw(st.integers(0, 3))))


@st.composite
def requests(draw: st.DrawFn, snapshot: Snapshot) -> ScaleRequest:
    """Draw a request that makes sense for *snapshot*, which must have a pool."""
    owners = sorted((one for one in snapshot.deployments() if one.pools), key=lambda one: str(one.id))
    return draw(_requests(draw(st.sampled_from(owners))))


@st.composite
def _requests(draw: st.DrawFn, deployment: Deployment) -> ScaleRequest:
    """Draw a request for one or all pools of *deployment*, mostly to give to the one what the other has."""
    first = draw(st.sampled_from(deployment.pools))
    asked = draw(st.sampled_from(((first,), deployment.pools)))
    way, targets = draw(st.sampled_from((1, -1))), []
    for pool in asked:
        replicas = max(0, pool.replicas + way * draw(st.sampled_from(_MOVES)))
        targets.append(Target(draw(st.sampled_from(_ASKABLE[pool.key.role])), replicas))
        way *= draw(st.sampled_from((-1, -1, 1)))
    return ScaleRequest(Claimed(deployment.id.dynamo_namespace), deployment.id, tuple(targets))


@st.composite
def _odd_requests(draw: st.DrawFn, deployment: Deployment, *, owner: ParticipantId | None = None) -> ScaleRequest:
    """Draw a request for prefill and decode, whatever *deployment* has, calling the one by the other's name."""
    asked = deployment.id if owner is None else owner
    component = f"{Role.DECODE.value}-worker"
    targets = (Target(Role.PREFILL, draw(st.integers(0, 8)), component), Target(Role.DECODE, draw(st.integers(0, 8))))
    return ScaleRequest(Claimed(asked.dynamo_namespace), asked, targets)


def scenarios() -> st.SearchStrategy[Scenario]:
    """Draw a scenario in which something is at stake.

    The bounds are at or near what is or what would be, and those who wish mostly wish what would help.
    """
    return _scenarios(_requests, _SHAPES)


def odd_scenarios() -> st.SearchStrategy[Scenario]:
    """Draw a scenario whose request makes no sense, in one of the ways in which a request can make none."""
    nobody = partial(_odd_requests, owner=ParticipantId("ns", "nobody"))
    return st.one_of(
        _scenarios(nobody, _SHAPES),
        _scenarios(_odd_requests, ((Role.PREFILL,), (Role.DECODE,))),
        _scenarios(_odd_requests, ((Role.WORKER,),)),
        _scenarios(_odd_requests, ((Role.PREFILL, Role.DECODE),)),
    )


@st.composite
def _scenarios(
    draw: st.DrawFn, ask: Callable[[Deployment], st.SearchStrategy[ScaleRequest]], shapes: Sequence[Sequence[Role]]
) -> Scenario:
    """Draw a scenario of a deployment of one of the *shapes*, which is asked for what *ask* draws."""
    owner = draw(participants())
    settled, known = draw(st.sampled_from((True, True, False))), draw(st.sampled_from((*(True,) * 5, False)))
    home = draw(deployments(owner, shapes=shapes, settled=settled, known=known))
    home = attrs.evolve(home, pools=tuple(attrs.evolve(pool, reserved=None) for pool in home.pools))
    rest = [draw(st.none() | deployments(one, settled=settled, known=known)) for one in PARTICIPANTS if one != owner]
    snapshot = Snapshot.of([home, *(one for one in rest if one is not None)])
    request = draw(ask(home))
    net = _net(request, snapshot)
    helpful = -1 if net.charged > 0 else 1
    wishes = tuple(
        draw(intents(pool, ways=(helpful, helpful, helpful, -helpful)))
        for pool in sorted(snapshot.pools(), key=lambda one: one.key.order)
        if draw(st.booleans())
    )
    around = draw(st.sampled_from((snapshot.totals, snapshot.totals + net)))
    return Scenario(snapshot, wishes, draw(budgets(around)), request)


def _net(request: ScaleRequest, snapshot: Snapshot) -> Totals:
    """Return the GPUs that *request* acquires."""
    asked = [(snapshot.answering(request.participant, target.role), target) for target in request.targets]
    gpus = sum((one.replicas - pool.replicas) * (pool.gpus_per_replica or 0) for pool, one in asked if pool is not None)
    return Totals(gpus, gpus)


def steps(snapshot: Snapshot) -> st.SearchStrategy[Step]:
    """Draw a step that changes one pool of *snapshot*, which must have one."""
    every = sorted(snapshot.pools(), key=lambda pool: pool.key.order)
    return st.builds(lambda pool, after: Step((Change.of(pool, after),)), st.sampled_from(every), st.integers(0, 8))


def events(snapshot: Snapshot) -> st.SearchStrategy[Event]:
    """Draw anything that can happen to a planner that sees *snapshot*, which must have a pool."""
    ids, now = st.sampled_from(("1", "2", "3")), st.integers(0, 1000).map(float)
    deployed = tuple(sorted(snapshot.deployments(), key=lambda one: str(one.id)))
    return st.one_of(
        st.builds(Submitted, ids, requests(snapshot), now),
        st.builds(Ticked, now),
        st.builds(Seen, deployments()),
        st.builds(Gone, participants()),
        st.just(Stale()),
        st.just(Listed(deployed)),
        st.builds(StepApplied, ids, steps(snapshot)),
        st.builds(StepRefused, ids, steps(snapshot), st.just("refused")),
        st.builds(StepUnknown, ids, steps(snapshot), st.just("no answer")),
    )


def _gpus(count: int | None) -> str:
    return f"{'unknown' if count is None else count} GPUs"


def _told(pool: Pool) -> str:
    """Return *pool* in one line, and of what is under way just what is."""
    parts = [f"{pool.key} {pool.replicas} x {_gpus(pool.gpus_per_replica)}"]
    parts += [f"{pool.present} present"] if pool.present != pool.replicas else []
    parts += [f"{pool.relayed} relayed"] if pool.relayed not in (None, pool.replicas) else []
    parts += [f"{pool.reserved} reserved"] if pool.reserved is not None else []
    return ", ".join(parts)


_CHARACTERS = st.characters(codec="utf-8")


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """Draw a ledger as a planner may leave it: objects at rest, adopted or reserved, and all that it remembers."""
    marks = map(str, range(10**6))
    operations = draw(st.lists(_operations(marks), max_size=2, unique_by=lambda one: one.id))
    owners = draw(st.lists(participants(), max_size=4, unique=True))
    entries = [entry for owner in owners for entry in draw(_entries(owner, operations, marks))]
    made = Ledger.of(entries, operations, budget=draw(budgets()))
    times, texts = st.floats(0, 2e9), st.text(_CHARACTERS, max_size=8)
    names = st.text(_CHARACTERS, min_size=1, max_size=8)
    words = st.sampled_from(("scaling", "success", "error"))
    return attrs.evolve(
        made,
        epoch=draw(st.integers(0, 3)),
        complete=draw(st.booleans()),
        wishes=draw(_few(st.builds(Intent, pool_keys(), st.integers(0, 8), times))),
        repeats=draw(_few(st.builds(Repeat, names, names, names, words, texts, st.none() | names))),
        sequences=draw(st.dictionaries(names, st.integers(0, MAX_SEQUENCE), max_size=2)),
        freezes=draw(
            _few(
                st.builds(Freeze, names, st.sampled_from(("all", "up", "down")), times, texts, names, _few(pool_keys()))
            )
        ),
        moves=draw(_few(st.builds(Move, pool_keys(), times, st.integers(-64, 64)))),
        ended=draw(_few(_ended(times, texts))),
        extra=draw(st.sampled_from(({}, {}, {"schema": "1.7", "surge": [{"a": 1}]}))),
    )


def _ended(times: st.SearchStrategy[float], texts: st.SearchStrategy[str]) -> st.SearchStrategy[Ended]:
    gpus = st.integers(0, 64)
    return st.builds(
        Ended,
        id=texts,
        began_at=times,
        ended_at=times,
        status=texts,
        message=texts,
        caller=texts,
        participant=texts,
        changes=texts,
        before=gpus,
        after=gpus,
        told=st.booleans(),
    )


def _few(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(strategy, max_size=2).map(tuple)


@st.composite
def _entries(
    draw: st.DrawFn, owner: ParticipantId, operations: Sequence[Operation], marks: Iterator[str]
) -> list[Entry]:
    """Draw the objects of one deployment: itself, or adapters of its components, or what nobody has named so yet."""
    names = draw(
        st.sampled_from(
            (("deployment/{}",), ("adapter/{}-prefill", "adapter/{}-decode"), ("", "{}", "a b/~%+\u00e9", "x/{}/y"))
        )
    )
    found = []
    for name in names:
        roles = draw(st.lists(st.sampled_from(Role), unique=True, max_size=3))
        pools = tuple(Held(role, draw(st.integers(0, 9)), draw(st.sampled_from((1, 8, 0, None)))) for role in roles)
        fence = draw(st.sampled_from(("", f"fence {next(marks)}")))
        reservation = draw(st.none() | st.none() | _reservations(fence, pools, operations, marks))
        found.append(Entry(ObjectKey(owner, name.format(owner.name)), fence, pools, reservation))
    return found


@st.composite
def _reservations(
    draw: st.DrawFn, old: str, pools: Sequence[Held], operations: Sequence[Operation], marks: Iterator[str]
) -> Reservation:
    fence = Fence(old, f"new {next(marks)}", f"kill {next(marks)}")
    if not (pools and operations and draw(st.booleans())):
        return Reservation(fence)
    changed = draw(st.lists(st.sampled_from(tuple(pools)), min_size=1, unique_by=lambda one: one.role))
    afters = tuple((one.role, draw(st.integers(0, 9))) for one in changed)
    return Reservation(fence, draw(st.sampled_from(tuple(operations))).id, afters)


@st.composite
def _operations(draw: st.DrawFn, marks: Iterator[str]) -> Operation:
    """Draw an operation at any point of its way, or of its way back."""
    deployment = draw(deployments())
    snapshot = Snapshot.of([deployment])
    plan = Plan(tuple(draw(st.lists(steps(snapshot), max_size=2))))
    others = tuple(draw(st.lists(steps(snapshot), max_size=2)))
    request = attrs.evolve(
        draw(_requests(deployment)),
        blocking=draw(st.booleans()),
        request_id=draw(st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)),
        sequence=draw(st.none() | st.integers(0, MAX_SEQUENCE)),
    )
    legs = []
    for step in draw(st.sampled_from((plan.steps, others))):
        fence = Fence(f"o{next(marks)}", f"n{next(marks)}", f"k{next(marks)}")
        legs.append(Leg(attrs.evolve(step, fence=draw(st.sampled_from((None, fence)))), draw(st.sampled_from(Stage))))
    sums, counts = st.builds(Totals, st.integers(-9, 99), st.integers(-9, 99)), st.integers(0, 9)
    drawn = st.builds(
        partial(Operation, draw(st.text(_CHARACTERS, min_size=1, max_size=8)), request, plan),
        st.just(tuple(legs)),
        began_at=st.floats(0, 2e9),
        before=sums,
        totals=sums,
        excess=counts,
        escrow=counts,
        dip=counts,
        retries=counts,
        problem=st.none() | st.text(_CHARACTERS, max_size=8),
        returning=st.booleans(),
    )
    return draw(drawn)
