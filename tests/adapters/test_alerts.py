"""What holds the planner back is told when it begins and when it ends, and not more often than somebody reads."""

import logging

import attrs
import pytest

from gpadapters.alerts import GAP_S, Alerts
from gpcore.conditions import Condition
from gpcore.control import Rules, State, Transition
from gpcore.events import Event, Stale, Ticked
from gpcore.pools import Snapshot
from gpcore.testing.settled import settled_state

FINE = settled_state(Rules(), Snapshot())
STALE = FINE.but(stale=True)


@attrs.define
class Heard:
    """What was handed on, and a clock."""

    now: float = 1_000.0
    said: list[tuple[str, bool]] = attrs.field(factory=list)
    lacking: tuple[Condition, ...] = ()
    alerts: Alerts = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.alerts = Alerts(
            lacking=lambda: self.lacking,
            notify=lambda one, over: self.said.append((one.kind, over)),
            clock=lambda: self.now,
        )

    def at(self, state: State, event: Event | None = None, *, later: float = 1.0) -> None:
        self.now += later
        self.alerts.hear(event or Ticked(self.now), Transition(state))


def test_a_condition_is_told_once_when_it_begins_and_once_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    heard = Heard()
    for state in (FINE, STALE, STALE, STALE, FINE, FINE):
        heard.at(state)
    assert heard.said == [("view_stale", False), ("view_stale", True)]
    begun, over = caplog.records
    assert (begun.levelname, begun.message.partition(":")[0]) == ("WARNING", "view_stale")
    assert (over.levelname, over.message) == ("INFO", "view_stale: over after 3 s")


def test_what_comes_and_goes_within_a_tick_is_not_told() -> None:
    heard = Heard()
    heard.at(STALE, Stale())
    heard.at(FINE)
    assert heard.said == []


def test_what_comes_back_is_told_again_after_a_while_if_it_is_still_there() -> None:
    heard = Heard()
    for number in range(int(GAP_S) - 1):
        heard.at((STALE, FINE)[number % 2])
    assert heard.said == [("view_stale", False), ("view_stale", True)]
    for _ in range(3):
        heard.at(STALE)
    assert heard.said == [("view_stale", False), ("view_stale", True), ("view_stale", False)]


def test_what_it_runs_without_is_told_too_and_each_kind_once() -> None:
    heard = Heard(lacking=(Condition("watch_forbidden", "one"), Condition("watch_forbidden", "two")))
    heard.at(FINE)
    heard.lacking = heard.lacking[1:]
    heard.at(FINE)
    heard.lacking = ()
    heard.at(FINE)
    assert heard.said == [("watch_forbidden", False), ("watch_forbidden", True)]


def test_of_several_planners_the_one_that_decides_speaks(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    following = STALE.but(leading=False)
    heard.at(following)
    heard.at(following.but(stale=False))
    assert heard.said == []
    assert "view_stale" in caplog.text
