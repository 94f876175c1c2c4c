"""The lease in a file.

Rules of this file: pure, but for the calls.
"""

from pathlib import Path

import attrs

from gpadapters.sqlite.slot import Slot
from gpcore.leases import HeldLease, Lease
from gpcore.ports import Saving
from gpcore.wire import Json, dumps, loads


class SqliteLease:
    """Implements `gpcore.ports.LeaseStore` with the lease *name* in the database *path*, whose folder must exist."""

    def __init__(self, path: Path, *, name: str = "default") -> None:
        self._slot = Slot(path, f"lease/{name}")  # a ledger of the same name may be in the same file

    async def load(self) -> HeldLease | None:
        """Return the lease as it is stored; see the port."""
        return await self._slot.load(lambda body, version: HeldLease(_lease(body), version))

    async def save(self, lease: Lease, *, expected: str | None) -> Saving:
        """Write *lease* over the version *expected*; see the port."""
        return await self._slot.save(dumps(attrs.asdict(lease)).decode(), expected=expected)


def _lease(body: str) -> Lease:
    """Return the lease that *body* says; a ValueError or TypeError where it says none."""
    document: Json = loads(body.encode())  # type: ignore[assignment]
    return Lease(**document)
