"""What is kept of what happened, for people and programs that ask later.

Rules of this file: values only; times are wall-clock seconds since 1970, put in by whoever keeps the records.
"""

from typing import assert_never

import attrs

from gpcore.decisions import Decision, Rejected
from gpcore.events import Failed, HandedOver, Outcome, Repeated, Succeeded
from gpcore.plans import Plan
from gpcore.requests import ScaleRequest


@attrs.frozen
class DecisionRecord:
    """Request *id* was decided *at* this time; *operation* carries it out, where there is something to do."""

    id: str
    at: float
    request: ScaleRequest
    decision: Decision
    operation: str | None = None


@attrs.frozen
class OperationRecord:
    """*plan* is carried out for *request* since *began_at*; *outcome* None: it has not ended."""

    id: str
    request: ScaleRequest
    plan: Plan
    began_at: float
    ended_at: float | None = None
    outcome: Outcome | None = None

    @property
    def status(self) -> str:
        """Return the word that the answer to the request would carry now."""
        return outcome_word(self.outcome)


_REPEATED = {"success": "success", "scaling": "scaling", "failed": "error"}


def outcome_word(outcome: Outcome | None) -> str:
    """Return the peer's word for how it ended; None: not ended yet."""
    match outcome:
        case None | HandedOver():
            return "scaling"
        case Succeeded():
            return "success"
        case Failed():
            return "error"
        case Rejected():
            return "rejected"
        case Repeated(word, _, _):
            return _REPEATED.get(word, "rejected")
        case _:
            assert_never(outcome)
