"""What the planner orders, done in the world.

Rules of this file: an effect is performed, and how that went is an event; nothing is decided. A failure that nobody
foresaw may have left anything behind, so its outcome is unknown.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import assert_never

import attrs

from gpcore.errors import PortError
from gpcore.events import (
    Apply,
    Event,
    LedgerLoaded,
    LedgerMoved,
    LedgerSaved,
    LedgerUnread,
    LedgerUnsaved,
    Load,
    Mark,
    Marked,
    Save,
    StepApplied,
    StepRefused,
    StepUnknown,
    Tell,
    Told,
)
from gpcore.ledger import Ended
from gpcore.ports import (
    Absent,
    Applied,
    Auditor,
    Conflicted,
    Executor,
    LedgerStore,
    Observer,
    Refused,
    Saved,
    Unknown,
)

log = logging.getLogger(__name__)

MAX_WRITES = 64
"""The most writes to the cluster that are under way at once; the others wait their turn."""

Order = Apply | Mark | Save | Tell | Load
"""The effects that are performed here."""


@attrs.frozen
class Clock:
    """Tell the time: *monotonic* for what lasts, *wall* for records, and *sleep* to let it pass."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@attrs.frozen
class World:
    """What a planner works on: a cluster that it observes and writes to, and the *ledger* of what it promises there.

    *auditors* are told how each operation ended, at least once.
    """

    observer: Observer
    executor: Executor
    ledger: LedgerStore
    auditors: tuple[Auditor, ...] = ()


class Hands:
    """Perform orders in *world*, each in a task of its own, and *dispatch* how they went."""

    def __init__(self, world: World, dispatch: Callable[[Event], None], clock: Clock) -> None:
        self._world = world
        self._dispatch = dispatch
        self._clock = clock
        self._writing = asyncio.Semaphore(MAX_WRITES)
        self._loading = False
        self._saved = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def begin(self, order: Order) -> None:
        """Begin to perform *order*; the ledger is read once at a time."""
        match order:
            case Apply():
                performing = self._apply(order)
            case Mark():
                performing = self._mark(order)
            case Save():
                performing = self._save(order)
            case Tell(ended):
                performing = self._tell(ended)
            case Load():
                if self._loading:
                    return
                self._loading = True
                performing = self._load()
            case _:
                assert_never(order)
        task = asyncio.create_task(performing)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _apply(self, effect: Apply) -> None:
        """Write one step and say how it went; a failure that nobody foresaw may have left anything behind."""
        key, one = effect.operation, effect.step
        try:
            async with self._writing:
                answer = await self._world.executor.apply(one)
        except Exception as exc:
            log.exception("a step failed", extra={"gp_operation": key})
            answer = Unknown(f"{type(exc).__name__}: {exc}")
        match answer:
            case Applied():
                self._dispatch(StepApplied(key, one))
            case Refused(detail) | Absent(detail):
                self._dispatch(StepRefused(key, one, detail))
            case Unknown(detail):
                self._dispatch(StepUnknown(key, one, detail))
            case _:
                assert_never(answer)

    async def _mark(self, mark: Mark) -> None:
        try:
            async with self._writing:
                answer = await self._world.executor.mark(mark)
        except Exception as exc:
            log.exception("a mark failed", extra={"gp_object": str(mark.key)})
            answer = Unknown(f"{type(exc).__name__}: {exc}")
        if isinstance(answer, Refused | Unknown):
            log.info("%s was not marked: %s", mark.key, answer.detail)
        self._dispatch(Marked(mark, absent=isinstance(answer, Absent), lost=isinstance(answer, Unknown)))

    async def _save(self, effect: Save) -> None:
        try:
            answer = await self._world.ledger.save(effect.ledger, expected=effect.expected)
        except Exception as exc:
            log.exception("the ledger was not saved")
            answer = Unknown(f"{type(exc).__name__}: {exc}")
        self._saved += 1
        match answer:
            case Saved(version, size):
                self._dispatch(LedgerSaved(version, size))
            case Conflicted():
                self._dispatch(LedgerMoved())
            case Refused(detail):
                log.error("the ledger was refused: %s", detail)
                self._dispatch(LedgerUnsaved(detail))
            case Unknown(detail):
                log.warning("whether the ledger is saved is not known: %s", detail)
                self._dispatch(LedgerUnsaved(detail, lost=True))
            case _:
                assert_never(answer)

    async def _tell(self, ended: Ended) -> None:
        """Hand on how an operation ended to every auditor; what one could not keep is told again later."""
        kept = True
        for auditor in self._world.auditors:
            try:
                await auditor.tell(ended)
            except Exception:
                log.exception("the end of an operation was not handed on", extra={"gp_operation": ended.id})
                kept = False
        self._dispatch(Told(ended.id, kept))

    async def _load(self) -> None:
        try:
            found, before = None, -1
            while before != self._saved:  # what was read before a save had ended may be older than that
                before = self._saved
                found = await self._world.ledger.load()
        except PortError as fault:
            event: Event = LedgerUnread(str(fault))
        except Exception as exc:
            log.exception("the ledger was not read")
            event = LedgerUnread(f"{type(exc).__name__}: {exc}")
        else:
            now, wall = self._clock.monotonic(), self._clock.wall()
            event = (
                LedgerLoaded(None, None, now, wall)
                if found is None
                else LedgerLoaded(found.ledger, found.version, now, wall, found.size)
            )
        self._loading = False
        self._dispatch(event)
