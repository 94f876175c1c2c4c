"""What the tests of the HTTP API stand on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import attrs
import httpx

from gpadapters import daemon
from gpadapters.daemon import Planner
from gpadapters.http.server import Listen, Waits, serve
from gpcore.budgets import Budget
from gpcore.control import Rules
from gpcore.management import Management
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Role
from gpcore.testing.fakes import MemoryCluster
from gpcore.testing.stores import MemoryLedger

Fleet = Mapping[str, Mapping[str, Sequence[int | None]]]
"""Replicas and GPUs per replica, by name of the deployment and role."""

FLEET: Fleet = {"a": {"prefill": (4, 1), "decode": (2, 2)}, "b": {"prefill": (8, 1)}, "c": {"prefill": (1, 1)}}
"""Of these, a and b are managed: 16 GPUs."""


@attrs.frozen
class World:
    cluster: MemoryCluster
    planner: Planner
    client: httpx.AsyncClient
    refused: list[tuple[str, str]]
    url: str

    async def scale(self, path: str = "/v1/scale", **changes: Any) -> httpx.Response:  # noqa: ANN401 - any document
        return await self.client.post(path, json=document(**changes))


@contextlib.asynccontextmanager
async def world_of(
    fleet: Fleet = FLEET, budget: Budget | None = None, *, waits: Waits | None = None
) -> AsyncIterator[World]:
    """Serve *fleet*; the planner runs where its view is entered."""
    cluster = MemoryCluster(deployment(name, pools) for name, pools in fleet.items())
    rules = Rules(Management(frozenset({"ns-a", "ns-b", "ns-gone"})), budget or Budget(4, 20))
    planner = planner_of(cluster, rules)
    refused: list[tuple[str, str]] = []
    served = serve(
        planner,
        Listen(port=0),
        version="1.2.3",
        metrics=lambda: b"# nothing\n",
        refused=lambda kind, message: refused.append((kind, message)),
        waits=waits or Waits(body_s=1.0),
    )
    async with served as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield World(cluster, planner, client, refused, url)


def planner_of(cluster: MemoryCluster, rules: Rules | None = None, **more: Any) -> Planner:  # noqa: ANN401 - the planner's own
    """Return a planner of *cluster* with a ledger in memory."""
    return Planner(rules or Rules(), daemon.World(cluster, cluster, MemoryLedger()), **more)


def deployment(name: str, pools: Mapping[str, Sequence[int | None]]) -> Deployment:
    participant = ParticipantId("ns", name)
    return Deployment(participant, tuple(_pool(participant, Role(role), *sizes) for role, sizes in pools.items()))


def _pool(participant: ParticipantId, role: Role, replicas: int | None, gpus: int | None) -> Pool:
    count = replicas or 0
    name = f"{participant.name}-{role.value}"
    return Pool(PoolKey(participant, role), count, gpus, present=count, ready=count, component=name)


def document(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any document
    given: dict[str, Any] = {
        "caller_namespace": "ns-a",
        "graph_deployment_name": "a",
        "k8s_namespace": "ns",
        "target_replicas": [{"sub_component_type": "prefill", "desired_replicas": 6}],
    }
    return given | changes


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not claim():  # noqa: ASYNC110 - what is waited for is not an event of asyncio's
            await asyncio.sleep(0.001)
