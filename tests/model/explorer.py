"""Every state of a small model, the nearest first, so that the first breach found has the shortest history.

Rules of this file: it knows nothing of what is modelled. Two states that are equal are one.
"""

from collections import deque
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

import attrs

S = TypeVar("S")

Move = tuple[str | int, ...]
"""What happened, for people: the name of a rule and its numbers."""


class Model(Protocol[S]):
    """A beginning, what can happen next, and what must never be seen."""

    @property
    def start(self) -> S:
        """Return the state in which everything begins."""
        ...

    def moves(self, state: S) -> Iterable[tuple[Move, S]]:
        """Yield everything that can happen in *state*, and what comes of it."""
        ...

    def breach(self, state: S) -> str | None:
        """Return which promise is broken in *state*, or None where none is."""
        ...

    def unrest(self, state: S) -> int:
        """Return how far *state* is from rest; 0: nothing is under way."""
        ...


@attrs.frozen
class Explored(Generic[S]):
    """What was found: *states* and *moves* are counts, *breach* the promise that the last state of *trace* breaks.

    *stuck* is a state from which nothing that can happen leads nearer to rest.
    """

    states: int
    moves: int
    breach: str | None = None
    trace: tuple[tuple[Move, S], ...] = ()
    stuck: S | None = None


def explore(model: Model[S], *, most_states: int = 2_000_000) -> Explored[S]:
    """Return what is found when every state of *model* is looked at; the search ends at the first breach.

    Raise OverflowError beyond *most_states*: a search that was cut short proves nothing.
    """
    came_from: dict[S, tuple[S, Move] | None] = {model.start: None}
    waiting = deque([model.start])
    moves = 0
    stuck: S | None = None
    while waiting:
        state = waiting.popleft()
        unrest = model.unrest(state)
        calmer = unrest == 0
        for move, after in model.moves(state):
            moves += 1
            calmer = calmer or model.unrest(after) < unrest
            if after in came_from:
                continue
            came_from[after] = (state, move)
            if (breach := model.breach(after)) is not None:
                return Explored(len(came_from), moves, breach, _history(came_from, after), stuck)
            if len(came_from) > most_states:
                raise OverflowError(f"more than {most_states} states")
            waiting.append(after)
        if not calmer and stuck is None:
            stuck = state
    return Explored(len(came_from), moves, stuck=stuck)


def _history(came_from: dict[S, tuple[S, Move] | None], state: S) -> tuple[tuple[Move, S], ...]:
    history: list[tuple[Move, S]] = []
    while (origin := came_from[state]) is not None:
        history.append((origin[1], state))
        state = origin[0]
    return tuple(reversed(history))
