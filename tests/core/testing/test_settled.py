"""The state that tests begin with: a planner that leads, with all of a fleet on record."""

from hypothesis import given

from gpcore.control import Rules, step
from gpcore.events import Event, Listed, Seen
from gpcore.states import objects_of
from gpcore.testing.settled import fenced, settled_state
from gpcore.testing.strategies import Scenario, scenarios


@given(scenarios())
def test_all_of_the_fleet_is_on_record_as_it_is(scenario: Scenario) -> None:
    state = settled_state(Rules(budget=scenario.budget), scenario.snapshot, scenario.intents)
    assert state.ready
    for deployment in state.view.deployments():
        for key, pools in objects_of(deployment).items():
            entry = state.ledger.entry(key)
            assert entry is not None
            assert entry.settled
            assert {one.role: one.replicas for one in entry.held} == {one.key.role: one.replicas for one in pools}


@given(scenarios())
def test_nothing_follows_from_seeing_it_again(scenario: Scenario) -> None:
    state = settled_state(Rules(budget=scenario.budget), scenario.snapshot)
    deployments = tuple(fenced(one) for one in scenario.snapshot.deployments())
    again: list[Event] = [Listed(deployments), *[Seen(one) for one in deployments]]
    for event in again:
        after = step(state, event)
        assert after.effects == ()
        assert after.state.ledger == state.ledger
