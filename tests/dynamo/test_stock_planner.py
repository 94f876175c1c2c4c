"""A stock planner scales its deployment through ours: up under load, not beyond the ceiling, and down again.

Everything but the pods is Dynamo's own: the frontend, the workers (its mocker, which needs no GPU), and the planner in
`global-planner` mode, which reads the workers' queues off the event plane. They run on the runtime that they came with.
Ours runs as the drop-in for `dynamo.global_planner`, with the flags of that and under the Role of Dynamo's chart, and
nothing else.
"""

import concurrent.futures
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs
import httpx
import pytest

from tests.cluster import (
    STOCK,
    ApiServer,
    Client,
    Component,
    FakeOperator,
    components_of,
    eventually,
    grant,
    graph,
    graphs,
)
from tests.cluster.apiserver import free_port
from tests.cluster.processes import Leashed
from tests.dynamo import model
from tests.dynamo.environments import RUNTIMES
from tests.dynamo.plane import Plane, running
from tests.dynamo.pods import Pods

NAMESPACE = "default"  # where a stock planner looks when it runs in no pod
POOL = "default-a"
ACCOUNT = "planner-serviceaccount"
CEILING = 3  # two workers for prefill and one for decode, of one GPU each

PLANNER = {
    "environment": "global-planner",
    "global_planner_namespace": "default-gp",
    "backend": "mocker",
    "mode": "prefill",
    "optimization_target": "load",
    "prefill_scale_up_queue_tokens": 200,
    "prefill_scale_down_queue_tokens": 0,
    "load_adjustment_interval_seconds": 2,
    "model_name": "words",
    "prefill_engine_num_gpu": 1,
    "max_gpu_budget": -1,
    "pre_deployment_sweeping_mode": "none",
    "live_dashboard_port": 0,
    "report_interval_hours": None,
}


@attrs.frozen
class World:
    """A deployment of Dynamo that serves, its planner and ours."""

    client: Client
    pods: Pods
    planner: Leashed
    ours: str
    frontend: str

    @property
    def replicas(self) -> int:
        """Give the replicas that stand in the object on the API server."""
        components = components_of(self.client.get(graphs(NAMESPACE, "a")))
        return next(one.wanted for one in components if one.name == "prefill")

    def counted(self, reason: str) -> float:
        """Give how many scale requests ended for *reason*, as our planner counts them."""
        text = httpx.get(f"{self.ours}/metrics", trust_env=False).text
        lines = [line for line in text.splitlines() if f'request_total{{reason="{reason}"' in line]
        return float(lines[0].rpartition(" ")[2])

    @contextlib.contextmanager
    def load(self) -> Iterator[None]:
        """Keep more prompts in the queue than two workers get done, while the body runs."""
        over = threading.Event()
        prompt = {"role": "user", "content": "word " * 500}

        def ask() -> None:
            with httpx.Client(trust_env=False, timeout=60) as client:
                while not over.is_set():
                    body = {"model": "words", "messages": [prompt], "max_tokens": 2}
                    client.post(f"{self.frontend}/v1/chat/completions", json=body).raise_for_status()

        with concurrent.futures.ThreadPoolExecutor(16) as callers:
            asking = [callers.submit(ask) for _ in range(16)]
            try:
                yield
            finally:
                over.set()
        # A pod that is killed takes its requests with it, so who asked may have been told of that.
        assert any(one.exception() is None for one in asking)


