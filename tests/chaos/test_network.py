"""What networks and neighbours do to planners on a real API server, one thing at a time.

Rules of this file: one lane for all, so each test leaves it at rest; what must be true of the ceiling is asserted when
the lane ends.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.faults import Fault, delayed, doubled, dropped, reordered, unanswered
from tests.chaos.lanes import Lane, lane, ledgers
from tests.chaos.proxy import Rule
from tests.cluster import ApiServer, Behaviour, FakeOperator, disaggregated, eventually, graphs, install

pytestmark = [pytest.mark.xdist_group("network"), pytest.mark.timeout(300)]

CEILING = 16
GRAPHS, LEDGERS = "/dynamographdeployments/", "/gpuledgers/"


@pytest.fixture(scope="module")
def server(assets: Path) -> Iterator[ApiServer]:
    with ApiServer(assets) as server, FakeOperator(server.admin, Behaviour(termination_s=1.2)):
        install(server.client)
        yield server


@pytest.fixture(scope="module")
def here(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    deployments = [disaggregated(name, prefill=2, decode=2) for name in ("a", "b", "c")]
    with lane(server, tmp_path_factory.mktemp("lane"), ceiling=CEILING, deployments=deployments, count=3) as here:
        yield here
        found = here.at_rest()
    assert (found.asked.over, found.promised.over) == (0, 0), f"asked: {found.asked}; promised: {found.promised}"


def other(here: Lane, role: str = "prefill") -> int:
    """Return another count than the one that a has: more where it has the fewer, so that some of both are asked for."""
    return {2: 3, 3: 2}[here.replicas()["a", role]]


def generation(here: Lane) -> int:
    found: int = here.client.get(graphs(here.namespace, "a"))["metadata"]["generation"]
    return found


def test_planners_that_start_at_once_on_nothing_make_one_ledger(here: Lane) -> None:
    here.at_rest()
    assert len(here.client.items(ledgers(here.namespace))) == 1
    assert {key.participant.name for key in here.ledger().entries} == {"a", "b", "c"}


@pytest.mark.parametrize(
    "fault",
    [dropped(silent=True), unanswered(silent=True), unanswered(), doubled(), doubled(lost=True), delayed(0.5)],
    ids=lambda fault: fault.name + ", silent" * fault.silent,
)
@pytest.mark.parametrize("path", [GRAPHS, LEDGERS], ids=["patch", "ledger"])
def test_a_write_that_meets_a_fault_has_one_effect(fault: Fault, path: str, here: Lane) -> None:
    wanted, before = other(here), generation(here)
    leader = here.leader()
    rule = leader.proxy.rule(Rule(fault, path=path, body=bool, times=1))
    assert here.ask("a", prefill=wanted)["status"] == "success"
    here.at_rest()
    leader.proxy.lift(rule)
    assert rule.taken
    assert here.replicas()["a", "prefill"] == wanted
    assert generation(here) == before + 1


def test_writes_that_overtake_each_other_do_no_harm(here: Lane) -> None:
    leader = here.leader()
    rule = leader.proxy.rule(Rule(reordered(), method="PATCH", path=GRAPHS))
    wanted = {name: other(here) for name in ("a", "b", "c")}
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(here.ask, name, prefill=count) for name, count in wanted.items()]
        assert {one.result()["status"] for one in asked} <= {"success", "rejected"}
    leader.proxy.lift(rule)
    here.at_rest()
    assert rule.taken


def test_a_leader_that_reaches_nobody_gives_way_and_follows_when_it_is_back(here: Lane) -> None:
    leader = here.leader()
    leader.proxy.part()
    with here.without(leader):
        successor = eventually(lambda: (one := here.leader()) is not leader and one, within_s=30)
        assert here.ask("a", prefill=other(here))["status"] == "success"
        here.at_rest()
    leader.proxy.heal()
    assert here.ask("a", prefill=other(here))["status"] == "success"
    assert here.leader() is successor
    assert leader.process.running


@pytest.mark.parametrize("signals", [1, 2], ids=["once", "twice"])
def test_a_leader_that_is_told_to_stop_leaves_a_transfer_to_others(signals: int, here: Lane) -> None:
    leader = here.leader()
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(here.ask, "b", prefill=0)
        eventually(lambda: here.replicas()["b", "prefill"] == 0, within_s=30)
        for _ in range(signals):
            os.kill(leader.process.pid, signal.SIGTERM)
        assert eventually(lambda: not leader.process.running, within_s=30)
        assert asking.result()["status"] == "success"
    here.at_rest()
    leader.begin()
    leader.ready()
    assert here.ask("b", prefill=2)["status"] == "success"


def refused_for(here: Lane) -> str | None:
    """Return the kind of reason for which one more replica is refused, None where it is not."""
    answer = here.once("a", prefill=2)
    reason = None if answer is None else answer["reason"]
    return None if reason is None else str(reason["kind"])


def test_a_ledger_that_somebody_has_spoilt_is_not_believed(server: ApiServer, tmp_path: Path) -> None:
    with lane(
        server, tmp_path, ceiling=CEILING, deployments=[disaggregated("a")], count=1, ledger_watched=False
    ) as here:
        (stored,) = here.client.items(ledgers(here.namespace))
        path, before = f"{ledgers(here.namespace)}/{stored['metadata']['name']}", here.replicas()
        here.client.merge(path, {"spec": {"gpus": 1}})
        eventually(lambda: refused_for(here) == "ledger_down", within_s=30)
        assert here.replicas() == before
        here.client.merge(path, {"spec": {"gpus": stored["spec"]["gpus"]}})
        assert here.ask("a", prefill=2)["status"] == "success"
        assert here.at_rest().asked.over == 0
