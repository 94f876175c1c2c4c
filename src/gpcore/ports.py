"""What the planner needs of the world, in its own words.

Rules of this file: Protocols of one or two methods; the core never calls one. What a port means beyond its types is
in `gpcore.testing.checks`, which every adapter's tests and every fake run.
"""

import enum
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Protocol

import attrs

from gpcore.control import State
from gpcore.decisions import Decision, Rejected
from gpcore.events import Gone, Listed, Mark, Noted, Outcome, Seen, Stale
from gpcore.leases import HeldLease, Lease
from gpcore.ledger import Ended, Freeze, Ledger
from gpcore.plans import Step
from gpcore.records import DecisionRecord, OperationRecord
from gpcore.requests import ScaleRequest

Observation = Listed | Seen | Gone | Stale


@attrs.frozen
class Applied:
    """The write landed, and the observer has shown what it made."""


@attrs.frozen
class Refused:
    """The write was refused and did not land. A step may land later if what it needs comes back, until it is killed."""

    detail: str


@attrs.frozen
class Absent:
    """There is no such object: it was asked for by name."""

    detail: str


@attrs.frozen
class Unknown:
    """The write may have landed, or may land later."""

    detail: str


Applying = Applied | Refused | Absent | Unknown


class Observer(Protocol):
    """Follow the deployments of a cluster."""

    def observe(self) -> AsyncIterator[Observation]:
        """Yield a complete `Listed` first, then each change, for ever.

        `Stale` when changes may be missed; a new `Listed` ends that. Nothing that is shown is older than what was
        shown before of the same object.
        """
        ...

    async def refresh(self) -> None:
        """Return when the cluster was looked at since this was called, and what was seen is shown, or else `Stale` is.

        At once where changes are shown as they happen. Many who call at the same time cost as much as one.
        """
        ...


class Executor(Protocol):
    """Write replicas, through fences."""

    async def apply(self, step: Step) -> Applying:
        """Write *step* in one go if its object is the one that it names, shows its old fence and has its replicas.

        The object shows the new fence then. All changes of the step or none, and never twice. Before `Applied` is
        returned, and before `Refused` where the object is not as the step says, the observer has shown how it is now.
        """
        ...

    async def mark(self, mark: Mark) -> Applying:
        """Put the new fence of *mark* in the place of its old one, and change nothing else.

        `Applied`: no write that needs the old fence can land any more. Shown as with `apply`.
        """
        ...


@attrs.frozen
class Versioned:
    """A ledger as it is stored, in *size* bytes, and the *version* that whoever stores the next one must name."""

    ledger: Ledger
    version: str
    size: int = 0


@attrs.frozen
class Saved:
    """It is stored as *version*, in *size* bytes (0: where size is no matter)."""

    version: str
    size: int = 0


@attrs.frozen
class Conflicted:
    """Nothing was stored: the version that was expected is not the one that is there."""


Saving = Saved | Conflicted | Refused | Unknown


class LedgerStore(Protocol):
    """Keep the ledger of one budget domain."""

    async def load(self) -> Versioned | None:
        """Return the ledger as it is stored, or None where there is none; PortError where it cannot be read."""
        ...

    async def save(self, ledger: Ledger, *, expected: str | None) -> Saving:
        """Store *ledger* if the stored one is still of version *expected* (None: if there is none); else nothing."""
        ...


class LeaseStore(Protocol):
    """Keep the lease that says who leads; for speed alone, since no promise rests on it."""

    async def load(self) -> HeldLease | None:
        """Return the lease as it is stored, or None where there is none; PortError where it cannot be read."""
        ...

    async def save(self, lease: Lease, *, expected: str | None) -> Saving:
        """Store *lease* if the stored one is still of version *expected* (None: if there is none); else nothing."""
        ...


class Auditor(Protocol):
    """Keep the records of what was done to the cluster."""

    async def tell(self, ended: Ended) -> None:
        """Keep *ended*, once, however often the operation of its id is told; PortError where it could not be kept."""
        ...


@attrs.frozen
class Submission:
    """A request that was taken in as *id*; awaiting *outcome* may be given up, and the operation goes on."""

    id: str
    outcome: Awaitable[Outcome]


@attrs.frozen
class TurnedAway:
    """A request that was not looked at; *kind* is `overloaded` or `stopping`."""

    kind: str


class Readiness(enum.Enum):
    """What became of replicas that were asked for."""

    SERVING = "the replicas serve"
    OVERTAKEN = "another change overtook them"
    UNKNOWN = "nobody looks any more"


class Planning(Protocol):
    """What a server offers to its callers: the one port that is called from outside."""

    @property
    def state(self) -> State:
        """Return all that is known now."""
        ...

    async def refresh(self) -> None:
        """Bring the view up to date where it is not anyway; whoever asks for a decision calls this first."""
        ...

    def submit(self, request: ScaleRequest) -> Submission | TurnedAway:
        """Take *request* in; its decision is on record when this returns."""
        ...

    def preview(self, request: ScaleRequest) -> Decision:
        """Return how *request* would be decided now, and change nothing."""
        ...

    async def readiness(self, request: ScaleRequest) -> Readiness:
        """Return when the replicas that *request* asked for, and that are written, serve, or when they never will."""
        ...

    async def freeze(self, freeze: Freeze) -> Noted | Rejected:
        """Hold changes as *freeze* says, and return when that is on record; InvalidError where it makes no sense."""
        ...

    async def thaw(self, key: str) -> Noted | Rejected:
        """End the freeze *key*, which need not hold; return when that is on record."""
        ...

    def decision(self, key: str) -> DecisionRecord | None:
        """Return the decision *key*, while it is remembered."""
        ...

    def decisions(self) -> Sequence[DecisionRecord]:
        """Return the decisions that are remembered, the newest first."""
        ...

    def operation(self, key: str) -> OperationRecord | None:
        """Return the operation *key*, while it is under way or remembered."""
        ...

    def operations(self) -> Sequence[OperationRecord]:
        """Return the operations that are under way or remembered, the newest first."""
        ...
