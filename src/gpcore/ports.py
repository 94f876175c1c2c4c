"""What the planner needs of the world, in its own words.

Rules of this file: Protocols of one or two methods; the core never calls one. What a port means beyond its types is
in `gpcore.testing.checks`, which every adapter's tests and every fake run.
"""

from collections.abc import AsyncIterator
from typing import Protocol

import attrs

from gpcore.events import Gone, Listed, Seen, Stale
from gpcore.plans import Step

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


class Observer(Protocol):
    """Follow the deployments of a cluster."""

    def observe(self) -> AsyncIterator[Observation]:
        """Yield a complete `Listed` first, then each change, for ever.

        `Stale` when changes may be missed; a new `Listed` ends that. Nothing that is shown is older than what was
        shown before of the same object.
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
