"""Planners die at each of the points between a request and its answer, on a real API server, and others carry on.

Each test is a row of the table: where the planner dies, and what must be true when all is at rest again. In each the
monitor holds every revision, of the cluster and of the ledger, against the ceiling. The rows of one lane happen one
after the other with the same four planners, and the lanes at the same time; a test waits for its row.

Rules of this file: what is under way when a planner dies is held back by its proxy, and lands when everybody has
forgotten it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.chaos.lanes import Lane, lane, ledgers
from tests.chaos.planners import Planner
from tests.chaos.proxy import Rule
from tests.cluster import ApiServer, Behaviour, FakeOperator, adapters, disaggregated, eventually, graphs, install

pytestmark = [pytest.mark.xdist_group("crash-points"), pytest.mark.timeout(600)]

GRAPHS, ADAPTERS, LEDGERS = "/dynamographdeployments/", "/dynamographdeploymentscalingadapters/", "/gpuledgers/"
FLEET = {"a": (1, 1), "give": (4, 1), "take": (1, 1)}  # prefill and decode
TOTAL = sum(sum(counts) for counts in FLEET.values())
SLOW = Behaviour(termination_s=1.2)  # so that a release is awaited at one tick of the planner's clock at least
LANES = 3
TRIES = 5

Act = Callable[[Lane, str], None]


@attrs.frozen
class Row:
    """One way to die: the *number* in the table, the *point* where it happens, and how that comes about."""

    number: int
    point: str
    act: Act
    lane: int

    def __str__(self) -> str:
        return f"{self.number}-{self.point}"


def changing(here: Lane, point: str) -> None:
    """Die while another count is asked for. Whoever asks again with the same words is answered."""
    after = here.replicas()["a", "prefill"] % 2 + 1
    here.planners.arm(point)
    answer = here.ask("a", prefill=after)
    died = here.planners.died()
    assert answer["status"] == "success", answer
    carried_on(here, died, {("a", "prefill"): after})


def carried_on(here: Lane, died: Planner, wanted: dict[tuple[str, str], int]) -> None:
    """Assert that all is at rest without whoever *died*, was never over, and is as it was *wanted*."""
    found = here.at_rest()
    assert (found.asked.over, found.promised.over) == (0, 0), f"asked: {found.asked}; promised: {found.promised}"
    assert {key: here.replicas()[key] for key in wanted} == wanted
    died.begin()
    died.ready()


def telling(here: Lane, point: str) -> None:
    """Die while the end of an operation is handed on. Others hand it on, and it is told once."""
    after = here.replicas()["a", "prefill"] % 2 + 1
    here.planners.arm(point)
    assert here.ask("a", prefill=after)["status"] == "success"
    carried_on(here, here.planners.died(), {("a", "prefill"): after})
    ended = {one.id for one in here.ledger().ended}
    assert ended
    eventually(lambda: ended <= {one for event in here.events() for one in ended if one in event}, within_s=30)
    assert all(sum(one in event for event in here.events()) == 1 for one in ended)


def in_flight(held_back: Callable[[Planner], Rule]) -> Act:
    """Die while a write is under way. It arrives when another planner has finished what it was for."""

    def act(here: Lane, _: str) -> None:
        after = here.replicas()["a", "prefill"] % 2 + 1
        leader = here.leader()
        rule = held_back(leader)
        with ThreadPoolExecutor(1) as threads:
            asking = threads.submit(here.ask, "a", prefill=after)
            assert rule.arrived.wait(30)
            leader.kill()
            assert asking.result()["status"] == "success"
        here.at_rest()
        leader.proxy.release(rule)
        carried_on(here, leader, {("a", "prefill"): after})
        leader.proxy.lift(rule)

    return act


def deposed(held_back: Callable[[Planner], Rule]) -> Act:
    """Sleep while a write is under way. Others go on; then the write arrives, and whoever slept wakes up."""

    def act(here: Lane, _: str) -> None:
        after = here.replicas()["a", "prefill"] % 2 + 1
        leader = here.leader()
        rule = held_back(leader)
        with ThreadPoolExecutor(1) as threads:
            asking = threads.submit(here.ask, "a", prefill=after)
            assert rule.arrived.wait(30)
            leader.process.pause()
            with here.without(leader):
                assert asking.result()["status"] == "success"
                assert here.ask("a", prefill=3)["status"] == "success"
                here.at_rest()
                leader.proxy.release(rule)
                leader.process.resume()
                assert here.ask("a", decode=2)["status"] == "success"
        leader.proxy.lift(rule)
        assert here.ask("a", prefill=after)["status"] == "success"
        assert here.ask("a", decode=1)["status"] == "success"
        found = here.at_rest()
        assert (found.asked.over, found.promised.over) == (0, 0)
        assert leader.process.running

    return act


def the_intent(leader: Planner) -> Rule:
    return leader.proxy.rule(Rule(path=LEDGERS, body=bool, held=True))


def the_patch(leader: Planner) -> Rule:
    return leader.proxy.rule(Rule(method="PATCH", path=GRAPHS, held=True))


def what_settles(leader: Planner) -> Rule:
    patched = leader.proxy.rule(Rule(method="PATCH", path=GRAPHS, times=1))
    return leader.proxy.rule(Rule(path=LEDGERS, body=lambda body: bool(body and patched.taken), held=True))


def refused(here: Lane, point: str) -> None:
    """Die while a write that the API server has refused is made impossible: somebody else was faster.

    On a busy machine the planner may hear of the other's write first, and need not make anything impossible.
    """
    answer: dict[str, Any] = {}
    for _ in range(TRIES):
        assert here.ask("a", prefill=1)["status"] == "success"
        answer = overtaken(here, point)
        if here.planners.dead():
            break
    carried_on(here, here.planners.died(), {("a", "prefill"): 3 if answer["status"] == "success" else 0})
    assert here.ask("a", prefill=1)["status"] == "success"


def overtaken(here: Lane, point: str) -> dict[str, Any]:
    """Ask for a write, let somebody else write while it is under way, and return the answer."""
    leader = here.leader()
    rule = the_patch(leader)
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(here.ask, "a", prefill=3)
        assert rule.arrived.wait(30)
        here.rewrite("a", "VllmPrefillWorker", 0)
        here.planners.arm(point)
        leader.proxy.lift(rule)
        leader.proxy.release(rule)
        return asking.result()


def transfer(here: Lane, giver: dict[str, Any], taker: dict[str, Any]) -> dict[str, Any]:
    """Ask for what only a transfer can give, with all in use and none to spare, and return the answer."""
    here.ask(**giver)  # rejected and kept as a wish, unless there is a wish already that it goes with
    return here.ask(**taker)


def transferring(here: Lane, point: str) -> None:
    """Die in the middle of a transfer. Others finish it."""
    here.planners.arm(point)
    answer = transfer(here, {"name": "give", "prefill": 2}, {"name": "take", "prefill": 2, "decode": 2})
    assert answer["status"] == "success", answer
    died = here.planners.died()
    carried_on(here, died, {("give", "prefill"): 2, ("take", "prefill"): 2, ("take", "decode"): 2})
    answer = transfer(here, {"name": "take", "prefill": 1, "decode": 1}, {"name": "give", "prefill": 4})
    assert answer["status"] == "success", answer


def compensating(here: Lane, point: str) -> None:
    """Die while a transfer whose receiver is spoilt gives back what it took. Others go on to give it back."""
    here.planners.arm(point)
    assert here.ask("give", prefill=2)["status"] == "rejected", "it is kept as a wish"
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(here.once, "take", prefill=3)
        eventually(lambda: here.replicas()["give", "prefill"] == 2, within_s=30)
        adapter = adapters(here.namespace, "take-vllmprefillworker")
        here.client.patch(adapter, [{"op": "replace", "path": "/spec/replicas", "value": 0}])
        died = here.planners.died()
        assert asking.result() is None, "whoever could have answered is dead"
    carried_on(here, died, {("give", "prefill"): 4, ("take", "prefill"): 0})
    assert here.ask("take", prefill=1)["status"] == "success"


def taking_over(here: Lane, point: str) -> None:
    """Die as soon as the ledger says who leads now, and before anything is done with that."""
    leader = here.leader()
    here.planners.arm(point)
    leader.kill()
    died = eventually(lambda: next((one for one in here.planners.dead() if one is not leader), None), within_s=30)
    assert here.ask("a", prefill=here.replicas()["a", "prefill"] % 2 + 1)["status"] == "success"
    leader.begin()
    assert died is not None
    carried_on(here, died, {})
    leader.ready()


def bootstrapping(here: Lane, point: str) -> None:
    """Lose the ledger, and die when half of it is found again."""
    here.planners.arm(point)
    here.client.delete(ledgers(here.namespace))
    assert here.ask("a", prefill=here.replicas()["a", "prefill"] % 2 + 1)["status"] == "success"
    carried_on(here, here.planners.died(), {})


def both_components(here: Lane, point: str) -> None:
    """Die with two components of one deployment to be written: there is no moment between them."""
    before = here.client.get(graphs(here.namespace, "a"))["metadata"]["generation"]
    have = here.replicas()["a", "prefill"], here.replicas()["a", "decode"]
    after = {"prefill": have[0] % 2 + 1, "decode": have[1] % 2 + 1}
    here.planners.arm(point)
    assert here.ask("a", **after)["status"] == "success"
    died = here.planners.died()
    assert here.client.get(graphs(here.namespace, "a"))["metadata"]["generation"] == before + 1
    carried_on(here, died, {("a", role): count for role, count in after.items()})


ROWS = [
    Row(0, "request-read", changing, 0),
    Row(1, "planned", changing, 0),
    Row(2, "intent-ordered", changing, 0),
    Row(2, "intent-in-flight", in_flight(the_intent), 1),
    Row(3, "intent-stored", changing, 0),
    Row(4, "apply-ordered", changing, 0),
    Row(4, "apply-in-flight", in_flight(the_patch), 1),
    Row(5, "applied", changing, 0),
    Row(6, "landed-and-seen", transferring, 2),
    Row(7, "apply-ordered", both_components, 0),
    Row(8, "kill-ordered", refused, 1),
    Row(9, "killed", refused, 1),
    Row(10, "settle-ordered", changing, 0),
    Row(10, "settle-in-flight", in_flight(what_settles), 1),
    Row(11, "settle-stored", changing, 0),
    Row(12, "release-awaited", transferring, 2),
    Row(13, "grant-ordered", transferring, 2),
    Row(14, "grant-stored", transferring, 2),
    Row(15, "one-of-two-applied", transferring, 2),
    Row(16, "return-ordered", compensating, 2),
    Row(16, "return-stored", compensating, 2),
    Row(17, "takeover-stored", taking_over, 1),
    Row(18, "adoption-stored", bootstrapping, 0),
    Row(19, "apply-in-flight", deposed(the_patch), 1),
    Row(20, "intent-in-flight", deposed(the_intent), 1),
    Row(21, "tell-ordered", telling, 0),
    Row(21, "told", telling, 0),
]


@pytest.fixture(scope="module")
def outcomes(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """Begin with all rows, in their lanes, and give what becomes of each."""
    with (
        ApiServer(assets) as server,
        ThreadPoolExecutor(LANES) as threads,
        FakeOperator(server.admin, SLOW),
    ):
        install(server.client)
        done: dict[str, Future[None]] = {str(row): Future() for row in ROWS}
        running = [threads.submit(run, server, tmp_path_factory.mktemp(f"lane-{at}"), at, done) for at in range(LANES)]
        yield done
        for one in running:
            one.result()


def run(server: ApiServer, folder: Path, at: int, done: dict[str, Future[None]]) -> None:
    """Do all rows of the lane *at*; where one fails the others of its lane would tell nothing."""
    rows = [row for row in ROWS if row.lane == at]
    fleet = [
        disaggregated(name, prefill=prefill, decode=decode, scaling_adapter=name == "take")
        for name, (prefill, decode) in FLEET.items()
    ]
    spare = 0 if at == LANES - 1 else 3  # where there is none, only transfers change anything
    try:
        with lane(server, folder, deployments=fleet, ceiling=TOTAL + spare, floor=0 if spare else TOTAL) as here:
            for row in rows:
                row.act(here, row.point)
                done[str(row)].set_result(None)
    except BaseException as fault:  # noqa: BLE001 - told by the tests that wait for it
        for row in rows:
            if not done[str(row)].done():
                done[str(row)].set_exception(fault)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_planner_dies_and_others_carry_on(row: Row, outcomes: dict[str, Future[None]]) -> None:
    outcomes[str(row)].result()
