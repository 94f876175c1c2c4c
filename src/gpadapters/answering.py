"""How a request comes to its answer, and how a caller reads it, whatever lies between.

Rules of this file: it waits, within bounds, and puts the answer together; what the answer means is said elsewhere.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import attrs

from gpcore import wire
from gpcore.decisions import Rejected
from gpcore.events import Failed, HandedOver, Outcome, Repeated, Succeeded
from gpcore.pools import Snapshot
from gpcore.ports import Planning, Readiness, Submission, TurnedAway
from gpcore.requests import ScaleRequest

REHEARSED = "[no-operation] Scale request received and logged (not executed)"
"""What the peer answers when nothing is to be carried out."""

OVERTAKEN = "; another change overtook it before the replicas served"

MAX_BLOCKING = 512
"""The most requests that may block at once; one more is told `scaling`. Far fewer than may wait for an answer."""


_TOLD = ("success", "scaling", "failed")
"""The ends that need no reason besides their message."""


Refused = Callable[[str, str], None]
"""Told of the kind and the message of each request that was refused before the planner saw it."""


def nobody(_kind: str, _message: str) -> None:
    """Hear of a refusal, and do nothing about it."""


@attrs.frozen
class Said:
    """What a planner said to a caller: its *document*."""

    document: wire.Json

    @property
    def status(self) -> str:
        """Return `success`, `scaling`, `rejected`, `error`, or what else the document says."""
        return str(self.document.get("status", "success"))

    @property
    def message(self) -> str:
        """Return the sentence for people."""
        return str(self.document.get("message", ""))

    @property
    def reason(self) -> str | None:
        """Return the kind of the refusal, or None."""
        reason = self.document.get("reason")
        return reason.get("kind") if isinstance(reason, dict) else None


@attrs.frozen
class Answer:
    """How a request ended: the *kind* of its end, and the peer's answer with our fields.

    The *document* is None where the request was turned away before it was looked at.
    """

    kind: str
    document: wire.Json | None = None


@attrs.frozen
class Answering:
    """Put requests to *planner*, and wait for their ends.

    A caller is answered `scaling` after *answer_s* seconds, or *blocking_s* where it blocks until the replicas serve.
    In a *rehearsal* nothing is carried out, and the answers say so.
    """

    planner: Planning
    answer_s: float
    blocking_s: float
    rehearsal: bool = False
    _blocking: set[str] = attrs.field(factory=set, init=False, eq=False)

    async def answer(self, asked: ScaleRequest) -> Answer:
        """Return how *asked* ended, or that it goes on."""
        await self.planner.refresh()
        taken = self.planner.submit(asked)
        if isinstance(taken, TurnedAway):
            return Answer(taken.kind)
        first = self.planner.decision(taken.id)
        if first is None:
            return Answer("internal")
        end = await (self._served(taken, asked) if asked.blocking else self._ended(taken))
        outcome = end.outcome
        record = self.planner.decision(taken.id) or first
        document = wire.scale_response(record, outcome, self.planner.state.snapshot or Snapshot())
        kind = _kind(outcome)
        if isinstance(outcome, Repeated) and kind not in _TOLD:
            document["reason"] = {"kind": kind}
        if end.overtaken:
            document["message"] += OVERTAKEN
        if self.rehearsal and kind == "success":
            document |= {"message": REHEARSED, "current_replicas": {}}
        return Answer(kind, document)

    async def _ended(self, taken: Submission) -> "_End":
        """Return how it ended, unless that takes longer than a caller should wait."""
        try:
            async with asyncio.timeout(self.answer_s):
                return _End(await taken.outcome)
        except TimeoutError:
            return _End(None)

    async def _served(self, taken: Submission, asked: ScaleRequest) -> "_End":
        """Return how it ended once the replicas serve; at once where too many block already."""
        try:
            with self._one_more_blocking(taken.id) as wait_s:
                async with asyncio.timeout(wait_s):
                    outcome = await taken.outcome
                    if self.rehearsal or _kind(outcome) != "success":
                        return _End(outcome)
                    readiness = await self.planner.readiness(asked)
        except TimeoutError:
            return _End(None)
        return _End(None) if readiness is Readiness.UNKNOWN else _End(outcome, readiness is Readiness.OVERTAKEN)

    @contextlib.contextmanager
    def _one_more_blocking(self, key: str) -> Iterator[float]:
        """Count the request *key* as blocking while the body runs, and say for how long it may."""
        if len(self._blocking) >= MAX_BLOCKING:
            yield 0.0
            return
        self._blocking.add(key)
        try:
            yield self.blocking_s
        finally:
            self._blocking.discard(key)


@attrs.frozen
class _End:
    """How a request ended, as far as it is known; *overtaken* by another change before its replicas served."""

    outcome: Outcome | None
    overtaken: bool = False


def _kind(outcome: Outcome | None) -> str:
    match outcome:
        case None:
            return "scaling"
        case Succeeded():
            return "success"
        case Failed():
            return "failed"
        case HandedOver():
            return "scaling"
        case Repeated(word):
            return word
        case Rejected(reason):
            return reason.kind
