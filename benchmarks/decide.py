"""Answer what a decision costs, and whether that depends on the size of the fleet.

Each turn is another request, made by another deployment at a later time, to raise its decode pool by one. It goes
through `gpcore.control.step` as in production: old intents expire (one a turn), the decision is made, the intent
remembered, the replicas reserved in the ledger, and the order given to store it. *decide* is that step; *cycle* is all
that the planner does for the request: also the events that say that the ledger is stored, and that show and confirm
what was written. What an adapter does in between (the ledger as text, the network) is no part of it. Then, not timed,
the cluster and the ledger go back to what they were and somebody else wishes something, so that every turn meets a
fleet of the same kind.

The peer (ai-dynamo's `Orchestrator.mediate` in its own process) gets the same fleet, wishes, times and requests, in
alternation with ours, and is timed for its decision alone.

Three cases: *alone*, the request fits and nobody wishes to release; *floor band*, 64 GPUs between floor and ceiling
and the ceiling is reached; *open band*, no floor and the ceiling is reached. In the last two somebody else has to
release first, and half of the wishes are to release.
"""

import argparse
import contextlib
import gc
import pickle
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import attrs

from benchmarks import _peer
from benchmarks._environment import MissingError
from benchmarks._report import Times, shown, table, verdict
from gpcore.budgets import Budget
from gpcore.control import Rules, step
from gpcore.events import Apply, Effect, Event, LedgerSaved, Save, Seen, StepApplied, Submitted, Tell, Told
from gpcore.intents import Intent
from gpcore.ledger import Entry, believed, held
from gpcore.plans import Step
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, PoolKey, Role, Snapshot
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.states import objects_of
from gpcore.testing.settled import FENCE, fenced, settled_state

SIZES = (20, 200, 1_000, 2_000, 10_000, 50_000)
ROUNDS = 4
TURNS = 100  # a round
PEER_SECONDS = 4.0  # a round: the peer answers as many of the turns as it can
PATIENCE_S = 20.0
TTL_S = 360.0
FAR = 10

ALONE = "alone"
WITH_PARTNERS = ("floor band", "open band")
BANDS = (ALONE, *WITH_PARTNERS)


@attrs.frozen
class Turn:
    """At *now*, when others have come to wish *wishes*, *key* is asked to have *replicas*."""

    now: float
    wishes: tuple[Intent, ...]
    key: PoolKey
    replicas: int


@attrs.frozen
class Case:
    """One fleet under one budget, and what happens to it."""

    size: int
    band: str
    fleet: Mapping[ParticipantId, Deployment]
    budget: Budget
    wishes: tuple[Intent, ...]

    @property
    def name(self) -> str:
        """Return the case in words."""
        return f"{self.size:>6,} {self.band}"

    def turns(self) -> Iterator[Turn]:
        """Yield turns for ever; in each of them the oldest wish expires and a new one comes in its place."""
        chance = random.Random(self.size)  # noqa: S311 - the same on every run
        gap, now = TTL_S / len(self.wishes), TTL_S
        deployments = list(self.fleet.values())
        while True:
            chance.shuffle(deployments)
            for deployment in deployments:
                now += gap
                decode = deployment.pools[1]
                wish = _wish(chance.choice(deployments), self.band, chance, now - gap / 2)
                yield Turn(now, (wish,), decode.key, decode.replicas + 1)


