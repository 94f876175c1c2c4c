"""One thing goes wrong, and each is tried: every crash, every change that is not shown, every read that is old.

The histories are short and all else in them goes well, so what is tried is all there is.
"""

import attrs
import pytest

from tests.simulation.swarm import Swarm
from tests.simulation.world import Plot, World

CALM = Swarm(0, {}, hosts=2, lease="on", clients=1, steps=0, slack=0, floor=False, packed=False)
TIGHT = attrs.evolve(CALM, floor=True)

Wishes = list[tuple[str, dict[str, int]]]

ROUND_TRIP: Wishes = [("c", {"decode": 0}), ("b", {"prefill": 2}), ("a", {"prefill": 1, "decode": 0})]
TRANSFER: Wishes = [("b", {"decode": 0}), ("c", {"decode": 0}), ("a", {"decode": 3})]


def played(swarm: Swarm, wishes: Wishes, plot: Plot) -> World:
    world = World(swarm)
    world.play(wishes, plot)
    return world


def last_write(swarm: Swarm, wishes: Wishes) -> int:
    """Return which write is the last that changes replicas; where it is denied, the operation fails at its end."""
    return played(swarm, wishes, Plot()).last_apply


SCRIPTS = {
    "up, down, and two pools at once": (CALM, ROUND_TRIP, None),
    "a transfer": (TIGHT, TRANSFER, None),
    "a transfer that is given back": (TIGHT, TRANSFER, last_write(TIGHT, TRANSFER)),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_does_what_it_is_there_for(name: str) -> None:
    swarm, wishes, denied = SCRIPTS[name]
    world = played(swarm, wishes, Plot(denied=denied))
    assert world.counts["answered: Succeeded"] + world.counts["answered: Failed"] >= 1
    assert (world.counts["something was given back"] > 0) == (denied is not None)
    assert (world.counts["a dip was recorded"] > 0) == (swarm is TIGHT)


@pytest.mark.parametrize("lost", [False, True], ids=["sent", "lost"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_planner_may_die_after_any_effect(name: str, lost: bool) -> None:  # noqa: FBT001 - a parameter
    swarm, wishes, denied = SCRIPTS[name]
    effects = played(swarm, wishes, Plot(denied=denied)).effects
    for effect in range(1, effects + 1):
        played(swarm, wishes, Plot(crash_after=effect, lost=lost, denied=denied))


@pytest.mark.parametrize("name", SCRIPTS)
def test_any_change_may_go_unheard(name: str) -> None:
    swarm, wishes, denied = SCRIPTS[name]
    changes = played(swarm, wishes, Plot(denied=denied)).heard
    for change in range(1, changes + 1):
        played(swarm, wishes, Plot(unheard=change, denied=denied))


@pytest.mark.parametrize("name", SCRIPTS)
def test_any_read_may_show_any_earlier_revision(name: str) -> None:
    swarm, wishes, denied = SCRIPTS[name]
    readable = played(swarm, wishes, Plot(denied=denied)).readable
    for read, changes in enumerate(readable, start=1):
        for back in range(1, changes):
            played(swarm, wishes, Plot(stale_read=read, back=back, denied=denied))
