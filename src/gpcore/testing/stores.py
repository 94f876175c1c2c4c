"""A ledger and a lease in memory, for any number of planners of one process.

Rules of this file: they keep every promise of `ports` (`ledger_checks` says so) and know no clock. What can go wrong
is injected by name, and happens once.
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

from gpcore.leases import HeldLease, Lease
from gpcore.ledger import Ledger
from gpcore.ports import Conflicted, Refused, Saved, Saving, Unknown, Versioned
from gpcore.testing.fakes import Fault

T = TypeVar("T")


class _Slot(Generic[T]):
    """One value that changes by compare-and-swap."""

    def __init__(self) -> None:
        self.value: T | None = None
        self._writes = 0
        self._faults: deque[Fault] = deque()

    @property
    def version(self) -> str | None:
        """Return the version of the value, or None where there is none."""
        return None if self.value is None else str(self._writes)

    def fail_next(self, *faults: Fault) -> None:
        """Let the next writes fail so, one each."""
        self._faults.extend(faults)

    async def put(self, value: T, expected: str | None) -> Saving:
        """Write *value* if the version is as *expected*, unless it is to fail."""
        fault = self._faults.popleft() if self._faults else None
        await asyncio.sleep(0)  # others may be faster
        if fault is Fault.REFUSED:
            return Refused(fault.value)
        landed = self.version == expected and fault is not Fault.LOST_BEFORE
        if landed:
            self.value, self._writes = value, self._writes + 1
        if fault is not None:
            return Unknown(fault.value)
        return Saved(str(self._writes)) if landed else Conflicted()


class MemoryLedger:
    """Implements `gpcore.ports.LedgerStore`."""

    def __init__(self) -> None:
        self._slot: _Slot[Ledger] = _Slot()

    async def load(self) -> Versioned | None:
        """Return the ledger and its version; see the port."""
        value, version = self._slot.value, self._slot.version
        return None if value is None or version is None else Versioned(value, version)

    async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:
        """Write *ledger* over the version *expected*; see the port."""
        return await self._slot.put(ledger, expected)

    def fail_next(self, *faults: Fault) -> None:
        """Let the next writes fail so, one each."""
        self._slot.fail_next(*faults)


class MemoryLease:
    """Implements `gpcore.ports.LeaseStore`."""

    def __init__(self) -> None:
        self._slot: _Slot[Lease] = _Slot()

    async def load(self) -> HeldLease | None:
        """Return the lease as it is stored; see the port."""
        value, version = self._slot.value, self._slot.version
        return None if value is None or version is None else HeldLease(value, version)

    async def save(self, lease: Lease, *, expected: str | None) -> Saving:
        """Write *lease* over the version *expected*; see the port."""
        return await self._slot.put(lease, expected)

    def fail_next(self, *faults: Fault) -> None:
        """Let the next writes fail so, one each."""
        self._slot.fail_next(*faults)