def cases(size: int) -> Iterator[Case]:
    """Yield the cases of *size* pools: 1 to 8 replicas of 1 to 8 GPUs, a third of the prefill pools wishing."""
    chance = random.Random(size)  # noqa: S311 - the same on every run
    fleet = {one.id: fenced(one) for one in (_deployment(number, chance) for number in range(size // 2))}
    total = Snapshot.of(fleet.values()).totals.charged
    wishing = chance.sample(list(fleet.values()), len(fleet) // 3)
    gap = TTL_S / len(wishing)
    for band, budget in {
        ALONE: Budget(0, total * FAR),
        "floor band": Budget(max(0, total - 64), total),
        "open band": Budget(0, total),
    }.items():
        wishes = tuple(_wish(one, band, chance, (at + 0.5) * gap) for at, one in enumerate(wishing))
        yield Case(size, band, fleet, budget, wishes)


def _deployment(number: int, chance: random.Random) -> Deployment:
    participant = ParticipantId("bench", f"deployment-{number}")
    authority, pools = Authority(participant.name, uid=f"uid-{number}"), []
    for role in (Role.PREFILL, Role.DECODE):
        replicas, gpus = chance.randint(1, 8), chance.choice((1, 2, 4, 8))
        pools.append(
            Pool(PoolKey(participant, role), replicas, gpus, present=replicas, ready=replicas, authority=authority)
        )
    return Deployment(participant, tuple(pools))


def _wish(deployment: Deployment, band: str, chance: random.Random, at: float) -> Intent:
    """Return a wish of the prefill pool of *deployment*: for other replicas, or where nobody is to help, for more."""
    pool = deployment.pools[0]
    others = range(pool.replicas + 1, 17) if band == ALONE else [n for n in range(1, 9) if n != pool.replicas]
    return Intent(pool.key, chance.choice(others), at)


class Ours:
    """Our planner in one case."""

    def __init__(self, case: Case) -> None:
        """Let it lead over a ledger that has the fleet, and show it the wishes."""
        self._fleet = case.fleet
        rules = Rules(budget=case.budget, intent_ttl_s=TTL_S)
        self._state = settled_state(rules, Snapshot.of(case.fleet.values()))
        self._wishes: dict[PoolKey, Intent] = {}
        self._remember(case.wishes)
        self._count = 0
        self.decide, self.cycle = Times(), Times()
        self.approved = self.partners = 0

    def play(self, turns: Iterable[Turn]) -> None:
        """Answer the requests of *turns*."""
        decide, cycle = [], []
        for turn in turns:
            self._remember(turn.wishes)
            request = _request(turn)
            self._count += 1
            start = time.perf_counter()
            effects = self._tell(Submitted(f"request-{self._count}", request, turn.now))
            decided = time.perf_counter()
            rest = self._carry_out(effects)
            decide.append(decided - start)
            cycle.append(decided - start + rest)
        self.decide += Times(tuple(decide))
        self.cycle += Times(tuple(cycle))

    def _tell(self, event: Event) -> tuple[Effect, ...]:
        transition = step(self._state, event)
        self._state = transition.state
        return transition.effects

    def _carry_out(self, effects: Iterable[Effect]) -> float:
        """Let the world do what is asked for, and undo it; return the seconds that the planner took for it."""
        took, waiting, keys, cluster = 0.0, list(effects), [], dict[ParticipantId, Deployment]()
        while waiting:
            effect = waiting.pop(0)
            if isinstance(effect, Apply):
                keys += [change.pool for change in effect.step.changes]
            events = self._followed(effect, cluster)
            start = time.perf_counter()
            for event in events:
                waiting += self._tell(event)
            took += time.perf_counter() - start
        self.approved += bool(keys)
        self.partners += max(0, len(keys) - 1)
        assert not self._state.operations, "the operation has ended"
        self._undo(cluster)
        self._remember([self._wishes[key] for key in keys if key in self._wishes])
        return took

    def _followed(self, effect: Effect, cluster: dict[ParticipantId, Deployment]) -> list[Event]:
        """Return what happens when *effect* is performed on *cluster*, which has what differs from the fleet."""
        match effect:
            case Save():
                return [LedgerSaved(f"version-{self._count}")]
            case Apply(operation, one):
                participant = one.participant
                cluster[participant] = _written(cluster.get(participant, self._fleet[participant]), one)
                return [Seen(_received(cluster[participant])), StepApplied(operation, one)]
            case Tell(ended):
                return [Told(ended.id)]
            case _:
                return []

    def _undo(self, cluster: Iterable[ParticipantId]) -> None:
        """Let the deployments *cluster* be again as they were, in the ledger too."""
        book = self._state.book
        assert book is not None
        before = [(key, pools) for one in cluster for key, pools in objects_of(self._fleet[one]).items()]
        ledger = believed(book.draft, [Entry(key, FENCE, held(pools)) for key, pools in before])
        self._state = self._state.but(book=attrs.evolve(book, stored=ledger, draft=ledger))
        for participant in cluster:
            self._tell(Seen(_received(self._fleet[participant])))

    def _remember(self, wishes: Iterable[Intent]) -> None:
        intents = self._state.intents
        for wish in wishes:
            self._wishes[wish.pool] = wish
            intents = intents.record(wish)
        self._state = attrs.evolve(self._state, intents=intents)


def _received(deployment: Deployment) -> Deployment:
    """Return *deployment* as it comes from the network: equal, and no part of it known from before."""
    copy: Deployment = pickle.loads(pickle.dumps(deployment))  # noqa: S301 - made in this line
    return copy


def _written(deployment: Deployment, written: Step) -> Deployment:
    """Return what *written* makes of *deployment*."""
    for change in written.changes:
        pool = deployment.pool(change.pool.role)
        assert pool is not None
        fence = written.fence.new if written.fence is not None else None
        seen = attrs.evolve(pool, replicas=change.after, present=change.after, ready=change.after, fence=fence)
        deployment = deployment.with_pool(seen)
    return deployment


def _request(turn: Turn) -> ScaleRequest:
    """Return the request of *turn* with an id of its own, as it comes from the network."""
    participant = ParticipantId(turn.key.participant.namespace, turn.key.participant.name)
    return ScaleRequest(Claimed(participant.dynamo_namespace), participant, (Target(turn.key.role, turn.replicas),))


class Theirs:
    """The peer in one case."""

    def __init__(self, case: Case, peer: _peer.Peer) -> None:
        """Show it the fleet and the wishes."""
        self._peer, self._name = peer, case.name
        self.decide, self.unfinished = Times(), False
        self.approved = self.partners = 0
        pools = [pool for deployment in case.fleet.values() for pool in deployment.pools]
        budget = {"ceiling": case.budget.ceiling, "floor": case.budget.floor or -1, "ttl_s": TTL_S}
        fleet = [[str(pool.key.participant), pool.key.role, pool.replicas, pool.gpus_per_replica] for pool in pools]
        peer.ask({"case": case.name, "pools": fleet, "wishes": list(map(_wish_json, case.wishes)), **budget})

    def play(self, turns: Iterable[Turn]) -> None:
        """Answer as many requests of *turns* as there is time for; once one was too much, no more."""
        if self.unfinished:
            return
        rows = [[turn.now, list(map(_wish_json, turn.wishes)), [*_key_json(turn.key), turn.replicas]] for turn in turns]
        limits = {"seconds": PEER_SECONDS, "patience_s": PATIENCE_S}
        answer = self._peer.ask({"case": self._name, "turns": rows, **limits})
        self.decide += Times(tuple(answer["seconds"]))
        self.unfinished = answer["unfinished"]
        self.approved += answer["approved"]
        self.partners += answer["partners"]


def _key_json(key: PoolKey) -> list[Any]:
    return [str(key.participant), key.role]


def _wish_json(wish: Intent) -> list[Any]:
    return [*_key_json(wish.pool), wish.replicas, wish.seen_at]


Results = dict[tuple[int, str], tuple[Ours, Theirs | None]]


def measure(sizes: Iterable[int], peer: _peer.Peer | None) -> Results:
    """Play all cases of *sizes* in rounds, so that whatever else the machine does meets all of them."""
    playing = [
        (case, case.turns(), Ours(case), Theirs(case, peer) if peer else None) for size in sizes for case in cases(size)
    ]
    gc.collect()
    gc.freeze()  # the fleets, whose collection is not what is asked about; the same is done for the peer
    for _ in range(ROUNDS):
        for _case, stream, ours, theirs in playing:
            turns = list(islice(stream, TURNS))
            ours.play(turns)
            if theirs:
                theirs.play(turns)
    return {(case.size, case.band): (ours, theirs) for case, _, ours, theirs in playing}


def report(results: Results) -> None:
    """Print what was measured."""
    rows = []
    for (size, band), (ours, theirs) in results.items():
        partners = f"{ours.partners / max(1, ours.approved):.1f}"
        row = [f"{size:>6,} {band}", ours.decide, ours.cycle, _share(ours.approved, ours.decide), partners]
        rows.append([*row, *_peer_cells(ours, theirs)])
    head = ("pools, budget", "decide", "cycle", "approved", "partners")
    table([*head, f"ai-dynamo {_peer.VERSION}", "approved", "partners", "ratio"], rows)


def _peer_cells(ours: Ours, theirs: Theirs | None) -> list[object]:
    if theirs is None:
        return ["-"] * 4
    unfinished = f"not finished in {PATIENCE_S:g} s"
    if not theirs.decide.seconds:
        return [unfinished, "-", "-", f"> {PATIENCE_S / ours.decide.median:,.0f}"]
    partners = f"{theirs.partners / max(1, theirs.approved):.1f}"
    ratio = f"{theirs.decide.median / ours.decide.median:,.1f}"
    took = f"{theirs.decide} n={len(theirs.decide.seconds)}{', then ' + unfinished if theirs.unfinished else ''}"
    return [took, _share(theirs.approved, theirs.decide), partners, ratio]


def _share(approved: int, times: Times) -> str:
    return f"{approved / len(times.seconds):.0%}"


def judge(results: Results) -> None:
    """Print how the goals are met."""
    ours = {key: one.decide.median for key, (one, _) in results.items()}
    if (10_000, ALONE) in ours:
        slowest = max(ours[10_000, band] for band in BANDS)
        found = ", ".join(f"{band} {shown(ours[10_000, band])}" for band in BANDS)
        verdict("10,000 pools: at most 100 us", holds=slowest <= 100e-6, found=found)
    if {(1_000, ALONE), (50_000, ALONE)} <= ours.keys():
        growth = {band: ours[50_000, band] / ours[1_000, band] for band in BANDS}
        found = ", ".join(f"{band} {ratio:.2f}" for band, ratio in growth.items())
        verdict("50,000 pools: at most 1.5 times 1,000 pools", holds=max(growth.values()) <= 1.5, found=found)
    for band in WITH_PARTNERS:
        _, theirs = results.get((10_000, band), (None, None))
        if theirs:
            seconds = theirs.decide.median if theirs.decide.seconds else PATIENCE_S
            ratio = seconds / ours[10_000, band]
            claim = f"10,000 pools, {band}: 500 times faster than the peer"
            verdict(claim, holds=ratio >= 500, found=f"{ratio:,.0f}")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="What does a decision cost?")
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="pools (default: %(default)s)")
    parser.add_argument("--no-peer", action="store_true", help="measure our side alone")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        peer = None
        if not options.no_peer:
            try:
                peer = stack.enter_context(_peer.running("_peer_decide.py"))
            except MissingError as missing:
                print(f"without ai-dynamo {_peer.VERSION}: {missing}", file=sys.stderr)
        results = measure(options.sizes, peer)
    report(results)
    judge(results)


if __name__ == "__main__":
    main()
