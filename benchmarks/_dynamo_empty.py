"""A server on Dynamo's runtime that does nothing but answer; a process of its own, as the planner is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from dynamo.runtime import dynamo_worker

SAID: dict[str, object] = {"status": "success", "message": "", "current_replicas": {}}


async def empty(_: object) -> AsyncIterator[dict[str, object]]:
    """Say that it is done."""
    yield SAID


async def serve(runtime: Any) -> None:  # noqa: ANN401 - the runtime has no types
    """Serve until killed."""
    print("serving", flush=True)
    await runtime.endpoint("bench.Empty.scale_request").serve_endpoint(empty)


if __name__ == "__main__":
    asyncio.run(dynamo_worker()(serve)())
