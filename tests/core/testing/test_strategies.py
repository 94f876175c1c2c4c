"""What the strategies draw is valid, reaches every interesting region, and is told in few words."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.control import Rules, State, step
from gpcore.decisions import Rejected
from gpcore.events import Listed
from gpcore.policy import decide, resolve
from gpcore.pools import Snapshot
from gpcore.testing.laws import SETTINGS, Trial, regions
from gpcore.testing.strategies import (
    Scenario,
    budgets,
    deployments,
    events,
    intents,
    odd_scenarios,
    pool_keys,
    pools,
    requests,
    scenarios,
    snapshots,
)
from tests.core.words import fleet, request, wishes

FEW = settings(SETTINGS, max_examples=50)


@FEW
@given(data=st.data())
def test_a_request_makes_sense_for_its_snapshot(data: st.DataObject) -> None:
    snapshot = data.draw(snapshots())
    assert not isinstance(resolve(data.draw(requests(snapshot)), snapshot), Rejected)


@FEW
@given(scenario=odd_scenarios())
def test_an_odd_request_makes_none(scenario: Scenario) -> None:
    assert isinstance(resolve(scenario.request, scenario.snapshot), Rejected)


@FEW
@given(data=st.data())
def test_a_wish_is_for_a_change_unless_there_is_nothing_left_to_give(data: st.DataObject) -> None:
    pool = data.draw(pools(data.draw(pool_keys())))
    assert data.draw(intents(pool, ways=(1,))).replicas > pool.replicas
    assert data.draw(intents(pool, ways=(-1,))).replicas < max(1, pool.replicas)


@FEW
@given(snapshot=snapshots(settled=True, known=True))
def test_what_is_settled_and_known_has_nothing_under_way(snapshot: Snapshot) -> None:
    assert len(snapshot.unknown) == 0
    assert snapshot.totals.charged == snapshot.totals.least


@FEW
@given(data=st.data())
def test_anything_that_happens_can_happen_to_a_planner(data: st.DataObject) -> None:
    snapshot = data.draw(snapshots())
    state = step(State(Rules(budget=data.draw(budgets(snapshot.totals)))), Listed(tuple(snapshot.deployments()))).state
    for event in data.draw(st.lists(events(snapshot), max_size=5)):
        state = step(state, event).state
    assert state.snapshot is not None


@FEW
@given(budget=budgets(), deployment=deployments())
def test_without_arguments_there_is_something_to_draw(budget: Budget, deployment: object) -> None:
    assert budget.floor >= 0
    assert deployment is not None


def test_every_region_is_within_reach() -> None:
    seen: Counter[str] = Counter()

    @SETTINGS
    @given(scenario=scenarios())
    def count(scenario: Scenario) -> None:
        seen.update(regions(Trial.of(scenario, decide)))

    count()
    rare = ("paired", "partial", "tolerance", "recovery from above", "recovery from below", "shape_unknown")
    assert min(seen[region] for region in rare) >= 2, seen


def test_a_scenario_is_told_in_few_words() -> None:
    snapshot = fleet("a/prefill 4x1", "b/decode 2x8")
    told = str(Scenario(snapshot, wishes("b/decode 1"), Budget(4, 20), request("a/prefill 5")))
    assert told.splitlines() == [
        "asked:  ns/a prefill to 5",
        "bounds: floor 4, ceiling 20; now 20 count against the ceiling, 20 toward the floor",
        "pool:   ns/a/prefill 4 x 1 GPUs",
        "pool:   ns/b/decode 2 x 8 GPUs",
        "wish:   ns/b/decode 1, since 0 s",
    ]
