"""In every history of a small world no promise is broken; without any one rule of the protocol, one is."""

from operator import mul

import pytest

from tests.model import ablations
from tests.model.explorer import Move, explore
from tests.model.fenced import Fenced, Moves, Setting, Shown, World

History = tuple[tuple[Move, World], ...]

TWO = Setting((1, 1), (2, 2), ceiling=4, most=4, reservations=5)
UNEVEN = Setting((1, 2), (2, 1), ceiling=6, most=4, reservations=4, floor=2)
FLOOR = Setting((1, 1), (1, 2), ceiling=4, most=3, reservations=5, floor=2)
THREE = Setting((1, 1, 2), (1, 1, 1), ceiling=5, most=3, reservations=4)
TAKING = Setting((1, 1), (2, 1), ceiling=3, most=3, reservations=3, downs=True)
ADDING = Setting((1, 1), (2, 1), ceiling=4, most=3, reservations=3, ups=1)
MEDDLING = Setting((1, 1), (2, 1), ceiling=4, most=3, reservations=2, downs=True, ups=1)
LAGGING = Setting((1, 2), (2, 1), ceiling=4, most=3, reservations=4, lagging=True)
TRANSFER = Setting((1, 1, 1), (1, 1, 1), ceiling=3, most=2, reservations=4, transfers=True)
SLOW_TRANSFER = Setting((1, 2), (2, 1), ceiling=4, most=2, reservations=4, transfers=True, lagging=True)
MEDDLED_TRANSFER = Setting((1, 1, 1), (1, 1, 1), ceiling=3, most=2, reservations=2, transfers=True, downs=True)

SETTINGS: dict[str, tuple[Setting, int]] = {
    "two pools": (TWO, 124_952),
    "two pools of different size, and a floor": (UNEVEN, 27_890),
    "two pools between a floor and a ceiling": (FLOOR, 36_436),
    "three pools": (THREE, 23_399),
    "strangers take replicas away": (TAKING, 58_954),
    "a stranger adds a replica": (ADDING, 20_511),
    "strangers do both": (MEDDLING, 115_063),
    "replicas shut down slowly": (LAGGING, 4_707),
    "GPUs go from pool to pool": (TRANSFER, 32_028),
    "they go there slowly": (SLOW_TRANSFER, 6_054),
    "strangers meddle with transfers": (MEDDLED_TRANSFER, 20_588),
}
"""Each with the number of its states: a change of it is a change of what is proven."""

OVER = "more is asked for than the ceiling"

MUST_FAIL: dict[type[Fenced], tuple[Setting, str]] = {
    ablations.GivesUpWithoutKill: (TWO, OVER),
    ablations.SettlesOnAnyFence: (TWO, OVER),
    ablations.FreesWhatIsAskedFor: (TWO, OVER),
    ablations.TestsNoFence: (TWO, OVER),
    ablations.ActsBeforeItIsWritten: (TWO, OVER),
    ablations.ListsThenPatches: (TWO, OVER),
    ablations.FillsAdoptedBounds: (TAKING, OVER),
    ablations.SetsNothingAside: (TRANSFER, OVER),
    ablations.ReleasesByTheSpec: (LAGGING, "more is held than the ceiling"),
    ablations.CountsWhatIsAskedFor: (UNEVEN, "less is asked for than the floor"),
}
"""What is broken first, as a planner's user would see it, whatever the ledger says of it."""

LONGEST = 12


@pytest.mark.parametrize("name", SETTINGS)
def test_no_history_breaks_a_promise_and_every_state_leads_to_rest(name: str) -> None:
    setting, states = SETTINGS[name]
    found = explore(Fenced(setting))
    assert (found.breach, found.trace, found.stuck) == (None, (), None)
    assert found.states == states


@pytest.mark.parametrize("protocol", MUST_FAIL, ids=lambda protocol: protocol.__name__)
def test_without_one_rule_a_promise_is_broken(protocol: type[Fenced]) -> None:
    setting, breach = MUST_FAIL[protocol]
    found = explore(protocol(setting))
    assert found.breach == breach
    assert len(found.trace) <= LONGEST
    assert _replayed(protocol(setting), found.trace) == found.trace[-1][1].pools


@pytest.mark.parametrize("protocol", MUST_FAIL, ids=lambda protocol: protocol.__name__)
def test_the_whole_protocol_has_no_such_history(protocol: type[Fenced]) -> None:
    setting, _ = MUST_FAIL[protocol]
    trace = explore(protocol(setting)).trace
    with pytest.raises(LookupError):
        _replayed(Fenced(setting), trace)


def _replayed(protocol: Fenced, trace: History) -> tuple[Shown, ...]:
    """Return the pools at the end of *trace*, each of whose moves the *protocol* must allow; all but the last obey."""
    world = protocol.start
    for number, (move, after) in enumerate(trace, start=1):
        if (move, after) not in list(protocol.moves(world)):
            raise LookupError(move)
        world = after
        broken = _broken(protocol.setting, world)
        assert broken == (number == len(trace)), world
    return world.pools


def _broken(setting: Setting, world: World) -> bool:
    """Say whether a number is out of bounds, counted apart from the model."""
    asked = sum(map(mul, setting.gpus, (pool.replicas for pool in world.pools)))
    held = sum(map(mul, setting.gpus, (pool.held for pool in world.pools)))
    return not (setting.floor <= asked <= held <= setting.ceiling) and not (setting.downs and held <= setting.ceiling)


def test_a_search_that_was_cut_short_proves_nothing() -> None:
    with pytest.raises(OverflowError, match="more than 100 states"):
        explore(Fenced(TWO), most_states=100)


class Dozing(Fenced):
    """Never look at a pool again."""

    def settling(self, world: World, pool: int) -> Moves:  # noqa: ARG002 - it does not look
        return iter(())


def test_a_state_that_never_comes_to_rest_is_found() -> None:
    stuck = explore(Dozing(TWO)).stuck
    assert stuck is not None
    assert any(entry.pending is not None for entry in stuck.entries)
