"""What happens to the planner, and what it does.

Rules of this file: events are in the past tense and bring the time and the ids with them; effects are imperative and
are all that ever leaves the core.
"""

import attrs

from gpcore.decisions import Decision, Rejected
from gpcore.plans import Plan, Step
from gpcore.pools import Deployment, ParticipantId
from gpcore.requests import ScaleRequest


@attrs.frozen
class Succeeded:
    """Every step of *plan* is applied, and every release that an increase waited for was seen."""

    plan: Plan


@attrs.frozen
class Failed:
    """*problem* ended the operation; of its plan *done* was applied, and of *unsure* nobody can say."""

    problem: str
    done: tuple[Step, ...] = ()
    unsure: tuple[Step, ...] = ()


Outcome = Succeeded | Rejected | Failed


@attrs.frozen
class Listed:
    """The cluster was read as a whole: *deployments* are all there are, managed or not."""

    deployments: tuple[Deployment, ...]


@attrs.frozen
class Seen:
    """One deployment appeared or changed."""

    deployment: Deployment


@attrs.frozen
class Gone:
    """One deployment was deleted."""

    participant: ParticipantId


@attrs.frozen
class Stale:
    """The cluster is not being followed until it is listed again."""


@attrs.frozen
class Submitted:
    """A request arrived at *now* (seconds, monotonic); *id* names it and its operation for ever."""

    id: str
    request: ScaleRequest
    now: float


@attrs.frozen
class StepApplied:
    """The cluster accepted a step; what it made of it was observed before."""

    operation: str
    step: Step


@attrs.frozen
class StepRefused:
    """The cluster refused a step, and it will never land."""

    operation: str
    step: Step
    detail: str


@attrs.frozen
class StepUnknown:
    """Nobody can say whether a step has landed or will."""

    operation: str
    step: Step
    detail: str


@attrs.frozen
class Ticked:
    """Time has passed; it is *now* (seconds, monotonic)."""

    now: float


Event = Listed | Seen | Gone | Stale | Submitted | StepApplied | StepRefused | StepUnknown | Ticked


@attrs.frozen
class Decided:
    """Record *decision* on request *id*; *operation* carries it out, where there is something to do."""

    id: str
    request: ScaleRequest
    decision: Decision
    operation: str | None = None


@attrs.frozen
class Apply:
    """Write one step to the cluster."""

    operation: str
    step: Step


@attrs.frozen
class Reply:
    """Tell whoever sent request *id* how it ended."""

    id: str
    outcome: Outcome


Effect = Decided | Apply | Reply
