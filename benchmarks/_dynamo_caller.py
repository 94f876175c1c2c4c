"""Somebody who asks over Dynamo's runtime, in turns, and prints as JSON how long each turn took, in seconds."""

import asyncio
import json
import sys
import time
from typing import Any

from dynamo.runtime import dynamo_worker


async def call(runtime: Any, turns: int, payloads: dict[str, list[str]], nothing: str) -> None:  # noqa: ANN401 - JSON
    """Send each of *payloads* to the planner, and one of them to the empty handler as *nothing*, turn by turn."""
    planner = await _client(runtime, "bench.GlobalPlanner.scale_request")
    empty = await _client(runtime, "bench.Empty.scale_request")
    took: dict[str, list[float]] = {name: [] for name in (nothing, *payloads)}
    any_payload = next(iter(payloads.values()))[0]
    for turn in range(turns):
        took[nothing].append(await _once(empty, any_payload))
        for name, texts in payloads.items():
            took[name].append(await _once(planner, texts[turn % len(texts)]))
    print(json.dumps(took))


async def _client(runtime: Any, place: str) -> Any:  # noqa: ANN401 - as above
    client = await runtime.endpoint(place).client()
    await client.wait_for_instances()
    for _ in range(100):  # the first may come too early for the runtime to have noticed whom it found
        try:
            await _once(client, "{}")
            break
        except Exception as exc:
            if "No workers available" not in str(exc):
                raise
            await asyncio.sleep(0.05)
    return client


async def _once(client: Any, payload: str) -> float:  # noqa: ANN401 - as above
    began = time.perf_counter()
    async for _ in await client.generate(payload, annotated=False):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    asyncio.run(dynamo_worker()(call)(int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]))
