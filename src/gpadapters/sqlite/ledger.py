"""The ledger in a file.

Rules of this file: pure, but for the calls.
"""

from pathlib import Path

from gpadapters.sqlite.slot import Slot
from gpcore.ledger import Ledger
from gpcore.ports import Saving, Versioned
from gpcore.wire import dumps, loads
from gpcore.wire.ledgers import Scribe, ledger


class SqliteLedger:
    """Implements `gpcore.ports.LedgerStore` with the ledger *name* in the database *path*, whose folder must exist."""

    def __init__(self, path: Path, *, name: str = "ledger") -> None:
        self._slot, self._scribe = Slot(path, name), Scribe()

    async def load(self) -> Versioned | None:
        """Return the ledger as it is stored; see the port."""
        return await self._slot.load(lambda body, version: Versioned(ledger(loads(body.encode())), version, len(body)))

    async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:
        """Write *ledger* over the version *expected*; see the port."""
        return await self._slot.save(dumps(self._scribe.document(ledger)).decode(), expected=expected)
