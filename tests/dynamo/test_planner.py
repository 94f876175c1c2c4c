"""Dynamo's own client asks our planner over Dynamo's own runtime, and the replicas change on a real API server."""

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import attrs
import pytest

from tests.cluster import ApiServer, Behaviour, Client, FakeOperator, components_of, disaggregated, eventually, path_of
from tests.cluster.processes import Leashed
from tests.dynamo.plane import Asking, Plane, running

INFRA = "global-infra"
READY = r"planner ready at (http://\S+)"


@attrs.frozen
class World:
    """A Dynamo with our planner on a real API server, and a stock planner's client."""

    plane: Plane
    cluster: ApiServer
    namespace: str
    asking: Asking
    client: Client

    def planner(self, name: str = "planner", *flags: str, **environ: str) -> Leashed:
        """Return our planner, started as its manifest starts the stock one but for the name of the module."""
        kubeconfig = self.cluster.admin.write_kubeconfig(self.plane.folder / "kubeconfig")
        where = ("--kubeconfig", str(kubeconfig), "--listen", "127.0.0.1:0")
        variables = {"DYN_NAMESPACE": INFRA, "POD_NAMESPACE": self.namespace, **environ}
        return self.plane.ours(name, "gpadapters.dynamo.global_planner", *where, *flags, **variables)

    def scale(self, name: str, *, caller: str = "", **asked: int) -> dict[str, object]:
        """Ask as the planner of the deployment *name* does."""
        who = caller or f"{self.namespace}-{name}"
        answer = self.asking.ask("scale", caller=who, name=name, asked=asked)
        assert "raised" not in answer, answer
        came: dict[str, object] = answer["came"]
        return came

    def replicas(self, name: str) -> dict[str, int]:
        """Return what the API server says."""
        path = path_of("nvidia.com/v1beta1", "dynamographdeployments", namespace=self.namespace, name=name)
        components = components_of(self.client.get(path))
        return {one.type: one.wanted for one in components if one.type in {"prefill", "decode"}}


@pytest.fixture
def behaviour() -> Behaviour:
    """Give how slow the operator and its pods are; a test overrides it."""
    return Behaviour()


@pytest.fixture
def operator(cluster: ApiServer, behaviour: Behaviour) -> Iterator[FakeOperator]:
    with FakeOperator(cluster.admin, behaviour) as operator:
        yield operator


@pytest.fixture
def world(plane: Plane, cluster: ApiServer, namespace: str, client: Client, operator: FakeOperator) -> Iterator[World]:
    assert operator is not None
    for name in "ab":
        client.create(disaggregated(name, prefill=2, decode=2), namespace=namespace)
    with plane.asking(INFRA, POD_NAMESPACE=namespace) as asking:
        yield World(plane, cluster, namespace, asking, client)


def test_a_stock_client_scales_through_our_planner_and_is_told_what_it_cannot_have(world: World) -> None:
    with running(world.planner("planner", "--max-total-gpus", "10"), READY):
        assert world.scale("a", prefill=3) == {
            "status": "success",
            "message": "Scaled a successfully",
            "current_replicas": {"prefill": 3, "decode": 2},
        }
        assert world.replicas("a") == {"prefill": 3, "decode": 2}

        refused = world.scale("a", prefill=3, decode=9)
        assert (refused["status"], refused["current_replicas"]) == ("rejected", {})
        assert str(refused["message"]).startswith(
            "GPU budget breach: total 16 exceeds ceiling (10); no feasible pair packing"
        )

        stranger = world.scale("a", caller=f"{world.namespace}-b", prefill=1)
        assert stranger["status"] == "rejected"
        assert str(stranger["message"]).startswith(f"Namespace {world.namespace}-b not authorized")

        invalid = world.scale("a", prefill=-1)
        assert invalid["status"] == "rejected"
        assert "desired_replicas: must be between 0 and" in str(invalid["message"])
        assert world.replicas("a") == {"prefill": 3, "decode": 2}

        assert world.scale("a", prefill=1)["status"] == "success"
        assert world.replicas("a") == {"prefill": 1, "decode": 2}


def test_what_a_stock_connector_does_with_each_answer_is_to_go_on(world: World) -> None:
    managed = f"{world.namespace}-a"
    with running(world.planner("planner", "--managed-namespaces", managed, "--max-total-gpus", "10"), READY):
        accepted = world.asking.ask("connect", caller=managed, name="a", asked={"decode": 3})
        assert accepted["came"] == "GlobalPlanner scaling successful: Scaled a successfully"
        for caller, name in ((managed, "b"), (managed, "none"), (f"{world.namespace}-b", "b"), ("", "a")):
            said = world.asking.ask("connect", caller=caller, name=name, asked={"decode": 3})
            assert said.get("came", "").startswith("GlobalPlanner rejected scale request: "), said
        assert (world.replicas("a"), world.replicas("b")) == ({"prefill": 2, "decode": 3}, {"prefill": 2, "decode": 2})


