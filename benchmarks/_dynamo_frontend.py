"""Somebody who asks as a frontend does, each place in turn, and prints as JSON how long each took, in seconds."""

import asyncio
import json
import sys
import time
from typing import Any

from dynamo.runtime import dynamo_worker


async def call(runtime: Any, turns: int, places: dict[str, str], request: dict[str, Any]) -> None:  # noqa: ANN401 - JSON
    """Send *request* to each of *places*, turn by turn, and each of them first as often as the others."""
    clients = [(name, await _client(runtime, place, request)) for name, place in places.items()]
    took: dict[str, list[float]] = {name: [] for name in places}
    for turn in range(turns):
        at = turn % len(clients)
        for name, client in clients[at:] + clients[:at]:
            took[name].append(await _once(client, request))
    print(json.dumps(took))


async def _client(runtime: Any, place: str, request: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
    client = await runtime.endpoint(place).client()
    await client.wait_for_instances()
    for _ in range(100):  # the first may come too early for somebody on the way to have noticed whom it found
        try:
            await _once(client, request)
            break
        except Exception:  # noqa: BLE001 (whatever it is, it would be there in the end too)
            await asyncio.sleep(0.05)
    return client


async def _once(client: Any, request: dict[str, Any]) -> float:  # noqa: ANN401 - as above
    began = time.perf_counter()
    outputs = 0
    async for _ in await client.generate(request, annotated=False):
        outputs += 1
    took = time.perf_counter() - began
    assert outputs == request["stop_conditions"]["max_tokens"] + 1
    return took


if __name__ == "__main__":
    asyncio.run(dynamo_worker()(call)(int(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])))
