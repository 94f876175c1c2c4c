"""The stores in memory keep every promise of the ports, and fail as they are told to."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from gpcore.leases import Lease
from gpcore.ledger import Ledger
from gpcore.ports import Refused, Saved, Unknown
from gpcore.testing.fakes import Fault
from gpcore.testing.ledger_checks import LEASE_CHECKS, LEDGER_CHECKS, LeaseCheck, LedgerCheck
from gpcore.testing.stores import MemoryLease, MemoryLedger

T = TypeVar("T")


@asynccontextmanager
async def ledgers() -> AsyncIterator[Callable[[], MemoryLedger]]:
    store = MemoryLedger()
    yield lambda: store


@asynccontextmanager
async def leases() -> AsyncIterator[Callable[[], MemoryLease]]:
    store = MemoryLease()
    yield lambda: store


@pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
async def test_the_ledger_in_memory_keeps_its_promises(check: LedgerCheck) -> None:
    await check(ledgers)


@pytest.mark.parametrize("check", LEASE_CHECKS, ids=lambda check: check.__name__)
async def test_the_lease_in_memory_keeps_its_promises(check: LeaseCheck) -> None:
    await check(leases)


class TestFaults:
    async def test_a_refused_save_has_not_landed(self) -> None:
        store = MemoryLedger()
        store.fail_next(Fault.REFUSED)
        assert isinstance(await store.save(Ledger(), expected=None), Refused)
        assert await store.load() is None

    @pytest.mark.parametrize(("fault", "landed"), [(Fault.LOST_BEFORE, False), (Fault.LOST_AFTER, True)])
    async def test_a_save_whose_answer_is_lost_may_have_landed(self, fault: Fault, *, landed: bool) -> None:
        store = MemoryLedger()
        store.fail_next(fault)
        assert isinstance(await store.save(Ledger(), expected=None), Unknown)
        assert (await store.load() is not None) == landed

    async def test_each_fault_happens_once(self) -> None:
        store = MemoryLedger()
        store.fail_next(Fault.LOST_BEFORE)
        await store.save(Ledger(), expected=None)
        assert isinstance(await store.save(Ledger(), expected=None), Saved)

    @pytest.mark.parametrize(("fault", "landed"), [(Fault.LOST_BEFORE, False), (Fault.LOST_AFTER, True)])
    async def test_a_claim_whose_answer_is_lost_may_have_landed(self, fault: Fault, *, landed: bool) -> None:
        store = MemoryLease()
        store.fail_next(fault)
        assert isinstance(await store.save(Lease("a"), expected=None), Unknown)
        assert (await store.load() is not None) == landed
