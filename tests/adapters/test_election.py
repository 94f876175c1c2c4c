"""The election as it is carried out: one leads, the others know who, and nobody waits for a store that hangs."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import attrs
import pytest

from gpadapters.election import electing
from gpcore.errors import PortError
from gpcore.leases import Following, HeldLease, Leading, Lease, Standing, Timing
from gpcore.ports import Saving
from gpcore.testing.fakes import Fault
from gpcore.testing.stores import MemoryLease

QUICK = Timing(0.6, 0.3, 0.05)
PATIENT = Timing(3000.0, 2000.0, 0.05)
PATIENCE_S = 20.0


@attrs.define
class Told:
    """What the planner *name* was told; *journal* is what everybody was told, in order."""

    name: str
    journal: list[tuple[str, Standing]]
    history: list[Standing] = attrs.field(factory=list)

    def __call__(self, standing: Standing) -> None:
        self.history.append(standing)
        self.journal.append((self.name, standing))

    @property
    def last(self) -> Standing | None:
        return self.history[-1] if self.history else None

    async def until(self, *standings: Standing) -> None:
        """Wait until the last that was told is one of these."""
        async with asyncio.timeout(PATIENCE_S):
            while self.last not in standings:  # noqa: ASYNC110 - what is told has no event of its own
                await asyncio.sleep(0.005)


class Moody(MemoryLease):
    """Shares its record with *other*, and can be told to hang or to fail."""

    def __init__(self, other: MemoryLease) -> None:
        super().__init__()
        self._other = other
        self.hangs = self.fails = self.breaks = False
        self.loads = 0

    async def load(self) -> HeldLease | None:
        self.loads += 1
        if self.hangs:
            await asyncio.sleep(3600)
        if self.fails:
            raise PortError("no route")
        if self.breaks:
            raise ZeroDivisionError
        return await self._other.load()

    async def save(self, lease: Lease, *, expected: str | None) -> Saving:
        return await self._other.save(lease, expected=expected)


@contextlib.asynccontextmanager
async def standing(
    store: MemoryLease,
    identity: str,
    timing: Timing = QUICK,
    journal: list[tuple[str, Standing]] | None = None,
) -> AsyncIterator[Told]:
    told = Told(identity, [] if journal is None else journal)
    async with electing(store, told, identity=identity, address=f"http://{identity}", timing=timing):
        yield told


async def test_the_first_leads_and_the_next_is_told_where() -> None:
    store = MemoryLease()
    async with standing(store, "a") as a, standing(store, "b") as b:
        await a.until(Leading(0))
        await b.until(Following("a", "http://a"))


async def test_many_at_once_elect_one() -> None:
    store = MemoryLease()
    async with contextlib.AsyncExitStack() as stack:
        everybody = [await stack.enter_async_context(standing(store, f"p{n}", PATIENT)) for n in range(8)]
        led = [Following(f"p{n}", f"http://p{n}") for n in range(8)]
        await asyncio.gather(*(one.until(Leading(0), *led) for one in everybody))
        assert sum(one.last == Leading(0) for one in everybody) == 1


async def test_who_leaves_gives_the_lease_up_and_nobody_waits_for_its_end() -> None:
    store = MemoryLease()
    async with contextlib.AsyncExitStack() as stays, contextlib.AsyncExitStack() as leaves:
        a = await leaves.enter_async_context(standing(store, "a", PATIENT))
        await a.until(Leading(0))
        b = await stays.enter_async_context(standing(store, "b", PATIENT))
        await b.until(Following("a", "http://a"))
        await leaves.aclose()
        assert a.last == Following()
        await b.until(Leading(1))


async def test_who_follows_and_leaves_takes_nothing_from_the_leader() -> None:
    store = MemoryLease()
    async with standing(store, "a", PATIENT) as a:
        await a.until(Leading(0))
        async with standing(store, "b", PATIENT) as b:
            await b.until(Following("a", "http://a"))
        held = await store.load()
        assert held is not None
        assert held.lease.holder == "a"


async def test_a_leader_that_is_cut_off_stops_before_another_follows_it() -> None:
    shared = MemoryLease()
    store = Moody(shared)
    journal: list[tuple[str, Standing]] = []
    async with standing(store, "a", journal=journal) as a, standing(shared, "b", journal=journal) as b:
        await a.until(Leading(0))
        await b.until(Following("a", "http://a"))
        store.fails = True
        del journal[:]
        await b.until(Leading(1))
        assert journal.index(("a", Following())) < journal.index(("b", Leading(1)))
        store.fails = False
        await a.until(Following("b", "http://b"))


async def test_a_leader_whose_store_hangs_stops_all_the_same() -> None:
    store = Moody(MemoryLease())
    async with standing(store, "a") as a:
        await a.until(Leading(0))
        store.hangs = True
        await a.until(Following())
        store.hangs = False
        await a.until(Leading(0))


async def test_each_renewal_is_told_and_what_does_not_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with standing(MemoryLease(), "a") as a:
            async with asyncio.timeout(PATIENCE_S):
                while a.history.count(Leading(0)) < 4:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
    said = [record.getMessage() for record in caplog.records if record.name == "gpadapters.election"]
    assert said == ["following nobody yet", "leading, in term 0", "following nobody yet"]


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.LOST_BEFORE, Fault.LOST_AFTER])
async def test_a_claim_that_fails_is_made_again(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryLease()
    store.fail_next(fault)
    async with standing(store, "a") as a:
        await a.until(Leading(0))
    assert f"cannot take part in the election: {fault.value}" in caplog.text


async def test_a_store_that_fails_is_complained_about_once(caplog: pytest.LogCaptureFixture) -> None:
    store = Moody(MemoryLease())
    store.fails = True
    async with standing(store, "a"), asyncio.timeout(PATIENCE_S):
        while store.loads < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert caplog.text.count("cannot take part in the election: no route") == 1


async def test_a_fault_of_ours_ends_the_leading_and_is_told_loudly(caplog: pytest.LogCaptureFixture) -> None:
    store = Moody(MemoryLease())
    async with standing(store, "a") as a:
        await a.until(Leading(0))
        store.breaks = True
        await a.until(Following())
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert record.getMessage() == "no longer part of the election"
    assert "ZeroDivisionError" in caplog.text


async def test_leaving_does_not_wait_for_a_store_that_hangs() -> None:
    store = Moody(MemoryLease())
    async with asyncio.timeout(PATIENCE_S):
        async with standing(store, "a") as a:
            await a.until(Leading(0))
            store.hangs = True
    assert a.last == Following()
