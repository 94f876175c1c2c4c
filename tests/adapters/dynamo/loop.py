"""A stand-in for Dynamo's runtime within one process, with just what the planner's server and client use of it.

`tests/dynamo` does the same with the real one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs

Handler = Callable[[Any], AsyncIterator[Any]]


@attrs.define(eq=False)
class LoopRuntime:
    """Endpoints by path.

    What is *taken* is not served; what is *failing* is raised, one a call, before anything is sent.
    """

    served: dict[str, Handler] = attrs.field(factory=dict)
    checks: dict[str, object] = attrs.field(factory=dict)
    failing: list[Exception] = attrs.field(factory=list)
    taken: set[str] = attrs.field(factory=set)
    asked: list[Any] = attrs.field(factory=list)
    _down: asyncio.Event = attrs.field(factory=asyncio.Event)
    _busy: set[asyncio.Event] = attrs.field(factory=set)

    def endpoint(self, path: str) -> "LoopEndpoint":
        if path.count(".") != 2:
            raise ValueError(f"not an address: {path}")
        return LoopEndpoint(self, path)

    def shutdown(self) -> None:
        self._down.set()

    async def serve(self, path: str, handler: Handler) -> None:
        if path in self.taken:
            raise RuntimeError(f"{path} is taken")
        self.served[path] = handler
        await self._down.wait()
        del self.served[path]
        for answered in tuple(self._busy):
            await answered.wait()

    async def call(self, path: str, payload: object) -> AsyncIterator[Any]:
        self.asked.append(payload)
        if self.failing:
            raise self.failing.pop(0)
        if path not in self.served:
            raise RuntimeError(f"no workers available for {path}")
        answered = asyncio.Event()
        self._busy.add(answered)
        try:
            async for said in self.served[path](payload):
                yield said
        finally:
            self._busy.discard(answered)
            answered.set()


@attrs.frozen(eq=False)
class LoopEndpoint:
    runtime: LoopRuntime
    path: str

    async def serve_endpoint(self, handler: Handler, *, health_check_payload: object = None) -> None:
        self.runtime.checks[self.path] = health_check_payload
        await self.runtime.serve(self.path, handler)

    async def client(self) -> "LoopClient":
        return LoopClient(self.runtime, self.path)


@attrs.frozen(eq=False)
class LoopClient:
    runtime: LoopRuntime
    path: str

    async def wait_for_instances(self) -> None:
        while self.path not in self.runtime.served:  # noqa: ASYNC110 - a stand-in needs no events
            await asyncio.sleep(0.001)

    async def generate(self, payload: object, *, annotated: bool = True) -> AsyncIterator[Any]:
        assert not annotated
        return self.runtime.call(self.path, payload)
