from collections.abc import AsyncIterator

import httpx
import pytest

from gpadapters.daemon import Planner
from gpadapters.http.server import Listen, Waits, serve
from gpcore.budgets import Budget
from gpcore.control import Rules
from gpcore.management import Management
from gpcore.pools import Deployment, ParticipantId, Pool, PoolKey, Role
from gpcore.testing.fakes import MemoryCluster
from tests.adapters.http.world import World, until


def deployment(name: str, *, prefill: int, gpus: int | None = 1, decode: int | None = None) -> Deployment:
    participant = ParticipantId("ns", name)
    counts = {Role.PREFILL: (prefill, gpus)} | ({} if decode is None else {Role.DECODE: (decode, 2)})
    return Deployment(
        participant,
        tuple(
            Pool(PoolKey(participant, role), count, size, present=count, ready=count, component=f"{name}-{role.value}")
            for role, (count, size) in counts.items()
        ),
    )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A planner that serves a and b (managed) beside c (not managed); 16 of at most 20 GPUs are used."""
    cluster = MemoryCluster(
        [deployment("a", prefill=4, decode=2), deployment("b", prefill=8), deployment("c", prefill=1)]
    )
    rules = Rules(Management(frozenset({"ns-a", "ns-b", "ns-gone"})), Budget(4, 20))
    planner = Planner(rules, cluster, cluster)
    refused: list[tuple[str, str]] = []
    async with (
        planner.running(grace_s=0.1),
        serve(
            planner,
            Listen(port=0),
            version="1.2.3",
            metrics=lambda: b"# nothing\n",
            refused=lambda kind, message: refused.append((kind, message)),
            waits=Waits(body_s=0.2, answer_s=0.2),
        ) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        await until(lambda: planner.state.ready)
        yield World(cluster, planner, client, refused, url)
