"""Whatever happens, in whatever order: the planner's brain against a tiny world in which everything goes wrong.

`MACHINE_EXAMPLES` says how many histories are tried.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpcore.budgets import Budget
from gpcore.control import Rules, State, step
from gpcore.decisions import Rejected
from gpcore.events import Apply, Decided, Event, Reply, Stale, Submitted, Succeeded, Ticked
from gpcore.intents import ACQUIRE, RELEASE, Intents
from gpcore.pools import ParticipantId, Snapshot
from gpcore.requests import Claimed, ScaleRequest, Target
from tests.core.world import NAMES, ROLES, World

COUNTS = st.integers(0, 6)
NAME = st.sampled_from(NAMES)
INDEX = st.integers(0, 7)
DEADLINE_S = 1800.0


class Planner(RuleBasedStateMachine):
    """One planner, the world that it acts on, and what it has said so far."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.state = State()
        self.now = 0.0
        self.asked: dict[str, ScaleRequest] = {}
        self.replied: dict[str, object] = {}
        self.begun: set[Apply] = set()

    # what happens ----------------------------------------------------------------------------------------------------

    @initialize(counts=st.tuples(*[st.tuples(COUNTS, COUNTS)] * 3), slack=st.integers(-3, 6), width=st.integers(0, 20))
    def begin(self, counts: tuple[tuple[int, int], ...], slack: int, width: int) -> None:
        for name, pair in zip(NAMES, counts, strict=True):
            self.world.create(name, pair)
        ceiling = max(0, self.world.asked_gpus + slack)
        self.state = State(Rules(budget=Budget(max(0, ceiling - width), ceiling), deadline_s=DEADLINE_S))
        self.world.forgive(ceiling)
        self.happen(self.world.list())

    @rule(name=NAME, counts=st.lists(COUNTS, min_size=1, max_size=2), start=st.integers(0, 1))
    def ask(self, name: str, counts: list[int], start: int) -> None:
        participant = ParticipantId("ns", name)
        targets = tuple(Target(ROLES[(start + at) % 2], count) for at, count in enumerate(counts))
        request = ScaleRequest(Claimed(participant.dynamo_namespace), participant, targets)
        key = f"r{len(self.asked)}"
        self.asked[key] = request
        before = self.state
        effects = self.happen(Submitted(key, request, self.now))
        (decided,) = (one for one in effects if isinstance(one, Decided))
        if isinstance(decided.decision, Rejected):
            assert self.state.snapshot == before.snapshot
            assert self.state.operations == before.operations

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def arrive(self, at: int) -> None:
        sent = self.world.sent[at % len(self.world.sent)]
        if sent.answer is None:
            self.world.land(sent)

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def answer(self, at: int) -> None:
        sent = self.world.sent[at % len(self.world.sent)]
        if sent.answer is None:
            self.world.land(sent)
        for event in self.world.told(sent):
            self.happen(event)

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def answer_twice(self, at: int) -> None:
        sent = self.world.sent[at % len(self.world.sent)]
        self.answer(at)
        assert sent.answer is not None
        self.happen(sent.answer)

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def lose(self, at: int) -> None:
        self.happen(self.world.lose(self.world.sent[at % len(self.world.sent)]))

    @precondition(lambda self: self.world.lost)
    @rule(at=INDEX)
    def arrive_late(self, at: int) -> None:
        self.world.late(self.world.lost[at % len(self.world.lost)])

    @precondition(lambda self: self.world.pools())
    @rule(at=INDEX, replicas=COUNTS)
    def write_behind_our_back(self, at: int, replicas: int) -> None:
        pools = self.world.pools()
        self.world.overwrite(pools[at % len(pools)], replicas)

    @rule(name=NAME, counts=st.tuples(COUNTS, COUNTS))
    def delete_or_create(self, name: str, counts: tuple[int, int]) -> None:
        participant = ParticipantId("ns", name)
        if participant in self.world.deployments:
            self.world.delete(participant)
        else:
            self.world.create(name, counts)

    @rule(name=NAME)
    def settle(self, name: str) -> None:
        participant = ParticipantId("ns", name)
        if participant in self.world.deployments:
            self.world.settle(participant)

    @rule(name=NAME)
    def hear(self, name: str) -> None:
        for event in self.world.hear(ParticipantId("ns", name)):
            self.happen(event)

    @rule()
    def lose_sight(self) -> None:
        self.happen(Stale())

    @rule()
    def list_again(self) -> None:
        self.happen(self.world.list())

    @rule(seconds=st.sampled_from([1.0, 200.0, 400.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.happen(Ticked(self.now))

    # what is always so -----------------------------------------------------------------------------------------------

    @invariant()
    def we_never_stand_above_the_ceiling_further_than_others_forced_us(self) -> None:
        ceiling = self.state.rules.budget.ceiling
        if ceiling is not None:
            assert self.world.asked_gpus <= ceiling + self.world.forced
            assert self.world.held_gpus <= ceiling + self.world.forced + self.world.overlap

    @invariant()
    def totals_are_the_sum_of_their_parts(self) -> None:
        snapshot = self.state.snapshot or Snapshot()
        anew = Snapshot.of(snapshot.deployments())
        assert (anew, anew.totals, anew.unknown) == (snapshot, snapshot.totals, snapshot.unknown)

    @invariant()
    def wishes_are_filed_as_if_filed_anew(self) -> None:
        snapshot = self.state.snapshot or Snapshot()
        anew = Intents.of(self.state.intents, snapshot)
        for way in (RELEASE, ACQUIRE):
            assert anew.shelves(snapshot, way) == self.state.intents.shelves(snapshot, way)

    @invariant()
    def what_is_promised_is_what_operations_will_write(self) -> None:
        promised = {key: n for one in self.state.operations.values() for key, n in one.plan.afters.items()}
        owners = {key: one.id for one in self.state.operations.values() for key in one.plan.afters}
        snapshot = self.state.snapshot or Snapshot()
        assert dict(self.state.busy.items()) == owners
        assert sum(len(one.plan.changes) for one in self.state.operations.values()) == len(owners)
        for pool in snapshot.pools():
            assert pool.reserved == promised.get(pool.key), pool

    @invariant()
    def each_request_has_one_reply_or_waits_for_a_live_operation(self) -> None:
        waiting = [waiter for one in self.state.operations.values() for waiter in one.waiters]
        assert sorted([*waiting, *self.replied]) == sorted(self.asked)

    @invariant()
    def an_operation_waits_for_something(self) -> None:
        for one in self.state.operations.values():
            assert one.waiting or one.sent or one.unsure or one.landed
            under_way = {sent.order.step for sent in self.world.sent if sent.order.operation == one.id}
            assert set(one.sent) == under_way

    # and in the end --------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Heal the world: then every request is answered, without waiting for a deadline where there is room."""
        for _ in range(8):
            self.heal()
        ceiling = self.state.rules.budget.ceiling
        snapshot = self.state.snapshot or Snapshot()
        if ceiling is None or snapshot.totals.charged <= ceiling:
            assert not self.state.operations
        self.now += DEADLINE_S + 1
        self.happen(Ticked(self.now))
        for _ in range(3):
            self.heal()
        assert not self.state.operations
        assert set(self.replied) == set(self.asked)

    def heal(self) -> None:
        self.world.lost.clear()
        while self.world.sent:
            self.answer(0)
        for participant in list(self.world.deployments):
            self.world.settle(participant)
        self.happen(self.world.list())
        self.happen(Ticked(self.now))

    def happen(self, event: Event) -> tuple[object, ...]:
        """Let the planner take *event*, and take its effects."""
        transition = step(self.state, event)
        self.state = transition.state
        for effect in transition.effects:
            if isinstance(effect, Apply):
                assert effect.operation in self.state.operations
                assert not (self.state.stale and effect.step.acquires) or effect in self.begun
                self.begun.add(effect)
                self.world.send(effect)
            if isinstance(effect, Reply):
                assert effect.id not in self.replied
                self.replied[effect.id] = effect.outcome
                if isinstance(effect.outcome, Succeeded):
                    self.check_success(effect.outcome)
        if not (self.world.sent or self.world.lost or self.state.operations or any(self.world.news.values())):
            self.world.forgive(self.state.rules.budget.ceiling)
        return transition.effects

    def check_success(self, outcome: Succeeded) -> None:
        landed = {step_ for _, step_ in self.world.landed}
        for step_ in outcome.plan.steps:
            written = {(one.pool, one.authority, one.after) for one in step_.changes}
            assert step_ in landed or written <= self.world.values, step_


TestPlanner = Planner.TestCase
TestPlanner.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "100")),
    stateful_step_count=50,
    derandomize="MACHINE_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