def test_a_wish_of_one_deployment_is_paired_with_that_of_another(world: World) -> None:
    with running(world.planner("planner", "--min-total-gpus", "8", "--max-total-gpus", "8"), READY):
        assert world.scale("b", decode=1)["status"] == "rejected"
        assert world.scale("a", prefill=3)["status"] in {"success", "scaling"}
        eventually(lambda: (world.replicas("a")["prefill"], world.replicas("b")["decode"]) == (3, 1))


def test_health_is_what_the_stock_planner_says_and_makes_the_runtimes_own_probes_ready(world: World) -> None:
    port = _free_port()
    with running(world.planner("planner", "--managed-namespaces", "x", "y", DYN_SYSTEM_PORT=str(port)), READY):
        assert world.asking.ask("ask", endpoint="health", payload={"text": "ping"})["came"] == {
            "status": "healthy",
            "component": "GlobalPlanner",
            "namespace": INFRA,
            "managed_namespaces": ["x", "y"],
        }
        body = json.loads(eventually(lambda: _answers(f"http://127.0.0.1:{port}/health")))
        assert (body["status"], set(body["endpoints"])) == ("ready", {"scale_request", "health"})
        assert _answers(f"http://127.0.0.1:{port}/live")


def test_only_what_cannot_be_decoded_raises_at_the_stock_client(world: World) -> None:
    with running(world.planner(), READY):
        for payload in ("no JSON", 3, ["a list"]):
            raised = world.asking.ask("ask", endpoint="scale_request", payload=payload)["raised"]
            assert raised.startswith("ValueError: "), raised
            assert "Invalid request: " in raised
        for decodable in ("{}", {}, {"target_replicas": 3}):
            said = world.asking.ask("ask", endpoint="scale_request", payload=decodable)
            assert said["came"]["status"] == "rejected"


def test_a_stock_client_gets_through_again_when_our_planner_was_stopped_and_started(world: World) -> None:
    first = world.planner("first")
    with running(first, READY):
        assert world.scale("a", prefill=3)["status"] == "success"
        os.kill(first.pid, signal.SIGTERM)
        eventually(lambda: not first.running, within_s=15)
        assert list((world.plane.folder / "discovery").rglob("*GlobalPlanner*")) == [], "it has left discovery"
    with running(world.planner("second"), READY):
        assert world.scale("a", prefill=4)["status"] == "success"
    assert world.replicas("a")["prefill"] == 4


@pytest.mark.parametrize("behaviour", [Behaviour(startup_s=600.0)])
def test_whoever_blocks_when_our_planner_is_stopped_is_told_that_it_goes_on(world: World) -> None:
    planner = world.planner()
    with running(planner, READY):
        caller = f"{world.namespace}-a"
        world.asking.send("scale", caller=caller, name="a", asked={"prefill": 3}, blocking=True)
        eventually(lambda: world.replicas("a")["prefill"] == 3)
        os.kill(planner.pid, signal.SIGTERM)
        assert world.asking.receive()["came"]["status"] == "scaling"
        eventually(lambda: not planner.running, within_s=15)


def test_a_client_of_ours_gets_through_when_our_planner_was_killed_and_another_one_started(world: World) -> None:
    ours = world.plane.ours("our-client", "tests.dynamo.our_client", INFRA, world.namespace, "a")
    with ExitStack() as stack:
        with running(world.planner("first"), READY):
            stack.enter_context(running(ours, "success 3"))
        stack.enter_context(running(world.planner("second"), READY))  # the first is still in discovery
        ours.tell("4")
        eventually(lambda: "success 4" in ours.log.read_text(), within_s=30)
    assert world.replicas("a")["prefill"] == 4


def test_a_client_of_ours_asks_dynamos_own_planner_too(world: World) -> None:
    kubeconfig = world.cluster.admin.write_kubeconfig(world.plane.folder / "kubeconfig", namespace=world.namespace)
    stock = world.plane.stock(
        *("stock-planner", "-m", "dynamo.global_planner", "--managed-namespaces", f"{world.namespace}-a"),
        KUBECONFIG=str(kubeconfig),
        DYN_NAMESPACE=INFRA,
        POD_NAMESPACE=world.namespace,
    )
    ours = world.plane.ours("our-client", "tests.dynamo.our_client", INFRA, world.namespace, "a")
    stranger = world.plane.ours("stranger", "tests.dynamo.our_client", INFRA, world.namespace, "b")
    with running(stock, "GlobalPlanner is ready"), running(ours, "success 3"), running(stranger, "error 3"):
        assert world.replicas("a")["prefill"] == 3
        assert world.replicas("b")["prefill"] == 2


def _free_port() -> int:
    """Return a port that the runtime can be told: it reads it as a number of 15 bits."""
    for port in range(20_000, 32_000):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError


def _answers(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - of this machine
            text: str = response.read().decode()
            return text
    except OSError:
        return ""
