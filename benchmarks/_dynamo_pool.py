"""The router of a pool that does nothing but answer: as many outputs as the request asks for, as fast as it can."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from dynamo.runtime import dynamo_worker

OUTPUT: dict[str, object] = {"token_ids": [17], "finish_reason": None}
LAST: dict[str, object] = {"token_ids": [], "finish_reason": "stop"}


async def generate(request: Any) -> AsyncIterator[dict[str, object]]:  # noqa: ANN401 - JSON
    """Give the outputs."""
    for _ in range(request["stop_conditions"]["max_tokens"]):
        yield OUTPUT
    yield LAST


async def serve(runtime: Any) -> None:  # noqa: ANN401 - the runtime has no types
    """Serve both pools until killed."""
    print("serving", flush=True)
    await asyncio.gather(*(runtime.endpoint(f"bench-{at}.router.generate").serve_endpoint(generate) for at in range(2)))


if __name__ == "__main__":
    asyncio.run(dynamo_worker()(serve)())
