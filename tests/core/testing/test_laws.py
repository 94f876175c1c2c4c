"""Each law has a policy that only this law catches, and the policy of this project keeps them all."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import attrs
import pytest
from hypothesis import given, settings

from gpcore import control
from gpcore.budgets import Budget
from gpcore.control import State, Transition
from gpcore.decisions import Approved, CeilingBreach, Decision, FloorBreach, Nearest, Rejected
from gpcore.errors import InvalidError
from gpcore.events import Decided, Event
from gpcore.intents import ACQUIRE, RELEASE, Intents
from gpcore.plans import Change, Plan
from gpcore.policy import Policy, decide, resolve
from gpcore.pools import Deployment, PoolKey, Role, Snapshot
from gpcore.requests import ScaleRequest
from gpcore.testing.laws import LAWS, REGIONS, SETTINGS, BrokenLawError, Step, Trial, UnseenError, check_policy
from gpcore.testing.strategies import PARTICIPANTS, Scenario, odd_scenarios, scenarios


class Asked(NamedTuple):
    """What a policy is asked, as one value."""

    request: ScaleRequest
    snapshot: Snapshot
    intents: Intents
    budget: Budget

    def decide(self) -> Decision:
        return decide(self.request, snapshot=self.snapshot, intents=self.intents, budget=self.budget)

    def vague(self) -> Decision:
        """Decide, and keep to oneself what would have been approved instead."""
        decision = self.decide()
        if isinstance(decision, Rejected) and isinstance(decision.reason, CeilingBreach | FloorBreach):
            return Rejected(attrs.evolve(decision.reason, nearest=Nearest()))
        return decision

    @property
    def own(self) -> tuple[Change, ...]:
        pools = resolve(self.request, self.snapshot)
        if isinstance(pools, Rejected):
            return ()
        return tuple(Change.of(pool, one.replicas) for pool, one in zip(pools, self.request.targets, strict=True))

    def approved(self, changes: Iterable[Change]) -> Approved:
        changes = {change.pool: change for change in changes}.values()
        pools = [(self.snapshot.pool(change.pool), change.after) for change in changes]
        shifts = [pool.shift(after) for pool, after in pools if pool is not None]
        return Approved(Plan.of(changes), sum(shifts, self.snapshot.totals))


FEW = settings(SETTINGS, max_examples=100)

Way = Callable[[Asked], Decision]


def policy(way: Way) -> Policy:
    def asked(request: ScaleRequest, *, snapshot: Snapshot, intents: Intents, budget: Budget) -> Decision:
        return way(Asked(request, snapshot, intents, budget))

    return asked


@lru_cache
def many() -> tuple[Scenario, ...]:
    """Draw scenarios of every kind, the same every time."""
    drawn: list[Scenario] = []

    def keep(scenario: Scenario) -> None:
        drawn.append(scenario)

    SETTINGS(given(scenarios())(keep))()
    FEW(given(odd_scenarios())(keep))()
    return tuple(drawn)


def broken(way: Policy, step: Step = control.step) -> set[str]:
    """Return the laws that a policy breaks in any scenario."""
    trials = [Trial.of(scenario, way, step) for scenario in many()]
    return {name for name, law in LAWS.items() if any(law(trial) is not None for trial in trials)}


def acquires_first(asked: Asked) -> Decision:
    decision = asked.decide()
    if isinstance(decision, Approved):
        return attrs.evolve(decision, plan=Plan(decision.plan.steps[::-1]))
    return decision


def lowers_the_floor(asked: Asked) -> Decision:
    lower = Budget(max(1, asked.budget.floor - 1), asked.budget.ceiling) if asked.budget.floor else asked.budget
    return asked._replace(budget=lower).decide()


def takes_more_than_is_offered(asked: Asked) -> Decision:
    decision = asked.vague()
    if isinstance(decision, Rejected):
        return decision
    own = {change.pool for change in asked.own}
    partners = [change for change in decision.plan.changes if change.pool not in own]
    wishes = {one.pool: one.replicas for one in asked.intents}
    beyond = [(one, wishes[one.pool] + (-1 if one.releases else 1)) for one in partners]
    more = [attrs.evolve(change, after=max(0, after)) for change, after in beyond]
    greedy = asked.approved([*decision.plan.changes, *more])
    return greedy if asked.budget.holds(greedy.totals) else decision


def drags_partners_in(asked: Asked) -> Decision:
    decision = asked.vague()
    fits = isinstance(decision, Approved) and asked.budget.holds(decision.totals) and not asked.budget.floor
    if isinstance(decision, Approved) and decision.plan.steps and fits:
        own = {change.pool for change in asked.own}
        wishes = [(asked.snapshot.pool(one.pool), one.replicas) for one in asked.intents if one.pool not in own]
        given_up = [Change.of(pool, n) for pool, n in wishes if pool and pool.reserved is None and n < pool.replicas]
        return asked.approved([*given_up, *decision.plan.changes])
    return decision


def never_recovers(asked: Asked) -> Decision:
    decision = asked.vague()
    if isinstance(decision, Approved) and decision.plan.steps:
        recovers = asked.budget.recovers(asked.snapshot.totals, decision.totals)
        return Rejected(BREACH) if recovers and not asked.budget.holds(decision.totals) else decision
    return decision


def refuses_what_is(asked: Asked) -> Decision:
    decision = asked.decide()
    return Rejected(BREACH) if isinstance(decision, Approved) and not decision.plan.steps else decision


def nods_at_nonsense(asked: Asked) -> Decision:
    return asked.decide() if asked.own else Approved(Plan(), asked.snapshot.totals)


def takes_unknown_for_none(asked: Asked) -> Decision:
    return asked._replace(snapshot=Snapshot.of(map(_counted, asked.snapshot.deployments()))).decide()


def _counted(deployment: Deployment) -> Deployment:
    return attrs.evolve(deployment, fixed_gpus=deployment.fixed_gpus or 0)


def names_what_it_refuses(asked: Asked) -> Decision:
    decision = asked.decide()
    if isinstance(decision, Rejected) and isinstance(decision.reason, CeilingBreach | FloorBreach):
        return Rejected(attrs.evolve(decision.reason, nearest=Nearest(asked.own)))
    return decision


_refusals = count()


def counts_its_refusals(asked: Asked) -> Decision:
    decision = asked.decide()
    return Rejected(CeilingBreach(next(_refusals), 0)) if isinstance(decision, Rejected) and asked.own else decision


def hears_the_first(asked: Asked) -> Decision:
    decision = asked.decide()
    heard = next((gpus for way in (ACQUIRE, RELEASE) for gpus in asked.intents.shelves(asked.snapshot, way)), 0)
    return Rejected(CeilingBreach(heard, 0)) if isinstance(decision, Rejected) and asked.own else decision


def reserves_before_it_decides(state: State, event: Event) -> Transition:
    after = control.step(state, event)
    if any(isinstance(one, Decided) and isinstance(one.decision, Rejected) for one in after.effects):
        forgotten = after.state.busy.put(PoolKey(PARTICIPANTS[0], Role.PREFILL), "forgotten")
        return attrs.evolve(after, state=attrs.evolve(after.state, busy=forgotten))
    return after


BREACH = CeilingBreach(0, 0)
MUTANTS: dict[str, Way] = {
    "ceiling": acquires_first,
    "floor": lowers_the_floor,
    "conservation": takes_more_than_is_offered,
    "independence": drags_partners_in,
    "recovery": never_recovers,
    "rest": refuses_what_is,
    "sense": nods_at_nonsense,
    "ignorance": takes_unknown_for_none,
    "honesty": names_what_it_refuses,
    "determinism": counts_its_refusals,
    "order": hears_the_first,
}


def test_the_policy_of_this_project_keeps_every_law_and_shows_every_region() -> None:
    check_policy(decide)


def test_every_law_has_its_mutant() -> None:
    assert {*MUTANTS, "refusal"} == set(LAWS)


@pytest.mark.parametrize("law", MUTANTS)
def test_a_mutant_is_caught_by_its_law_and_by_no_other(law: str) -> None:
    assert broken(policy(MUTANTS[law])) == {law}


def test_a_brain_that_reserves_for_what_it_refuses_is_caught_by_its_law_and_by_no_other() -> None:
    assert broken(decide, reserves_before_it_decides) == {"refusal"}
    with pytest.raises(BrokenLawError, match="a pool or a reservation has changed"):
        check_policy(decide, step=reserves_before_it_decides)


@pytest.mark.parametrize("law", ["floor", "independence", "rest"])
def test_what_is_broken_is_said_with_a_small_scenario(law: str) -> None:
    with pytest.raises(BrokenLawError) as caught:
        check_policy(policy(MUTANTS[law]))
    assert caught.value.law == law
    assert f"the law of {law} is broken" in str(caught.value)
    assert len(list(caught.value.scenario.snapshot.pools())) <= 2


def forgets_a_target(asked: Asked) -> Decision:
    decision = asked.decide()
    return asked.approved(decision.plan.changes[1:]) if isinstance(decision, Approved) else decision


def begins_elsewhere(asked: Asked) -> Decision:
    decision = asked.decide()
    if isinstance(decision, Approved):
        return asked.approved(attrs.evolve(change, before=change.before + 1) for change in decision.plan.changes)
    return decision


def changes_what_it_cannot_count(asked: Asked) -> Decision:
    if any(change.gpus_per_replica is None and not change.releases for change in asked.own):
        return asked.decide()
    return asked._replace(budget=Budget(0, asked.budget.ceiling)).decide()


@pytest.mark.parametrize(
    ("law", "way", "told"),
    [
        ("conservation", forgets_a_target, "all of it and nothing else"),
        ("conservation", begins_elsewhere, "from what it is"),
        ("ignorance", changes_what_it_cannot_count, "changes above a floor"),
    ],
)
def test_a_law_says_which_part_of_it_is_broken(law: str, way: Way, told: str) -> None:
    found = {LAWS[law](Trial.of(scenario, policy(way))) for scenario in many()}
    assert any(told in problem for problem in found if problem is not None), found


def never_pairs(asked: Asked) -> Decision:
    return asked._replace(intents=Intents.of((), asked.snapshot)).decide()


def test_a_stricter_policy_says_what_it_leaves_out() -> None:
    check_policy(policy(never_pairs), without={"paired", "partial"})


def test_a_run_that_has_not_seen_every_region_fails() -> None:
    with pytest.raises(UnseenError, match=r"paired .*\n.*partial"):
        check_policy(policy(never_pairs), settings=FEW)


def test_what_is_left_out_and_seen_all_the_same_is_a_failure() -> None:
    with pytest.raises(UnseenError, match="said to be left out: paired"):
        check_policy(decide, without={"paired"}, settings=FEW)


def test_a_law_may_be_left_out() -> None:
    check_policy(policy(acquires_first), without={"ceiling"})


def test_only_laws_and_regions_can_be_left_out() -> None:
    with pytest.raises(InvalidError, match="no law and no region of that name: 'pairing'"):
        check_policy(decide, without={"pairing"})


def test_laws_and_regions_have_names_of_their_own() -> None:
    assert not {*LAWS} & {*REGIONS}
