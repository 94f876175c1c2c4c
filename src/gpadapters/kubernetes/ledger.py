"""The ledger as an object of the cluster.

Rules of this file: pure, but for the calls.
"""

import attrs

from gpadapters.kubernetes.crd import API_VERSION, KIND, PLURAL
from gpadapters.kubernetes.following import Pace
from gpadapters.kubernetes.session import Session
from gpadapters.kubernetes.slot import Place, Slot
from gpcore.errors import InvalidError, PortError
from gpcore.ledger import Ledger
from gpcore.ports import Saving, Versioned
from gpcore.wire.ledgers import Scribe, ledger


class KubernetesLedger:
    """Implements `gpcore.ports.LedgerStore` with the GPULedger *name* in *namespace*.

    A ledger whose epoch is lower than was read of the same object was put back from a copy, together with everything
    else in the cluster, so that nothing known of it is true: it is refused, and the planner is to be started anew.
    """

    def __init__(self, session: Session, *, namespace: str, name: str, pace: Pace | None = None) -> None:
        self._slot = Slot(session, Place(API_VERSION, KIND, PLURAL, namespace, name), pace=pace or Pace())
        self._scribe = Scribe()
        self._seen: _Seen | None = None

    async def load(self) -> Versioned | None:
        """Return the ledger as it is stored; see the port. One that was read before is not decoded again."""
        found = await self._slot.load()
        if found is None:
            return None
        seen = self._seen
        if seen is not None and (seen.uid, seen.read.version) == (found.uid, found.version):
            return seen.read
        epoch = seen.read.ledger.epoch if seen is not None and seen.uid == found.uid else 0
        try:
            read = Versioned(ledger(found.spec, epoch=epoch), found.version, found.size)
        except InvalidError as error:
            raise PortError(f"{self._slot.place} cannot be read: {error}") from error
        self._seen = _Seen(found.uid, read)
        return read

    async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:
        """Write *ledger* over the version *expected*; see the port."""
        return await self._slot.save(self._scribe.document(ledger), expected=expected)


@attrs.frozen
class _Seen:
    uid: str
    read: Versioned
