"""The planner as a process: one inbox, one writer.

Rules of this file: everything that happens is an event, `control.step` says what follows, and `performing` does it. It
all runs on one event loop and nothing between two awaits is shared, so there is no lock.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import attrs

from gpadapters.performing import Clock, Hands, World
from gpcore.control import Rules, State, Transition, preview, step
from gpcore.decisions import Decision, Rejected
from gpcore.events import (
    Decided,
    Effect,
    Event,
    Failed,
    Froze,
    HandedOver,
    LeaseChanged,
    LedgerUnread,
    Listed,
    Load,
    Noted,
    Outcome,
    Reply,
    Stale,
    Submitted,
    Thawed,
    Ticked,
)
from gpcore.fences import Mint
from gpcore.holding import checked_freeze
from gpcore.ledger import Freeze
from gpcore.operations import Operation
from gpcore.plans import Step
from gpcore.policy import resolve
from gpcore.pools import PoolKey, Snapshot
from gpcore.ports import (
    Readiness,
    Submission,
    TurnedAway,
)
from gpcore.records import DecisionRecord, OperationRecord
from gpcore.requests import ScaleRequest

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_PENDING = 1_024
"""The most requests that may wait for an answer at once; one more is turned away. Who has given up waits no more."""

REMEMBERED = 1_000
"""How many decisions, and how many ended operations, are remembered."""

TICK_S = 1.0
_SEED_BYTES = 16
TELL_AFTER_S = 0.003
"""How long after an event its listeners are told, so that nobody waits for what they do."""

RETRY_S = (0.25, 30.0)
"""The first and the longest pause before the cluster is observed again after a failure."""

__all__ = ["Brain", "Clock", "Listener", "Planner", "World", "mint"]

Brain = Callable[[State, Event], Transition]
"""What follows from an event: `step`, or something that keeps its promises."""

Listener = Callable[[Event, Transition], None]
"""Told of every event and what it led to, in order, a moment after its effects are under way."""


def mint() -> str:
    """Return a new short id, unique for all practical purposes."""
    return f"d-{secrets.token_hex(6)}"


class Planner:
    """Decide requests on what is observed of *world*, and carry the decisions out in it.

    It leads from the start unless *elected*; then `LeaseChanged` says when.
    Runs inside `async with planner.running()`; implements `gpcore.ports.Planning`.
    """

    def __init__(
        self,
        rules: Rules,
        world: World,
        *,
        elected: bool = False,
        clock: Clock | None = None,
        ids: Callable[[], str] = mint,
        listeners: Iterable[Listener] = (),
        brain: Brain = step,
    ) -> None:
        self._state = State(rules, mint=Mint(secrets.token_hex(_SEED_BYTES)))
        self._observer = world.observer
        self._elected = elected
        self._clock = clock or Clock()
        self._hands = Hands(world, self.dispatch, self._clock)
        self._ids = ids
        self._listeners = tuple(listeners)
        self._brain = brain
        self._inbox: deque[Event] = deque()
        self._stepping = False
        self._untold: deque[tuple[Event, Transition]] = deque()
        self._closed = False
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._noting: dict[str, asyncio.Future[Noted | Rejected]] = {}
        self._watching: set[_Watch] = set()
        self._decisions: dict[str, DecisionRecord] = {}
        self._under_way: dict[str, Operation] = {}
        self._ended: dict[str, OperationRecord] = {}

    @property
    def state(self) -> State:
        """Return all that is known now."""
        return self._state

    async def refresh(self) -> None:
        """Bring the view up to date where it is not anyway; whoever asks for a decision calls this first."""
        await self._observer.refresh()

    def submit(self, request: ScaleRequest) -> Submission | TurnedAway:
        """Take *request* in; its decision is on record when this returns."""
        if self._closed:
            return TurnedAway("stopping")
        if len(self._waiting) >= MAX_PENDING:
            return TurnedAway("overloaded")
        key = self._ids()
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[key] = outcome
        outcome.add_done_callback(lambda _: self._waiting.pop(key, None))
        self.dispatch(Submitted(key, request, self._clock.monotonic()))
        return Submission(key, outcome)

    def preview(self, request: ScaleRequest) -> Decision:
        """Return how *request* would be decided now, and change nothing."""
        return preview(self._state, request, now=self._clock.monotonic())

    async def readiness(self, request: ScaleRequest) -> Readiness:
        """Return when the replicas that *request* asked for, and that are written, serve, or when they never will."""
        snapshot = self._state.snapshot or Snapshot()
        pools = resolve(request, snapshot)
        if isinstance(pools, Rejected):
            return Readiness.OVERTAKEN
        asked = {pool.key: target.replicas for pool, target in zip(pools, request.targets, strict=True)}
        watch = _Watch(asked, asyncio.get_running_loop().create_future())
        watch.look(snapshot)
        if self._closed:
            _resolve(watch.answer, Readiness.UNKNOWN)
        self._watching.add(watch)
        try:
            return await watch.answer
        finally:
            self._watching.discard(watch)

    async def freeze(self, freeze: Freeze) -> Noted | Rejected:
        """Hold changes as *freeze* says, and return when that is on record; InvalidError where it makes no sense."""
        checked_freeze(freeze, wall=self._clock.wall())
        return await self._note(lambda key: Froze(key, freeze))

    async def thaw(self, key: str) -> Noted | Rejected:
        """End the freeze *key*, which need not hold; return when that is on record."""
        return await self._note(lambda asked: Thawed(asked, key))

    async def _note(self, asking: Callable[[str], Event]) -> Noted | Rejected:
        key = self._ids()
        answer: asyncio.Future[Noted | Rejected] = asyncio.get_running_loop().create_future()
        self._noting[key] = answer
        self.dispatch(asking(key))
        try:
            return await answer
        finally:
            self._noting.pop(key, None)

    def decision(self, key: str) -> DecisionRecord | None:
        """Return the decision *key*, while it is remembered."""
        return self._decisions.get(key)

    def decisions(self) -> Sequence[DecisionRecord]:
        """Return the decisions that are remembered, the newest first."""
        return tuple(reversed(self._decisions.values()))

    def operation(self, key: str) -> OperationRecord | None:
        """Return the operation *key*, while it is under way or remembered, whoever began it."""
        under_way = self._state.operations.get(key)
        return self._ended.get(key) if under_way is None else _record_of(under_way)

    def operations(self) -> Sequence[OperationRecord]:
        """Return the operations that are under way or remembered, the newest first."""
        under_way = [_record_of(one) for one in self._state.operations.values()]
        return tuple(reversed((*self._ended.values(), *under_way)))

    @contextlib.asynccontextmanager
    async def running(self, *, grace_s: float = 10.0) -> AsyncIterator["Planner"]:
        """Follow the cluster and the clock while the body runs; then take nothing new, and let what is sent land.

        What an operation has not begun when the time is up is left: the next planner finds the cluster as it is.
        """
        tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._tick())]
        self.dispatch(LedgerUnread("it has not been read yet") if self._elected else LeaseChanged(leading=True))
        self._hands.begin(Load())
        try:
            yield self
        finally:
            self._closed = True
            self.dispatch(Ticked(self._clock.monotonic(), self._clock.wall()))  # what is drafted is stored
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    while self._hands.tasks:
                        await asyncio.wait(self._hands.tasks)
            left = [*tasks, *self._hands.tasks]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            self._leave()
            self._tell()

    def dispatch(self, event: Event) -> None:
        """Let *event* happen, after those that are happening; all that follows at once has followed on return."""
        self._inbox.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._inbox:
                self._happen(self._inbox.popleft())
        finally:
            self._stepping = False

    def _happen(self, event: Event) -> None:
        try:
            transition = self._brain(self._state, event)
        except Exception:
            log.exception("an event was dropped", extra={"gp_event": type(event).__name__})
            transition = Transition(self._state, _apology(event))
        self._state = transition.state
        for effect in transition.effects:
            self._perform(effect)
        if self._watching:
            snapshot = self._state.snapshot or Snapshot()
            for watch in self._watching:
                watch.look(snapshot)
        if self._listeners:
            # Not now: what was begun is to be on its way first, and an answer may be fetched by another thread, which
            # cannot have it while this one computes.
            if not self._untold:
                asyncio.get_running_loop().call_later(TELL_AFTER_S, self._tell)
            self._untold.append((event, transition))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Decided():
                self._record(effect)
            case Reply():
                self._reply(effect)
            case _:
                self._hands.begin(effect)

    def _reply(self, reply: Reply) -> None:
        key, outcome = reply.id, reply.outcome
        if isinstance(outcome, Noted) or (key in self._noting and isinstance(outcome, Rejected)):
            _resolve(self._noting.pop(key, None), outcome)
        else:
            self._end(key, outcome)
            _resolve(self._waiting.pop(key, None), outcome)

    def _record(self, decided: Decided) -> None:
        """Remember what was decided; a request that is decided anew keeps its place."""
        at = self._clock.wall()
        record = DecisionRecord(decided.id, at, decided.request, decided.decision, decided.operation)
        _remember(self._decisions, decided.id, record)
        operation = self._state.operations.get(decided.id)
        if operation is not None:
            self._under_way[decided.id] = operation

    def _end(self, key: str, outcome: Outcome) -> None:
        operation = self._under_way.pop(key, None)
        if operation is not None and not isinstance(outcome, HandedOver):
            record = attrs.evolve(_record_of(operation), ended_at=self._clock.wall(), outcome=outcome)
            _remember(self._ended, key, record)

    def _tell(self) -> None:
        """Tell the listeners all that they have not heard of."""
        while self._untold:
            event, transition = self._untold.popleft()
            for listener in self._listeners:
                try:
                    listener(event, transition)
                except Exception:
                    log.exception("a listener failed", extra={"gp_event": type(event).__name__})

    async def _follow(self) -> None:
        """Observe for ever; after a failure nothing may grow until the cluster was listed again."""
        first, longest = RETRY_S
        pause_s = first
        while True:
            try:
                async for observation in self._observer.observe():
                    self.dispatch(observation)
                    pause_s = first if isinstance(observation, Listed) else pause_s
                log.warning("observing ended; beginning anew in %g s", pause_s)
            except Exception:
                log.exception("observing failed; beginning anew in %g s", pause_s)
            self.dispatch(Stale())
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, longest)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self.dispatch(Ticked(self._clock.monotonic(), self._clock.wall()))

    def _leave(self) -> None:
        """Tell those who still wait, and the log, how far it came; whoever leads next carries on what is on record."""
        for key, operation in self._state.operations.items():
            pending = ", ".join(_moves(operation.waiting)) or "nothing"
            log.warning("operation %s is left to the next planner; not begun: %s", key, pending)
            for waiter in self._state.drives[key].waiters:
                _resolve(self._waiting.pop(waiter, None), HandedOver(key))
        for watch in tuple(self._watching):
            _resolve(watch.answer, Readiness.UNKNOWN)


@attrs.frozen(eq=False)
class _Watch:
    """Somebody who waits for the replicas *asked* of each pool to serve."""

    asked: Mapping[PoolKey, int]
    answer: asyncio.Future[Readiness]

    def look(self, snapshot: Snapshot) -> None:
        """Answer if all of them serve in *snapshot*, or if one never will."""
        pools = [pool for key in self.asked if (pool := snapshot.pool(key)) is not None]
        if {pool.key: pool.replicas for pool in pools} != self.asked:
            _resolve(self.answer, Readiness.OVERTAKEN)
        elif all(pool.ready >= pool.replicas >= pool.present for pool in pools):
            _resolve(self.answer, Readiness.SERVING)


def _record_of(operation: Operation) -> OperationRecord:
    return OperationRecord(operation.id, operation.request, operation.plan, operation.began_at)


def _moves(steps: Iterable[Step]) -> list[str]:
    return [f"{change.pool} {change.before} to {change.after}" for step in steps for change in step.changes]


def _resolve(future: asyncio.Future[T] | None, value: T) -> None:
    """Answer whoever still waits; one who has given up needs none."""
    if future is not None and not future.done():
        future.set_result(value)


def _remember(ring: dict[str, T], key: str, value: T) -> None:
    ring[key] = value
    if len(ring) > REMEMBERED:
        del ring[next(iter(ring))]


def _apology(event: Event) -> tuple[Effect, ...]:
    """Return the answer to whoever waits for an event that could not be dealt with."""
    return (Reply(event.id, Failed("an internal error; see the log")),) if isinstance(event, Submitted) else ()