@pytest.fixture(params=RUNTIMES)
def world(
    cluster: ApiServer, operator: FakeOperator, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[World]:
    """Give a deployment whose planner is about to look at its load; ours runs on either version of the runtime."""
    assert operator is not None
    client, plane, words = cluster.client, Plane(tmp_path, RUNTIMES[0]), model.write(tmp_path / "words")
    workers = [Component(name, type=name, gpus=1, args=("--model", "words")) for name in ("prefill", "decode")]
    with contextlib.ExitStack() as stack:
        client.create(graph("a", [*workers, Component("planner", type="planner")]), namespace=NAMESPACE)
        stack.callback(client.delete, graphs(NAMESPACE, "a"))
        grant(client, NAMESPACE, ACCOUNT, STOCK)
        kubeconfig = str(cluster.service_account(NAMESPACE, ACCOUNT).write_kubeconfig(tmp_path / "kubeconfig"))
        ours = stack.enter_context(
            running(_global_planner(Plane(tmp_path, request.param), kubeconfig), r"planner ready at (\S+)")
        )
        planner = _planner(plane, kubeconfig)
        stack.enter_context(running(planner, "waiting for pool-local workers"))
        pods = Pods(
            client, graphs(NAMESPACE, "a"), "prefill", lambda n: _worker(plane, words, "prefill", f"prefill-{n}")
        )
        stack.enter_context(pods)
        stack.enter_context(running(_worker(plane, words, "decode", "decode"), "Metrics background tasks started"))
        port = free_port()
        frontend = plane.stock(
            "frontend",
            *("-m", "dynamo.frontend", "--http-host", "127.0.0.1", "--http-port", str(port)),
            *("--router-mode", "round-robin", "--namespace", POOL),
        )
        stack.enter_context(running(frontend, "."))
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _serves(url), within_s=60, every_s=0.1)
        yield World(client, pods, planner, ours, url)


def test_a_stock_planner_scales_up_is_refused_at_the_ceiling_and_scales_down_again(world: World) -> None:
    with world.load():
        eventually(lambda: world.replicas == 2, within_s=60, every_s=0.1)
        written = world.client.get(graphs(NAMESPACE, "a"))["metadata"]["managedFields"]
        assert "gp-planner" in {entry["manager"] for entry in written}
        eventually(lambda: world.counted("budget_exceeded") >= 2, within_s=60, every_s=0.1)
        assert world.replicas == 2
        assert "GlobalPlanner rejected scale request: GPU budget breach" in world.planner.log.read_text()
    eventually(lambda: world.pods.counts == [1, 2, 1], within_s=60, every_s=0.1)
    assert world.replicas == 1
    assert world.counted("success") >= 2
    assert world.planner.running, world.planner.tail()


def _global_planner(plane: Plane, kubeconfig: str) -> Leashed:
    """Return ours in the place of `dynamo.global_planner`."""
    flags = ("--managed-namespaces", POOL, "--max-total-gpus", str(CEILING))
    return plane.ours(
        "ours",
        "gpadapters.dynamo.global_planner",
        *(*flags, "--listen", "127.0.0.1:0", "--kubeconfig", kubeconfig),
        DYN_NAMESPACE="default-gp",
        POD_NAMESPACE=NAMESPACE,
    )


def _planner(plane: Plane, kubeconfig: str) -> Leashed:
    return plane.stock(
        "planner",
        *("-m", "dynamo.planner", "--config", json.dumps(PLANNER)),
        KUBECONFIG=kubeconfig,
        DYN_NAMESPACE=POOL,
        DYN_PARENT_DGD_K8S_NAME="a",
        POD_NAMESPACE=NAMESPACE,
    )


def _worker(plane: Plane, words: Path, role: str, name: str) -> Leashed:
    """Return a worker that takes some seconds for what is asked of it at once."""
    component = "prefill" if role == "prefill" else "backend"
    pace = ("--max-num-batched-tokens", "64", "--max-num-seqs", "4", "--speedup-ratio", "0.3")
    return plane.stock(
        name,
        *("-m", "dynamo.mocker", "--model-path", str(words), "--model-name", "words"),
        *("--endpoint", f"dyn://{POOL}.{component}.generate", "--disaggregation-mode", role),
        *("--num-gpu-blocks-override", "2000", "--block-size", "16", "--no-enable-prefix-caching"),
        *(pace if role == "prefill" else ()),
        DYN_SYSTEM_PORT=str(free_port()),
    )


def _serves(frontend: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return bool(httpx.get(f"{frontend}/v1/models", trust_env=False).json()["data"])
    return False
