"""What the tests of the HTTP API stand on."""

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import httpx

from gpadapters.daemon import Planner
from gpcore.testing.fakes import MemoryCluster


@attrs.frozen
class World:
    cluster: MemoryCluster
    planner: Planner
    client: httpx.AsyncClient
    refused: list[tuple[str, str]]
    url: str

    async def scale(self, path: str = "/v1/scale", **changes: Any) -> httpx.Response:  # noqa: ANN401 - any document
        return await self.client.post(path, json=document(**changes))


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
