"""Take part in the election of who acts, and tell whenever that changes.

Rules of this file: what is written and when is decided in `gpcore.leases`; here it is only done. What is told saves
work: nobody may rely on it to keep others out.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import assert_never

import attrs

from gpcore.errors import PortError
from gpcore.leases import Election, Following, Leading, Standing, Timing
from gpcore.ports import Conflicted, LeaseStore, Refused, Saved, Unknown

log = logging.getLogger(__name__)

Report = Callable[[Standing], None]
"""Told who leads, once at the start, whenever it changes, and at each renewal of a lease of ours."""

_RELEASE_S = 2.0


@attrs.frozen
class Means:
    """Time and chance: *monotonic* for what lasts, *wall* for what people read, *sleep* to let it pass."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: random.Random = attrs.field(factory=random.Random)


@asynccontextmanager
async def electing(
    store: LeaseStore,
    report: Report,
    *,
    identity: str,
    address: str = "",
    timing: Timing | None = None,
    means: Means | None = None,
) -> AsyncIterator[None]:
    """Stand for election as *identity*, which listens at *address*, until the context is left.

    *report* is told `Following` or `Leading` at once when it changes, also when the store does not answer, and
    `Leading` again at each renewal: whoever has stepped down for another reason may take up again then. Leave the
    context when nothing is done any more that only the leader does: the lease is given up then, so that another may
    take it without waiting for its end. *identity* must be of this process alone.
    """
    elector = _Elector(store, report, Election(identity, address, timing or Timing()), means or Means())
    standing = asyncio.create_task(elector.stand())
    standing.add_done_callback(elector.ended)
    try:
        yield
    finally:
        standing.cancel()
        await asyncio.gather(standing, return_exceptions=True)
        await elector.give_up()


class _Elector:
    def __init__(self, store: LeaseStore, report: Report, election: Election, means: Means) -> None:
        self._store, self._report, self._election, self._means = store, report, election, means
        self._told: Standing | None = None
        self._logged: Standing | None = None
        self._problem: str | None = None

    async def stand(self) -> None:
        """Try again and again, until cancelled."""
        while True:
            await self._try()
            now = self._means.monotonic()
            await self._means.sleep(self._election.pause_s(now=now, jitter=self._means.chance.random()))
            self._tell()

    def ended(self, standing: "asyncio.Task[None]") -> None:
        """Stop leading where a fault of ours has ended the *standing* for election, which nobody takes up again."""
        fault = None if standing.cancelled() else standing.exception()
        if fault is not None:
            log.critical("no longer part of the election", exc_info=fault)
            self._step_down()

    async def give_up(self) -> None:
        """Stop leading, and let others know where that was so; one try, of two seconds at most."""
        led = isinstance(self._logged, Leading)
        self._step_down()
        if not led:
            return
        with contextlib.suppress(PortError, TimeoutError):
            async with asyncio.timeout(_RELEASE_S):
                held = await self._store.load()
                lease = self._election.seen(held, now=self._means.monotonic()).released(wall=self._means.wall())
                if held is not None and lease is not None:
                    await self._store.save(lease, expected=held.version)

    def _step_down(self) -> None:
        self._election = attrs.evolve(self._election, renewed=None)
        self._tell()

    async def _try(self) -> None:
        """Look, claim what may be claimed, and tell what follows; no longer than a leader may take for it."""
        now = self._means.monotonic()
        left = self._election.leads_until - now
        try:
            async with asyncio.timeout(left if left > 0 else self._election.timing.deadline_s):
                await self._claim()
            self._problem = None
        except (PortError, TimeoutError) as fault:
            problem = str(fault) or "no answer in time"
            if problem != self._problem:
                log.warning("cannot take part in the election: %s", problem)
            self._problem = problem
        self._tell()

    async def _claim(self) -> None:
        held = await self._store.load()
        began = self._means.monotonic()
        self._election = self._election.seen(held, now=began)
        self._tell()
        lease = self._election.claim(now=began, wall=self._means.wall())
        if lease is None:
            return
        answer = await self._store.save(lease, expected=None if held is None else held.version)
        match answer:
            case Saved():
                self._election = self._election.claimed(lease, began=began)
                self._told = None  # so that a renewal is told, too
            case Conflicted():
                pass  # somebody else was faster
            case Refused(detail) | Unknown(detail):
                raise PortError(detail)
            case _:
                assert_never(answer)

    def _tell(self) -> None:
        standing = self._election.standing(now=self._means.monotonic())
        if standing != self._logged:
            log.info("%s", _sentence(standing))
            self._logged = standing
        if standing != self._told:
            self._told = standing
            self._report(standing)


def _sentence(standing: Standing) -> str:
    match standing:
        case Leading(term):
            return f"leading, in term {term}"
        case Following(holder, address):
            return f"following {holder} at {address}" if holder else "following nobody yet"
        case _:
            assert_never(standing)
