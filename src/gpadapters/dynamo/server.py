"""A planner that stock planners ask over Dynamo's runtime, as `{namespace}.GlobalPlanner`.

Rules of this file: payloads in, `messages` and the planner in between, one answer out. Only what cannot be decoded
raises, because a stock planner takes that for an end nobody knows.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import attrs

from gpadapters.answering import REHEARSED, Answering, Refused, nobody
from gpadapters.dynamo import messages
from gpadapters.dynamo.runtime import Runtime
from gpcore.errors import InvalidError, MalformedError, PortError
from gpcore.ports import Planning
from gpcore.requests import ScaleRequest
from gpcore.wire import Json

log = logging.getLogger(__name__)

DRAIN_S = 5.0
"""How long answers that are on their way may take when the planner stops, in seconds."""

SAY_AFTER_S = 0.003
"""How long after something happened it is logged, in seconds."""


@attrs.frozen
class Waits:
    """How long to wait, in seconds, before answering `scaling`: as a rule, and where a caller blocks."""

    answer_s: float = 3.0
    blocking_s: float = 1_800.0


_PATIENT = Waits()


@contextlib.asynccontextmanager
async def serve(
    planner: Planning,
    runtime: Runtime,
    namespace: str,
    *,
    refused: Refused = nobody,
    waits: Waits = _PATIENT,
    rehearsal: bool = False,
) -> AsyncIterator["asyncio.Future[Any]"]:
    """Serve *planner* in the Dynamo *namespace* while the body runs.

    The body gets what is done only where serving ended by itself; then `PortError` is raised at the end. Whoever is
    being answered when the body ends gets the answer first.
    """
    api = Endpoints(planner, namespace, refused, Answering(planner, waits.answer_s, waits.blocking_s, rehearsal))
    place = f"{namespace}.{messages.COMPONENT}"
    scale, health = runtime.endpoint(f"{place}.scale_request"), runtime.endpoint(f"{place}.health")
    serving = asyncio.gather(
        scale.serve_endpoint(api.scale_request),
        # Asking for checks of its health is what lets the runtime's own /health and /live say that all is well.
        health.serve_endpoint(api.health, health_check_payload=messages.HEALTH_CHECK),
    )
    log.info("serving %s.scale_request and %s.health", place, place)
    try:
        yield serving
    finally:
        by_itself = serving.done()
        runtime.shutdown()
        await _drained(serving, by_itself=by_itself)


async def _drained(serving: "asyncio.Future[Any]", *, by_itself: bool) -> None:
    """Wait until both endpoints have left discovery and said what they had to say."""
    try:
        async with asyncio.timeout(DRAIN_S):
            await serving
    except TimeoutError:
        log.warning("some callers were not answered within %g s", DRAIN_S)
    except Exception as exc:
        raise PortError(f"the endpoints are not served: {exc}") from exc
    if by_itself:
        raise PortError("the endpoints are not served any more: Dynamo's runtime was shut down")


@attrs.frozen
class Endpoints:
    """Answer what arrives at both endpoints."""

    planner: Planning
    namespace: str
    refused: Refused
    answering: Answering

    async def scale_request(self, payload: object) -> AsyncIterator[Json]:
        """Yield the one answer to *payload*, or raise where it cannot be decoded."""
        yield await self._answer(payload)

    async def health(self, _: object) -> AsyncIterator[Json]:
        """Yield that the planner is there, whatever is asked."""
        yield messages.health(self.namespace, self.planner.state)

    async def _answer(self, payload: object) -> Json:
        try:
            asked = messages.request(payload)
        except MalformedError as exc:
            self.refused("malformed", str(exc))
            raise ValueError(f"Invalid request: {exc}") from None
        except InvalidError as exc:
            self.refused("invalid", str(exc))
            return messages.invalid(exc)
        wrong = messages.stranger(asked, self.planner.state)
        if wrong is not None:
            self.refused(wrong["reason"]["kind"], wrong["message"])
            return wrong
        try:
            return await self._decided(asked)
        except Exception:
            log.exception("a request failed")
            return messages.response(messages.FAULT)

    async def _decided(self, asked: ScaleRequest) -> Json:
        """Return the answer to *asked*; what is logged begins as in the peer's log."""
        caller, participant = asked.caller, asked.participant
        place = f"for DGD {participant.name} in K8s namespace {participant.namespace}"
        _say("Processing scale request from %s %s", caller, place)
        said = messages.response(await self.answering.answer(asked))
        match said["status"]:
            case "success" if said["message"] == REHEARSED:
                _say("[NO-OP] Scale request from %s %s", caller, place)
            case "success":
                _say("Successfully scaled %s: %s", participant.name, said["current_replicas"])
            case "rejected":
                _say("Rejecting scale request from %s: %s", caller, said["message"])
            case _:
                _say("scale request from %s: %s", caller, said["message"])
        return said


def _say(text: str, *values: object) -> None:
    """Log that in a moment: the runtime's thread cannot take an answer while this one writes."""
    asyncio.get_running_loop().call_later(SAY_AFTER_S, log.info, text, *values)
