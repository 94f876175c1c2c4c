"""Thousands of histories in which everything goes wrong, in CI; `nox -s simulate -- --seeds N` runs more."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from gpcore.budgets import Budget
from tests.simulation.batch import MUST_HAPPEN, Failure, Result, shrunk
from tests.simulation.checks import BreachError
from tests.simulation.hands import Ask
from tests.simulation.host import LEDGER
from tests.simulation.swarm import FAULTS, MEDDLING, Swarm, drawn
from tests.simulation.world import World

ROOT = Path(__file__).parents[2]
SCHEDULES = 2_000
FEW = 150
"""Among so many histories one shows each of the mistakes below."""


LATE = {"requests come late": 2.0, "requests come twice": 2.0}
"""What a condition of a write protects from."""


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(900)
def test_no_history_breaks_a_promise_and_every_kind_of_history_was_tried() -> None:
    done = simulate("--seeds", str(SCHEDULES))
    print(done.stdout)  # noqa: T201 - what was reached, and how fast
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-4_000:]
    assert f"{SCHEDULES:,} schedules" in done.stdout


def test_a_seed_is_a_history() -> None:
    first, second = (simulate("--seed", "3", "--steps", "80").stdout for _ in range(2))
    assert first == second
    assert len(first.splitlines()) > 50


def test_every_fault_is_drawn_and_some_runs_have_none() -> None:
    swarms = [drawn(seed) for seed in range(300)]
    assert {fault for swarm in swarms for fault in swarm.faults} == set(FAULTS)
    assert 10 < sum(not swarm.faults for swarm in swarms) < 90


def test_a_batch_that_stopped_exploring_says_what_it_missed() -> None:
    assert Result().missed == list(MUST_HAPPEN)


# a check that nothing can break proves nothing ------------------------------------------------------------------------


def broken(mistake: Callable[[World], None]) -> Iterator[str]:
    """Yield the promises that are broken, in a few histories, by planners that make the *mistake*."""
    for seed in range(FEW):
        swarm = drawn(seed)
        for fault in MEDDLING:
            swarm = swarm.without(fault)
        world = World(attrs.evolve(swarm, faults={**swarm.faults, **LATE}))
        mistake(world)
        try:
            world.run()
        except BreachError as breach:
            yield str(breach).partition(":")[0]


def test_a_write_that_tests_no_fence_is_found() -> None:
    def blind(ask: Ask) -> Ask:
        if ask.verb != "PATCH":
            return ask
        return ask._replace(body=[one for one in ask.body if one["op"] != "test" or "/annotations" not in one["path"]])

    def mistake(world: World) -> None:
        world.tamper = blind

    assert "S5" in broken(mistake)


def test_a_write_that_is_on_no_record_is_found() -> None:
    def mistake(world: World) -> None:
        saved: list[Ask] = []

        def unwritten(ask: Ask) -> Ask:
            if ask.key != LEDGER or ask.verb != "PUT":
                return ask
            saved.append(ask)
            stored = world.api.get(LEDGER).body["spec"]  # said to be stored, and not
            return ask._replace(body={**ask.body, "spec": stored})

        world.tamper = unwritten

    assert "S21" in broken(mistake)


def test_planners_that_believe_in_a_higher_ceiling_are_found() -> None:
    def mistake(world: World) -> None:
        generous = Budget(0, (world.budget.ceiling or 0) + 3)
        for host in world.hosts:
            host.rules = attrs.evolve(host.rules, budget=generous)
            host.state = host.state.but(rules=host.rules)

    assert "S3" in broken(mistake)


def test_a_planner_whose_writes_never_arrive_is_found() -> None:
    def mistake(world: World) -> None:
        def stopped(ask: Ask) -> Ask:
            where = [{"op": "test", "path": "/metadata/uid", "value": "nobody"}]
            return ask._replace(body=where) if ask.verb == "PATCH" and ask.key != LEDGER else ask

        world.tamper = stopped

    assert "L" in broken(mistake)


def test_a_failure_is_made_small_and_says_how_to_see_it_again() -> None:
    found = Failure(drawn(5), "L: there is something")
    assert found.kind == "L"
    assert found.command.startswith("nox -s simulate -- --seed 5 --hosts ")
    small = found.swarm.without(next(iter(found.swarm.faults)))
    assert f"--without '{next(iter(found.swarm.faults))}'" in attrs.evolve(found, swarm=small).command


def test_what_cannot_be_seen_again_is_left_as_it_was() -> None:
    calm = Swarm(0, {}, hosts=1, lease="on", clients=1, steps=20, slack=0, floor=False, packed=False)
    never = Failure(calm, "S1: it was a dream")
    assert shrunk(never) == never
