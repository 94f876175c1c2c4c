"""The lease as an object of the cluster: `coordination.k8s.io/v1`, as every leader election there has it.

Rules of this file: pure, but for the calls. Where the leader listens is an annotation, since a Lease has no place for
it.
"""

import math
from datetime import UTC, datetime
from typing import Any

from gpadapters.kubernetes.following import Pace
from gpadapters.kubernetes.session import Session
from gpadapters.kubernetes.slot import Found, Place, Slot
from gpcore.errors import PortError
from gpcore.leases import HeldLease, Lease
from gpcore.ports import Saving

Json = dict[str, Any]

LEADER_ADDRESS = "gpcore.dev/leader-address"
"""The annotation that says where the leader listens."""

_TIMEOUT_S = 3.0  # so that a leader can try three times before it must stop


class KubernetesLease:
    """Implements `gpcore.ports.LeaseStore` with the Lease *name* in *namespace*."""

    def __init__(self, session: Session, *, namespace: str, name: str, pace: Pace | None = None) -> None:
        place = Place("coordination.k8s.io/v1", "Lease", "leases", namespace, name)
        self._slot = Slot(session, place, pace=pace or Pace(), timeout_s=_TIMEOUT_S)

    async def load(self) -> HeldLease | None:
        """Return the lease as it is stored; see the port."""
        found = await self._slot.load()
        if found is None:
            return None
        try:
            return HeldLease(lease_of(found), found.version)
        except (ValueError, TypeError) as fault:
            raise PortError(f"{self._slot.place} cannot be read: {fault}") from fault

    async def save(self, lease: Lease, *, expected: str | None) -> Saving:
        """Write *lease* over the version *expected*; see the port."""
        annotations = {LEADER_ADDRESS: lease.address}
        return await self._slot.save(spec_of(lease), expected=expected, annotations=annotations)


def spec_of(lease: Lease) -> Json:
    """Return *lease* as the spec of its object, whose duration is in whole seconds, rounded up."""
    return {
        "holderIdentity": lease.holder,
        "leaseDurationSeconds": math.ceil(lease.duration_s),
        "acquireTime": _written(lease.acquired_at),
        "renewTime": _written(lease.renewed_at),
        "leaseTransitions": lease.term,
    }


def lease_of(found: Found) -> Lease:
    """Return the lease that an object says; what it leaves out is as in a lease that was given up.

    What cannot be so is a ValueError or TypeError.
    """
    spec = found.spec
    return Lease(
        spec.get("holderIdentity") or "",
        found.annotations.get(LEADER_ADDRESS, ""),
        float(spec.get("leaseDurationSeconds") or 1),
        spec.get("leaseTransitions") or 0,
        _read(spec.get("acquireTime")),
        _read(spec.get("renewTime")),
    )


def _written(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _read(time: str | None) -> float:
    return 0.0 if time is None else datetime.fromisoformat(time).timestamp()
