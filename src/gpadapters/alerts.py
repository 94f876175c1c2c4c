"""What holds the planner back, told when it begins and when it ends.

Rules of this file: it listens and changes nothing. It looks once a tick, so that what comes and goes in between is
told by the metrics alone, and each kind is told at most once in `GAP_S`, however often it comes back.
"""

import logging
import time
from collections.abc import Callable, Iterable

from gpcore.conditions import Condition, conditions
from gpcore.control import State, Transition
from gpcore.events import Event, Ticked

log = logging.getLogger(__name__)

GAP_S = 60.0
"""How long after a kind of condition was told to have begun it is told so again."""


Notify = Callable[[Condition, bool], None]
"""Told that a condition begins, or (True) that it is over."""


class Alerts:
    """Log each condition once when it begins and once when it ends; its `hear` is a listener of the planner.

    *lacking* gives what the planner runs without. What is noticed while it decides is handed to *notify* too: of
    several planners one speaks.
    """

    def __init__(
        self,
        *,
        lacking: Callable[[], Iterable[Condition]] = tuple,
        notify: Notify = lambda _condition, _over: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lacking, self._notify, self._clock = lacking, notify, clock
        self._there: dict[str, Condition] = {}
        self._notified: set[str] = set()
        self._begun_at: dict[str, float] = {}

    def hear(self, event: Event, transition: Transition) -> None:
        """Look at how things are, once a tick."""
        if isinstance(event, Ticked):
            self._look(transition.state)

    def _look(self, state: State) -> None:
        now, there = self._clock(), {one.kind: one for one in reversed((*conditions(state), *self._lacking()))}
        for kind in [kind for kind in self._there if kind not in there]:
            self._end(self._there.pop(kind), now)
        for kind, one in there.items():
            if kind not in self._there and now - self._begun_at.get(kind, -GAP_S) >= GAP_S:
                self._begin(one, now, deciding=state.leading)

    def _begin(self, one: Condition, now: float, *, deciding: bool) -> None:
        self._there[one.kind], self._begun_at[one.kind] = one, now
        log.warning("%s: %s", one.kind, one.detail, extra={"gp_condition": one.kind})
        if deciding:
            self._notified.add(one.kind)
            self._notify(one, False)  # noqa: FBT003 - it begins

    def _end(self, one: Condition, now: float) -> None:
        lasted_s = now - self._begun_at[one.kind]
        log.info("%s: over after %.0f s", one.kind, lasted_s, extra={"gp_condition": one.kind})
        if one.kind in self._notified:
            self._notified.discard(one.kind)
            self._notify(one, True)  # noqa: FBT003 - it is over
