"""What the planner says of the pools: which are empty, cold, draining, or denied by the budget.

Rules of this file: the reading is pure; a planner that does not answer is believed for a while and then not missed,
because a router must serve without one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping

import aiohttp
import msgspec

from gpadapters.router.fleet import Condition

log = logging.getLogger(__name__)

Conditions = Mapping[tuple[str, str], Condition]

_EVERY_S = 2.0
_TIMEOUT_S = 5.0
_BELIEVED_S = 30.0
_MAX_BYTES = 16 << 20


class _Pool(msgspec.Struct):
    participant: str
    role: str
    replicas: int = 0
    ready: int | None = None
    present: int | None = None
    gpus_per_replica: int | None = None


class _Pools(msgspec.Struct):
    pools: list[_Pool]


class _Budget(msgspec.Struct):
    headroom: int | None = None


def conditions(pools: bytes, budget: bytes) -> Conditions:
    """Return the condition of every pool that the planner knows, by role and Dynamo namespace."""
    headroom = msgspec.json.decode(budget, type=_Budget).headroom
    known = msgspec.json.decode(pools, type=_Pools).pools
    found: dict[tuple[str, str], Condition] = {}
    for pool in sorted(known, key=lambda pool: pool.role != "worker"):
        namespace = pool.participant.replace("/", "-", 1)
        condition = _condition(pool, headroom)
        for role in ("agg", pool.role) if pool.role == "worker" else (pool.role,):
            found[role, namespace] = condition
        if pool.role == "decode":  # the workers of an aggregated deployment that calls them so
            found.setdefault(("agg", namespace), condition)
    return found


def _condition(pool: _Pool, headroom: int | None) -> Condition:
    if pool.replicas == 0 and pool.present:
        return Condition.DRAINING
    if pool.replicas == 0:
        gpus = pool.gpus_per_replica or 0
        return Condition.DENIED if headroom is not None and gpus > headroom else Condition.COLD
    return Condition.COLD if pool.ready == 0 else Condition.SERVING


async def followed(url: str, *, every_s: float = _EVERY_S, token: str | None = None) -> AsyncIterator[Conditions]:
    """Yield what the planner at *url* says, again and again; nothing at all once it has been silent for long."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    loop = asyncio.get_running_loop()
    heard = loop.time()
    silent = False
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        while True:
            try:
                pools, budget = [
                    await _get(session, f"{url.rstrip('/')}{path}") for path in ("/v1/pools", "/v1/budget")
                ]
                yield conditions(pools, budget)
                heard, silent = loop.time(), False
            except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
                if not silent:
                    log.warning("the planner at %s cannot be asked: %s", url, error)
                silent = True
                if loop.time() - heard > _BELIEVED_S:
                    yield {}
            await asyncio.sleep(every_s)


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False) as answer:
        answer.raise_for_status()
        return await answer.content.read(_MAX_BYTES)
