"""Dynamo's own side: the client and the connector of its planner, told what to do by lines of JSON.

Runs in Dynamo's own environment, so nothing of this project is imported.
"""

import asyncio
import json
import logging
import os
import sys
from typing import Any

from dynamo.planner.config.defaults import SubComponentType, TargetReplica
from dynamo.planner.connectors.clients.remote_client import RemotePlannerClient
from dynamo.planner.connectors.global_planner import GlobalPlannerConnector
from dynamo.planner.connectors.protocol import ScaleRequest
from dynamo.runtime import DistributedRuntime, dynamo_worker

Json = Any
"""Whatever can be said."""


def targets(asked: dict[str, int]) -> list[Any]:
    return [
        TargetReplica(sub_component_type=SubComponentType(role), desired_replicas=count)
        for role, count in asked.items()
    ]


class Planner:
    """A planner of deployment POD_NAMESPACE/*name*, as far as asking for replicas goes."""

    def __init__(self, runtime: DistributedRuntime, infra: str) -> None:
        self.runtime = runtime
        self.infra = infra
        self.client = RemotePlannerClient(runtime, infra, "GlobalPlanner", connection_timeout=20.0)
        self.heard = Heard()
        logging.getLogger().addHandler(self.heard)
        logging.getLogger("dynamo.planner").setLevel(logging.INFO)

    async def scale(self, *, caller: str, name: str, asked: dict[str, int], blocking: bool = False) -> Json:
        """Send one request, and return the response of the client."""
        request = ScaleRequest(
            caller_namespace=caller,
            graph_deployment_name=name,
            k8s_namespace=os.environ["POD_NAMESPACE"],
            target_replicas=targets(asked),
            blocking=blocking,
        )
        response = await self.client.send_scale_request(request)
        return json.loads(response.model_dump_json())

    async def connect(self, *, caller: str, name: str, asked: dict[str, int]) -> Json:
        """Let the connector do it, and return what it logs: it raises only where a planner would stop."""
        connector = GlobalPlannerConnector(self.runtime, caller, self.infra)
        await connector.async_init()
        os.environ["DYN_PARENT_DGD_K8S_NAME"] = name
        self.heard.lines.clear()
        await connector.set_component_replicas(targets(asked), blocking=False)
        return self.heard.lines[-1]

    async def ask(self, *, endpoint: str, payload: Json) -> Json:
        """Send anything, and return the first thing that is said.

        After an error the runtime keeps away from a server for a moment, as if there were none.
        """
        for _ in range(100):
            try:
                return await self._ask(endpoint, payload)
            except Exception as exc:
                if "No workers available" not in str(exc):
                    raise
            await asyncio.sleep(0.05)
        return None

    async def _ask(self, endpoint: str, payload: Json) -> Json:
        client = await self.runtime.endpoint(f"{self.infra}.GlobalPlanner.{endpoint}").client()
        await client.wait_for_instances()
        async for said in await client.generate(payload):
            return said.data()
        return None


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def main(runtime: DistributedRuntime) -> None:
    planner = Planner(runtime, sys.argv[1])
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = json.loads(line)
        try:
            came = {"came": await getattr(planner, told.pop("do"))(**told)}
        except Exception as exc:  # noqa: BLE001 - whoever asked wants to know
            came = {"raised": f"{type(exc).__name__}: {exc}"}
        sys.stdout.write(f"{json.dumps(came)}\n")
        sys.stdout.flush()


asyncio.run(dynamo_worker()(main)())
