"""`gpctl planner`, but dying at the points that are armed.

Rules of this file: the same `main`, the same flags. `GP_CRASH_AT` names a folder; a file in it that has the name of a
point is where the first process that comes there kills itself, as hard as the kernel would, and the file is gone.
"""

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from gpadapters.cli import planner
from gpcore.control import step
from gpcore.events import Event
from gpcore.states import State, Transition
from tests.chaos.crashes import arrived, ordered

ARMED = Path(os.environ["GP_CRASH_AT"])


def mortal(state: State, event: Event) -> Transition:
    """Return what `step` makes of *event*, or die."""
    _pass(arrived(state, event))
    transition = step(state, event)
    _pass(ordered(transition.state, event, transition.effects))
    return transition


def _pass(points: Iterable[str]) -> None:
    for point in points:
        try:
            (ARMED / point).unlink()
        except FileNotFoundError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(planner.main(sys.argv[1:], brain=mortal))
