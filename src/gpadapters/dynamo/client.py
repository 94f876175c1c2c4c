"""A client of the global planner on Dynamo's runtime, for planners of one's own: ours answers it, and a stock one too.

Rules of this file: it sends and reads, and judges nothing: a refusal is an answer. Every call ends within its time.
What is asked for is a number of replicas, not a change of them, so asking again is harmless, and a planner that is
just being replaced is asked again until it is there or the time is up.
"""

import asyncio
import contextlib
from typing import Any

import attrs

from gpadapters.answering import Said
from gpadapters.dynamo.messages import COMPONENT
from gpadapters.dynamo.runtime import Runtime
from gpcore import wire
from gpcore.errors import InvalidError, PortError
from gpcore.requests import ScaleRequest

PAUSES_S = (0.1, 1.0)
"""The first and the longest pause before it is asked again, in seconds."""

_UNDECODABLE = ValueError
"""What the runtime raises where the other side cannot read what it was sent; asking again would not help."""


class UnansweredError(PortError):
    """The planner gave no answer in time; whether it took the request is not known."""


@attrs.frozen
class DynamoPlannerClient:
    """Ask the global planner of the Dynamo *namespace*, over a *runtime* that has `joined`.

    A call takes at most *timeout_s* seconds, the time to find the planner included. A request that blocks needs more.
    """

    runtime: Runtime
    namespace: str
    component: str = COMPONENT
    timeout_s: float = 30.0
    _clients: dict[str, Any] = attrs.field(factory=dict, init=False, eq=False)

    async def scale(self, request: ScaleRequest, *, timeout_s: float | None = None) -> Said:
        """Ask for replicas."""
        text = wire.dumps(wire.scale_request_json(request)).decode()  # a text, as a stock planner sends it
        return Said(await self.ask("scale_request", text, timeout_s=timeout_s))

    async def health(self) -> Said:
        """Ask whether the planner is there, and for whom."""
        return Said(await self.ask("health", {"text": "ping"}))

    async def ask(self, endpoint: str, payload: object, *, timeout_s: float | None = None) -> wire.Json:
        """Send *payload* to *endpoint* and return the first thing that is said, or raise `UnansweredError`."""
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        place = f"{self.namespace}.{self.component}.{endpoint}"
        pause_s, longest_s = PAUSES_S
        last: Exception | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while True:
                    try:
                        return await self._asked_once(place, payload)
                    except _UNDECODABLE as exc:
                        raise InvalidError([f"{place} cannot read what it was sent: {exc}"]) from exc
                    except Exception as exc:  # noqa: BLE001 (the runtime has a dozen ways to say that nobody is there)
                        last = exc
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, longest_s)
        why = f": {last}" if last is not None else ""
        raise UnansweredError(f"{place} gave no answer within {wait_s:g} s{why}") from last

    async def _asked_once(self, place: str, payload: object) -> wire.Json:
        client = self._clients.get(place)
        if client is None:
            client = self._clients[place] = await self.runtime.endpoint(place).client()
        await client.wait_for_instances()
        async for said in await client.generate(payload, annotated=False):
            if isinstance(said, dict):
                return said
            raise PortError(f"{place} is not a planner: it said {type(said).__name__}")
        raise PortError(f"{place} said nothing")
