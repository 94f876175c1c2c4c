"""The planner on a stand-in for Dynamo's runtime, and the client for planners of one's own."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpadapters import daemon
from gpadapters.answering import REHEARSED
from gpadapters.cli.rehearsal import rehearse
from gpadapters.daemon import Planner
from gpadapters.dynamo.client import DynamoPlannerClient, UnansweredError
from gpadapters.dynamo.server import Waits, serve
from gpcore import wire
from gpcore.budgets import Budget
from gpcore.control import Rules, step
from gpcore.errors import InvalidError, PortError
from gpcore.events import LeaseChanged
from gpcore.ledger import Freeze
from gpcore.management import Management
from gpcore.ports import Submission, TurnedAway
from gpcore.requests import ScaleRequest
from gpcore.testing import strategies
from gpcore.testing.fakes import Fault, MemoryCluster
from gpcore.testing.stores import MemoryLedger
from tests.adapters.dynamo.loop import LoopRuntime
from tests.adapters.http.world import FLEET, deployment, document, planner_of, until

RULES = Rules(Management(frozenset({"ns-a", "ns-b"})), Budget(4, 20))


@attrs.frozen
class World:
    cluster: MemoryCluster
    planner: Planner
    runtime: LoopRuntime
    client: DynamoPlannerClient
    refused: list[tuple[str, str]]

    async def ask(self, **changes: Any) -> wire.Json:  # noqa: ANN401 - any document
        return await self.client.ask("scale_request", document(**changes))


@contextlib.asynccontextmanager
async def world_of(
    cluster: MemoryCluster | None = None, rules: Rules = RULES, *, waits: Waits | None = None, rehearsal: bool = False
) -> AsyncIterator[World]:
    """Serve a fleet over a stand-in; the planner runs where its view is entered."""
    made = cluster or MemoryCluster(deployment(name, pools) for name, pools in FLEET.items())
    planner = planner_of(made, rules, brain=rehearse if rehearsal else step)
    runtime, refused = LoopRuntime(), list[tuple[str, str]]()
    serving = serve(
        planner,
        runtime,
        "infra",
        refused=lambda kind, message: refused.append((kind, message)),
        waits=waits or Waits(),
        rehearsal=rehearsal,
    )
    async with serving:
        yield World(made, planner, runtime, DynamoPlannerClient(runtime, "infra", timeout_s=5.0), refused)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A planner that serves a and b (managed) beside c (not managed); 16 of at most 20 GPUs are used."""
    async with world_of() as made, made.planner.running(grace_s=0.1):
        await until(lambda: made.planner.state.ready)
        yield made


async def test_a_request_is_answered_once_as_the_peer_answers_and_with_our_fields_besides(world: World) -> None:
    said = [one async for one in world.runtime.call("infra.GlobalPlanner.scale_request", document())]
    assert len(said) == 1
    expected = {
        "status": "success",
        "message": "Scaled a successfully",
        "current_replicas": {"prefill": 6, "decode": 2},
    }
    assert said[0].items() >= expected.items()
    assert said[0]["operation_id"] == said[0]["decision_id"]


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no budget": (
        {"target_replicas": [{"sub_component_type": "prefill", "desired_replicas": 9}]},
        "above_ceiling",
        "GPU budget breach: total 21 exceeds ceiling (20); no feasible pair packing",
    ),
    "a stranger": ({"caller_namespace": "ns-z"}, "not_authorized", "Namespace ns-z not authorized"),
    "for another": ({"caller_namespace": "ns-b"}, "not_yours", "ns/a is not a managed deployment that you may scale"),
    "not managed": (
        {"caller_namespace": "ns-c", "graph_deployment_name": "c"},
        "not_authorized",
        "Namespace ns-c not authorized",
    ),
    "not there": ({"caller_namespace": "no-a", "k8s_namespace": "no"}, "not_authorized", "Namespace no-a not"),
    "no such role": (
        {"caller_namespace": "ns-b", "graph_deployment_name": "b"}
        | {"target_replicas": [{"sub_component_type": "decode", "desired_replicas": 1}]},
        "unknown_pool",
        "ns/b has no pool for role 'decode'",
    ),
    "no sense": ({"target_replicas": []}, "invalid", "Invalid request: $.target_replicas: must have 1 to 32 items: 0"),
}


async def test_what_is_frozen_or_decided_elsewhere_is_rejected_and_no_error(world: World) -> None:
    await world.planner.freeze(Freeze("f-1", "up", time.time() + 600, "night", "ann"))
    said = await world.ask()
    assert (said["status"], said["reason"]["kind"]) == ("rejected", "frozen")
    assert said["message"] == "ns/a/prefill may not go up until the freeze ends: night"
    world.planner.dispatch(LeaseChanged(leading=False, leader="http://there"))
    said = await world.ask()
    assert (said["status"], said["reason"]) == ("rejected", {"kind": "not_leading", "leader": "http://there"})


