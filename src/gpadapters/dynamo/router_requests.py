"""What a request of Dynamo's frontend says that decides where it goes, and how it goes on.

Rules of this file: pure and total: whatever a payload holds, it is read. Nothing is judged here, because `route`
refuses what it cannot use, by its name.
"""

import struct
from typing import NamedTuple

from gpcore.routing import Phase, Route, RouteRequest
from gpcore.targets import target

_TOKEN_BYTES = 4


class Defaults(NamedTuple):
    """The targets of requests that name none, in milliseconds; None is the middle of the range."""

    ttft_ms: float | None = None
    itl_ms: float | None = None


NO_DEFAULTS = Defaults()


def asked(payload: object, phase: Phase, *, defaults: Defaults = NO_DEFAULTS) -> RouteRequest:
    """Return what *payload*, a request as the frontend has prepared it, asks of *phase*.

    Targets stand in `router`, in older frontends' requests in `extra_args`; the length is the number of tokens.

    >>> asked({"token_ids": [1, 2, 3], "router": {"ttft_target": 200.0}, "routing": {"priority": 7}}, Phase.PREFILL)
    RouteRequest(phase=<Phase.PREFILL: 'prefill'>, length=3, ttft_ms=200.0, itl_ms=None, priority=7)
    """
    router, older = _object(payload, "router"), _object(payload, "extra_args")
    ttft = target(nvext=router.get("ttft_target"), extra_args=older.get("ttft_target"), default=defaults.ttft_ms).value
    itl = target(nvext=router.get("itl_target"), extra_args=older.get("itl_target"), default=defaults.itl_ms).value
    ids = payload.get("token_ids") if isinstance(payload, dict) else None
    return RouteRequest(phase, _length(ids), ttft, itl, _object(payload, "routing").get("priority"))


def forwarded(payload: object) -> object:
    """Return *payload* as it goes on: token ids that came packed become a list, which every receiver can read."""
    if isinstance(payload, dict) and isinstance(ids := payload.get("token_ids"), bytes):
        return {**payload, "token_ids": list(struct.unpack(f"<{len(ids) // _TOKEN_BYTES}i", ids))}
    return payload


def told(asked: RouteRequest, route: Route) -> str:
    """Return what is logged of a request, beginning as the peer's log does."""
    match asked.phase:
        case Phase.DECODE:
            said = f"decode request: context_length={asked.length}, ITL_target={asked.itl_ms}ms"
        case Phase.PREFILL:
            said = f"prefill request: ISL={asked.length}, TTFT_target={asked.ttft_ms}ms"
        case _:
            said = f"agg request: ISL={asked.length}, TTFT_target={asked.ttft_ms}ms, ITL_target={asked.itl_ms}ms"
    order = [route.pool.index, *(pool.index for pool in route.fallbacks)]
    chosen = f"pool {route.pool.index} ({route.pool.namespace}); retry_order={order}"
    return f"Routing {said}, priority={asked.priority} -> {chosen}"


def finishes(item: object) -> bool:
    """Say whether *item* of an answer says that the answer is complete."""
    return isinstance(item, dict) and item.get("finish_reason") is not None


def _object(payload: object, name: str) -> dict[str, object]:
    """Return the object *name* of *payload*; an empty one where there is none."""
    found = payload.get(name) if isinstance(payload, dict) else None
    return found if isinstance(found, dict) else {}


def _length(ids: object) -> object:
    """Return how many *ids* there are; what cannot be counted is returned as it is, for `route` to refuse."""
    if isinstance(ids, list):
        return len(ids)
    if isinstance(ids, bytes) and len(ids) % _TOKEN_BYTES == 0:  # packed: 32 bits each, little-endian
        return len(ids) // _TOKEN_BYTES
    return ids
