"""Whatever happens, in whatever order: planners' brains against a tiny world in which everything goes wrong.

`MACHINE_EXAMPLES` says how many histories are tried.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpcore.budgets import Budget
from gpcore.control import Rules, State, step
from gpcore.decisions import Rejected
from gpcore.events import (
    Apply,
    Decided,
    Event,
    Failed,
    LeaseChanged,
    Load,
    Mark,
    Reply,
    Save,
    Stale,
    Submitted,
    Succeeded,
    Ticked,
)
from gpcore.fences import Mint
from gpcore.intents import ACQUIRE, RELEASE, Intents
from gpcore.ledger import Ledger, object_of
from gpcore.plans import Step
from gpcore.pools import ParticipantId, Snapshot
from gpcore.requests import Claimed, ScaleRequest, Target
from tests.core.world import NAMES, ROLES, WALL, Sent, World

COUNTS = st.integers(0, 6)
NAME = st.sampled_from(NAMES)
INDEX = st.integers(0, 7)
WHO = st.sampled_from(("p", "p", "q"))
DEADLINE_S = 1800.0


class Planners(RuleBasedStateMachine):
    """Two planners, the world that they act on, and what they have said so far."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.states: dict[str, State] = {}
        self.lives = 0
        self.asked: dict[str, str] = {}
        self.replied: dict[str, object] = {}
        self.stored: Ledger | None = None
        self.recorded: set[object] = set()

    # what happens ----------------------------------------------------------------------------------------------------

    @initialize(counts=st.tuples(*[st.tuples(COUNTS, COUNTS)] * 3), slack=st.integers(-3, 6), width=st.integers(0, 20))
    def begin(self, counts: tuple[tuple[int, int], ...], slack: int, width: int) -> None:
        for name, pair in zip(NAMES, counts, strict=True):
            self.world.create(name, pair)
        ceiling = max(0, self.world.asked_gpus + slack)
        self.world.ceiling = ceiling
        self.world.forgive()
        self.rules_ = Rules(budget=Budget(max(0, ceiling - width), ceiling), deadline_s=DEADLINE_S)
        for who in ("p", "q"):
            self.start(who)
        self.lead("p")
        for _ in range(4):
            self.heal("p")

    def start(self, who: str) -> None:
        """Begin the life of a planner, which knows nothing."""
        self.lives += 1
        self.states[who] = State(self.rules_, mint=Mint(f"life {self.lives}"))
        self.asked = {key: owner for key, owner in self.asked.items() if owner != who or key in self.replied}
        self.world.join(who)

    @rule(who=WHO, name=NAME, counts=st.lists(COUNTS, min_size=1, max_size=2), start=st.integers(0, 1))
    def ask(self, who: str, name: str, counts: list[int], start: int) -> None:
        participant = ParticipantId("ns", name)
        targets = tuple(Target(ROLES[(start + at) % 2], count) for at, count in enumerate(counts))
        request = ScaleRequest(Claimed(participant.dynamo_namespace), participant, targets)
        key = f"r{len(self.asked)}-{self.lives}"
        self.asked[key] = who
        before = self.states[who]
        effects = self.happen(who, Submitted(key, request, self.world.now))
        decisions = [one for one in effects if isinstance(one, Decided) and one.id == key]
        if isinstance(decisions[0].decision, Rejected):
            assert self.states[who].snapshot == before.snapshot
            assert self.states[who].operations == before.operations

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def arrive(self, at: int) -> None:
        sent = self.world.sent[at % len(self.world.sent)]
        if sent.answer is None:
            self.world.arrive(sent)

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def answer(self, at: int) -> None:
        self.answered(self.world.sent[at % len(self.world.sent)])

    def answered(self, sent: Sent) -> None:
        """Let *sent* arrive, where it has not, and be answered."""
        if sent.answer is None:
            self.world.arrive(sent)
        for event in self.world.told(sent):
            self.happen(sent.planner, event)

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def answer_twice(self, at: int) -> None:
        sent = self.world.sent[at % len(self.world.sent)]
        self.answered(sent)
        if isinstance(sent.order, Apply | Mark):
            assert sent.answer is not None
            self.happen(sent.planner, sent.answer)

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def arrive_twice(self, at: int) -> None:
        sent = self.world.sent[at % len(self.world.sent)]
        self.world.lost.append(Sent(sent.planner, sent.order))

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def lose(self, at: int) -> None:
        sent = self.world.sent[at % len(self.world.sent)]
        self.happen(sent.planner, self.world.lose(sent))

    @precondition(lambda self: self.world.sent)
    @rule(at=INDEX)
    def refuse(self, at: int) -> None:
        sent = self.world.sent[at % len(self.world.sent)]
        refused = self.world.refuse(sent)
        if refused is not None:
            self.happen(sent.planner, refused)

    @precondition(lambda self: self.world.lost)
    @rule(at=INDEX)
    def arrive_late(self, at: int) -> None:
        self.world.late(self.world.lost[at % len(self.world.lost)])

    @precondition(lambda self: self.world.pools())
    @rule(at=INDEX, replicas=COUNTS)
    def write_behind_our_back(self, at: int, replicas: int) -> None:
        pools = self.world.pools()
        self.world.overwrite(pools[at % len(pools)], replicas)

    @precondition(lambda self: self.world.pools())
    @rule(at=INDEX)
    def wash_the_fence_off(self, at: int) -> None:
        pools = self.world.pools()
        self.world.wash(object_of(pools[at % len(pools)]), f"stranger {self.world.version}")

    @rule(name=NAME, counts=st.tuples(COUNTS, COUNTS))
    def delete_or_create(self, name: str, counts: tuple[int, int]) -> None:
        participant = ParticipantId("ns", name)
        if participant in self.world.deployments:
            self.world.delete(participant)
        else:
            self.world.create(name, counts)

    @rule(name=NAME)
    def restore(self, name: str) -> None:
        participant = ParticipantId("ns", name)
        if participant in self.world.deployments:
            self.world.restore(participant)

    @rule(name=NAME)
    def settle(self, name: str) -> None:
        participant = ParticipantId("ns", name)
        if participant in self.world.deployments:
            self.world.settle(participant)

    @rule(who=WHO, name=NAME)
    def hear(self, who: str, name: str) -> None:
        for event in self.world.hear(who, ParticipantId("ns", name)):
            self.happen(who, event)

    @rule(who=WHO)
    def lose_sight(self, who: str) -> None:
        self.happen(who, Stale())

    @rule(who=WHO)
    def list_again(self, who: str) -> None:
        self.happen(who, self.world.list(who))

    @rule(who=WHO, seconds=st.sampled_from([1.0, 200.0, 400.0, 2000.0]))
    def wait(self, who: str, seconds: float) -> None:
        self.world.now += seconds
        self.tick(who)

    @rule(who=WHO, leading=st.booleans(), exclusive=st.sampled_from([True, True, False]))
    def elect(self, who: str, leading: bool, exclusive: bool) -> None:  # noqa: FBT001 - drawn
        self.happen(who, LeaseChanged(leading, "somebody", exclusive))

    @rule(who=WHO)
    def crash(self, who: str) -> None:
        self.start(who)

    # what is always so -----------------------------------------------------------------------------------------------

    @invariant()
    def we_never_stand_above_the_ceiling_further_than_others_forced_us(self) -> None:
        if self.world.ceiling is not None:
            assert self.world.asked_gpus <= self.world.ceiling + self.world.forced
            assert self.world.held_gpus <= self.world.ceiling + self.world.forced + self.world.overlap

    @invariant()
    def the_ledger_never_promises_more_than_the_ceiling_and_what_others_forced(self) -> None:
        ledger, before = self.world.ledger, self.stored
        if ledger is None or ledger is before:
            return
        self.stored = ledger
        anew = Ledger.of(ledger.entries.values(), ledger.operations.values(), budget=ledger.budget)
        assert (ledger.totals, ledger.pending) == (anew.totals, anew.pending)
        assert ledger.totals.charged <= (ledger.budget.ceiling or 0) + self.world.forced
        assert before is None or ledger.epoch >= before.epoch

    @invariant()
    def totals_are_the_sum_of_their_parts(self) -> None:
        for state in self.states.values():
            snapshot = state.view
            anew = Snapshot.of(snapshot.deployments())
            assert (anew, anew.totals, anew.unknown) == (snapshot, snapshot.totals, snapshot.unknown)
            ledger = state.ledger
            made = Ledger.of(ledger.entries.values(), ledger.operations.values(), budget=ledger.budget)
            assert (ledger.totals, ledger.pending) == (made.totals, made.pending)

    @invariant()
    def wishes_are_filed_as_if_filed_anew(self) -> None:
        for state in self.states.values():
            anew = Intents.of(state.intents, state.view)
            for way in (RELEASE, ACQUIRE):
                assert anew.shelves(state.view, way) == state.intents.shelves(state.view, way)

    @invariant()
    def what_is_promised_is_what_operations_will_write(self) -> None:
        for state in self.states.values():
            owners = {key: one.id for one in state.operations.values() for key in one.plan.afters}
            assert dict(state.busy.items()) == owners
            assert sum(len(one.plan.changes) for one in state.operations.values()) == len(owners)
            for pool in state.view.pools():
                if pool.key in owners:
                    assert pool.reserved == state.operations[owners[pool.key]].goal(pool.key), pool

    @invariant()
    def each_request_has_one_reply_or_waits_for_a_live_operation(self) -> None:
        waiting = [waiter for state in self.states.values() for one in state.drives.values() for waiter in one.waiters]
        assert sorted([*waiting, *self.replied]) == sorted(self.asked)
        for state in self.states.values():
            assert set(state.drives) == set(state.operations)

    # and in the end --------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Heal the world: then every request is answered, without waiting for a deadline where there is room."""
        if not self.states:
            return
        for who in self.states:
            self.happen(who, LeaseChanged(leading=False))
        self.lead("p")
        for _ in range(12):
            self.heal("p", "q")
        state = self.states["p"]
        if self.world.ceiling is None or state.view.totals.charged <= self.world.ceiling:
            assert not state.operations, state.operations
        for _ in range(2):
            self.world.now += DEADLINE_S + 1
            for _ in range(4):
                self.heal("p", "q")
        state = self.states["p"]
        assert not state.operations, state.operations
        assert set(self.replied) == set(self.asked)
        assert state.ready
        assert (state.fault, len(state.behind), len(state.ledger.pending)) == ("", 0, 0)
        assert self.world.ledger is not None
        parts = [(one.entries, one.operations, one.epoch, one.complete) for one in (self.world.ledger, state.ledger)]
        assert parts[0] == parts[1]
        on_record = {
            (key, one.role, one.replicas, entry.fence)
            for key, entry in state.ledger.entries.items()
            for one in entry.held
        }
        assert on_record == {(object_of(one), one.key.role, one.replicas, one.fence) for one in self.world.pools()}

    def lead(self, who: str) -> None:
        self.happen(who, LeaseChanged(leading=True))

    def tick(self, who: str) -> None:
        self.happen(who, Ticked(self.world.now, WALL + self.world.now))

    def heal(self, *planners: str) -> None:
        self.world.lost.clear()
        for participant in list(self.world.deployments):
            self.world.settle(participant)
        for who in planners:
            self.happen(who, self.world.list(who))
        self.world.now += 1
        for who in planners:
            self.tick(who)
        for _ in range(200):
            if not self.world.sent:
                break
            self.answered(self.world.sent[0])
        assert not self.world.sent, self.world.sent

    def happen(self, who: str, event: Event) -> tuple[object, ...]:
        """Let a planner take *event*, and take its effects."""
        transition = step(self.states[who], event)
        self.states[who] = transition.state
        for effect in transition.effects:
            match effect:
                case Apply():
                    assert effect.step.fence in self.on_record(), effect
                    self.world.send(who, effect)
                case Mark() | Save() | Load():
                    self.world.send(who, effect)
                case Reply(key, outcome):
                    assert key not in self.replied
                    self.replied[key] = outcome
                    self.check(key, outcome)
                case _:
                    pass
        if self.world.at_rest and not any(state.operations for state in self.states.values()):
            self.world.forgive(max(state.ledger.totals.charged for state in self.states.values()))
        return transition.effects

    def on_record(self) -> set[object]:
        """Return the fences of every reservation that is stored, or was."""
        if self.world.ledger is not None:
            reservations = (entry.reservation for entry in self.world.ledger.entries.values())
            self.recorded |= {one.fence for one in reservations if one is not None}
        return self.recorded

    def check(self, key: str, outcome: object) -> None:
        """Claim that what is told of an operation is so."""
        match outcome:
            case Succeeded(plan):
                assert all(self.was_written(one) for one in plan.steps), outcome
            case Failed():
                assert all(self.was_written(one) for one in (*outcome.done, *outcome.returned)), outcome
            case Rejected():
                assert not [one for operation, one in self.world.landed if operation == key], outcome
            case _:
                pass

    def was_written(self, one: Step) -> bool:
        """Say whether the step *one* has landed, or its pools had what it asks for in some other way."""
        written = {(change.pool, change.authority, change.after) for change in one.changes}
        return one.changes in {changes for _, changes in self.world.landed} or written <= self.world.values


TestPlanners = Planners.TestCase
TestPlanners.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "100")),
    stateful_step_count=50,
    derandomize="MACHINE_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