@pytest.mark.parametrize("what", REFUSED)
async def test_what_can_be_expected_is_rejected(what: str, world: World) -> None:
    changes, kind, message = REFUSED[what]
    said = await world.ask(**changes)
    assert (said["status"], said["reason"]["kind"], said["current_replicas"]) == ("rejected", kind, {})
    assert said["message"].startswith(message)


async def test_where_everybody_may_ask_nobody_asks_for_another() -> None:
    async with world_of(rules=Rules()) as world, world.planner.running(grace_s=0.1):
        await until(lambda: world.planner.state.ready)
        said = await world.ask(caller_namespace="ns-b")
        assert (said["status"], said["reason"]["kind"]) == ("rejected", "not_authorized")
        assert [kind for kind, _ in world.refused] == ["not_authorized"]
        assert world.planner.decisions() == ()
        assert (await world.ask())["status"] == "success"


async def test_the_log_is_one_in_which_the_peers_lines_are_found(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gpadapters.dynamo")
    async with world_of() as world, world.planner.running(grace_s=0.1):
        await until(lambda: world.planner.state.ready)
        await world.ask()
        await world.ask(target_replicas=[{"sub_component_type": "prefill", "desired_replicas": 99}])
        await until(lambda: "Rejecting" in caplog.text)
    lines = [record.getMessage() for record in caplog.records if record.name == "gpadapters.dynamo.server"]
    assert lines[-4:-1] == [
        "Processing scale request from ns-a for DGD a in K8s namespace ns",
        "Successfully scaled a: {'prefill': 6, 'decode': 2}",
        "Processing scale request from ns-a for DGD a in K8s namespace ns",
    ]
    assert lines[-1].startswith("Rejecting scale request from ns-a: GPU budget breach: total ")


async def test_a_write_that_the_cluster_refuses_is_rejected_with_what_became_of_it(world: World) -> None:
    world.cluster.fail_next(Fault.REFUSED)
    said = await world.ask()
    assert (said["status"], said["current_replicas"]) == ("rejected", {})
    assert "nothing was applied" in said["message"]


async def test_nothing_but_what_cannot_be_decoded_raises(world: World) -> None:
    for payload in ("no JSON", "[]", 3, None):
        with pytest.raises(InvalidError, match=r"cannot read what it was sent: Invalid request"):
            await world.client.ask("scale_request", payload)
    assert {kind for kind, _ in world.refused} == {"malformed"}


async def test_before_the_cluster_was_read_and_while_the_planner_stops_it_is_not_now() -> None:
    async with world_of() as world:
        assert (await world.ask())["reason"]["kind"] == "not_ready"
        async with world.planner.running(grace_s=0.1):
            await until(lambda: world.planner.state.ready)
        said = await world.ask()
        assert (said["status"], said["reason"]["kind"]) == ("rejected", "stopping")


async def test_what_takes_long_is_told_to_go_on() -> None:
    async with world_of(waits=Waits(answer_s=0.01)) as world, world.planner.running(grace_s=0.01):
        await until(lambda: world.planner.state.ready)
        world.cluster.fail_next(Fault.LOST_BEFORE)
        assert (await world.ask())["status"] == "scaling"


async def test_blocking_waits_until_the_replicas_serve_and_no_longer_than_its_bound() -> None:
    fleet = MemoryCluster([deployment("a", {"prefill": (4, 1)})], acquire_lag_s=float("inf"))
    async with world_of(fleet, Rules(), waits=Waits(blocking_s=0.05)) as world, world.planner.running(grace_s=0.01):
        await until(lambda: world.planner.state.ready)
        assert (await world.ask(blocking=True))["status"] == "scaling"
        assert (await world.ask(blocking=False))["status"] == "success"


async def test_a_rehearsal_says_what_the_peers_says_and_names_no_replicas() -> None:
    async with world_of(rehearsal=True) as world, world.planner.running(grace_s=0.01):
        await until(lambda: world.planner.state.ready)
        said = await world.ask()
        assert (said["status"], said["message"], said["current_replicas"]) == ("success", REHEARSED, {})


class _Faulty(Planner):
    def submit(self, _: ScaleRequest) -> Submission | TurnedAway:
        raise RuntimeError("secret")


async def test_a_fault_of_ours_is_an_error_and_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    cluster, runtime = MemoryCluster(), LoopRuntime()
    async with serve(_Faulty(Rules(), daemon.World(cluster, cluster, MemoryLedger())), runtime, "infra"):
        said = await DynamoPlannerClient(runtime, "infra").ask("scale_request", document())
    assert (said["status"], "secret" in str(said)) == ("error", False)
    assert "a request failed" in caplog.text


async def test_health_is_asked_for_by_the_runtime_too(world: World) -> None:
    said = await world.client.health()
    assert said.document["managed_namespaces"] == ["ns-a", "ns-b"]
    assert (said.status, said.document["component"]) == ("healthy", "GlobalPlanner")
    assert world.runtime.checks["infra.GlobalPlanner.health"] == {"text": "health"}


async def test_whoever_is_being_answered_when_the_planner_stops_is_answered() -> None:
    fleet = MemoryCluster([deployment("a", {"prefill": (4, 1)})], acquire_lag_s=float("inf"))
    async with world_of(fleet, Rules()) as world, world.planner.running(grace_s=0.01):
        await until(lambda: world.planner.state.ready)
        blocked = asyncio.create_task(world.ask(blocking=True))
        await until(lambda: len(world.planner.decisions()) == 1)
    assert (await blocked)["status"] == "scaling"


async def _ended(runtime: LoopRuntime) -> None:
    """Serve until that ends by itself."""
    cluster = MemoryCluster()
    async with serve(planner_of(cluster), runtime, "infra") as serving:
        await asyncio.wait({serving})


async def test_endpoints_that_end_by_themselves_are_told_to_whoever_serves() -> None:
    runtime = LoopRuntime()
    asyncio.get_running_loop().call_later(0.01, runtime.shutdown)
    with pytest.raises(PortError, match="not served any more"):
        await _ended(runtime)


async def test_endpoints_that_cannot_be_served_say_why() -> None:
    with pytest.raises(PortError, match=r"infra.GlobalPlanner.health is taken"):
        await _ended(LoopRuntime(taken={"infra.GlobalPlanner.health"}))


@settings(max_examples=60)
@given(strategies.odd_scenarios(), st.booleans())
def test_whatever_is_asked_of_whatever_fleet_is_never_an_error(scenario: strategies.Scenario, blocking: bool) -> None:  # noqa: FBT001
    async def ask() -> wire.Json:
        cluster = MemoryCluster(scenario.snapshot.deployments())
        waits = Waits(answer_s=0.01, blocking_s=0.01)
        rules = Rules(Management(), scenario.budget)
        async with world_of(cluster, rules, waits=waits) as world, world.planner.running(grace_s=0.0):
            await until(lambda: world.planner.state.ready)
            asked = attrs.evolve(scenario.request, blocking=blocking)
            return (await world.client.scale(asked)).document

    said = asyncio.run(ask())
    assert said["status"] in {"success", "scaling", "rejected"}
    assert said["current_replicas"] == {} or said["status"] == "success"


async def test_the_client_sends_text_as_a_stock_planner_does(world: World) -> None:
    said = await world.client.scale(wire.scale_request(document()))
    assert (said.status, said.message, said.reason) == ("success", "Scaled a successfully", None)
    assert isinstance(world.runtime.asked[-1], str)


async def test_the_client_asks_again_where_nobody_was_there(world: World) -> None:
    world.runtime.failing += [ConnectionError("the planner is being replaced")] * 2
    assert (await world.client.scale(wire.scale_request(document()))).status == "success"


async def test_the_client_gives_up_in_time_and_says_what_it_met() -> None:
    client = DynamoPlannerClient(LoopRuntime(), "nowhere", timeout_s=0.05)
    with pytest.raises(UnansweredError, match=r"nowhere.GlobalPlanner.health gave no answer within 0.05 s"):
        await client.health()


async def test_the_client_says_the_last_thing_that_went_wrong(world: World) -> None:
    world.runtime.failing += [ConnectionError("refused")] * 100
    client = DynamoPlannerClient(world.runtime, "infra", timeout_s=0.05)
    with pytest.raises(UnansweredError, match="refused"):
        await client.scale(wire.scale_request(document()))


async def test_what_says_nothing_or_something_else_is_no_planner(world: World) -> None:
    async def nothing(_: object) -> AsyncIterator[object]:
        for one in list[object]():
            yield one

    async def text(_: object) -> AsyncIterator[object]:
        yield "hello"

    client = DynamoPlannerClient(world.runtime, "infra", timeout_s=0.05)
    world.runtime.served["infra.GlobalPlanner.odd"] = nothing
    with pytest.raises(UnansweredError, match="said nothing"):
        await client.ask("odd", {})
    world.runtime.served["infra.GlobalPlanner.odd"] = text
    with pytest.raises(UnansweredError, match="is not a planner"):
        await client.ask("odd", {})
