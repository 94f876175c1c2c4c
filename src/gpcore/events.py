"""What happens to the planner, and what it does.

Rules of this file: events are in the past tense and bring the time and the ids with them; effects are imperative and
are all that ever leaves the core.
"""

import attrs

from gpcore.decisions import Decision, Rejected
from gpcore.ledger import Ended, Freeze, Ledger, ObjectKey
from gpcore.plans import Plan, Step
from gpcore.pools import Authority, Deployment, ParticipantId
from gpcore.requests import ScaleRequest


@attrs.frozen
class Succeeded:
    """Every step of *plan* is applied, and every release that an increase waited for was seen."""

    plan: Plan


@attrs.frozen
class Failed:
    """*problem* ended the operation.

    Of its plan *done* was applied and stands; of *unsure* nobody can say. *returned* was applied and given back.
    """

    problem: str
    done: tuple[Step, ...] = ()
    unsure: tuple[Step, ...] = ()
    returned: tuple[Step, ...] = ()


@attrs.frozen
class HandedOver:
    """Another planner carries *operation* on; how it ends can be asked of whoever leads."""

    operation: str


@attrs.frozen
class Repeated:
    """The request was sent before, and this is what it was answered: the word, or the kind of refusal, and why."""

    status: str
    message: str = ""
    operation: str | None = None


@attrs.frozen
class Noted:
    """What was asked for is on record."""


Outcome = Succeeded | Rejected | Failed | HandedOver | Repeated


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
    """A step has landed: its new fence was seen on its object."""

    operation: str
    step: Step


@attrs.frozen
class StepRefused:
    """The cluster refused a step; it may land later all the same, if what it needs comes back."""

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
class Mark:
    """Put the fence *new* in the place of *old* on one object, and change nothing else.

    An object that is being adopted is marked so, and one on which a write must never land. *authority* tells it from
    a later one of its name, where its uid is known.
    """

    key: ObjectKey
    authority: Authority
    old: str
    new: str


@attrs.frozen
class Marked:
    """*mark* was answered, and what is on its object was shown before; *absent*: there is no such object.

    *lost*: no answer came, so it may land later.
    """

    mark: Mark
    absent: bool = False
    lost: bool = False


@attrs.frozen
class LedgerSaved:
    """The ledger that was to be saved is stored, as *version*, in *size* bytes."""

    version: str
    size: int = 0


@attrs.frozen
class LedgerMoved:
    """The ledger was not saved, since somebody else has saved one."""


@attrs.frozen
class LedgerUnsaved:
    """The ledger was not saved; *lost*: it may have been, or may be later."""

    detail: str
    lost: bool = False


@attrs.frozen
class LedgerLoaded:
    """The ledger was read: *ledger* in *version*, or there is none.

    *now* is monotonic; *wall* is the same moment in seconds since 1970.
    """

    ledger: Ledger | None
    version: str | None
    now: float
    wall: float
    size: int = 0


@attrs.frozen
class LedgerUnread:
    """The ledger could not be read."""

    detail: str


@attrs.frozen
class Froze:
    """Somebody asked, as *id*, that changes be held."""

    id: str
    freeze: Freeze


@attrs.frozen
class Thawed:
    """Somebody asked, as *id*, that the freeze *key* end now."""

    id: str
    key: str


@attrs.frozen
class Told:
    """The end of operation *id* was handed on to whoever keeps such records; not *kept*: not to all of them."""

    id: str
    kept: bool = True


@attrs.frozen
class LeaseChanged:
    """Somebody leads: this planner (*leading*), or the one at the address *leader*.

    Told again whenever it is certain again. Not *exclusive*: others may lead at the same time, on purpose.
    """

    leading: bool
    leader: str = ""
    exclusive: bool = True


@attrs.frozen
class Ticked:
    """Time has passed; it is *now* (seconds, monotonic), and *wall* (seconds since 1970)."""

    now: float
    wall: float = 0.0


Event = (
    Listed
    | Seen
    | Gone
    | Stale
    | Submitted
    | StepApplied
    | StepRefused
    | StepUnknown
    | Marked
    | LedgerSaved
    | LedgerMoved
    | LedgerUnsaved
    | LedgerLoaded
    | LedgerUnread
    | LeaseChanged
    | Froze
    | Thawed
    | Told
    | Ticked
)


@attrs.frozen
class Decided:
    """Record *decision* on request *id*; *operation* carries it out, where there is something to do."""

    id: str
    request: ScaleRequest
    decision: Decision
    operation: str | None = None


@attrs.frozen
class Apply:
    """Write one step to the cluster, through its fence."""

    operation: str
    step: Step


@attrs.frozen
class Save:
    """Store *ledger* in the place of version *expected* (None: where there is none), or not at all."""

    ledger: Ledger
    expected: str | None


@attrs.frozen
class Tell:
    """Hand on how an operation ended: at least once, and by its id just once."""

    ended: Ended


@attrs.frozen
class Load:
    """Read the ledger."""


@attrs.frozen
class Reply:
    """Tell whoever sent request *id* how it ended."""

    id: str
    outcome: Outcome | Noted


Effect = Decided | Apply | Mark | Save | Tell | Load | Reply
