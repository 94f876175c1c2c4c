"""What the planner needs of the world, in its own words.

Rules of this file: Protocols of one or two methods; the core never calls one. What a port means beyond its types is
in `gpcore.testing.checks`, which every adapter's tests and every fake run.
"""

import enum
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Protocol

import attrs

from gpcore.control import State
from gpcore.decisions import Decision
from gpcore.events import Gone, Listed, Outcome, Seen, Stale
from gpcore.plans import Step
from gpcore.records import DecisionRecord, OperationRecord
from gpcore.requests import ScaleRequest

Observation = Listed | Seen | Gone | Stale


@attrs.frozen
class Applied:
    """The step landed, and the observer has shown what it made."""


@attrs.frozen
class Refused:
    """The step did not land and never will."""

    detail: str


@attrs.frozen
class Unknown:
    """The step may have landed, or may land later."""

    detail: str


Applying = Applied | Refused | Unknown


@attrs.frozen
class Condition:
    """Something that a part of the planner runs without.

    *kind* is the stable word for it, *detail* the sentence that says what is missing and what follows from that.
    """

    kind: str
    detail: str


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
    """Write replicas."""

    async def apply(self, step: Step) -> Applying:
        """Write *step* in one go if its objects are those that it names and their replicas are as it says.

        All changes of the step or none. Before `Applied` is returned, and before `Refused` where the objects are not
        as the step says, the observer has shown how they are now.
        """
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
