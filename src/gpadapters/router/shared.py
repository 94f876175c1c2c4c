"""What all requests share, as one of them sees it.

Rules of this file: a Protocol only; `service` is what it is in production.
"""

from collections.abc import Callable
from typing import Protocol

from gpadapters.router.asking import Wish
from gpadapters.router.choose import Way
from gpadapters.router.client import Request
from gpadapters.router.fleet import Pool, RetryBudget
from gpadapters.router.measures import RouterMeasures
from gpadapters.router.refusals import Refusal
from gpadapters.router.settings import Settings
from gpadapters.router.twice import Connections


class Parked(Protocol):
    """A request that waits for a replica."""

    def choose(self) -> None:
        """Choose again: the pools have changed."""


class Shared(Connections, Protocol):
    """What all requests share."""

    settings: Settings
    measures: RouterMeasures
    budget: RetryBudget
    plain_wish: Wish
    parked: dict[Parked, None]
    closing: bool
    held_bytes: int
    tells: bool
    clock: Callable[[], float]

    def park(self, waiting: Parked) -> bool:
        """Let it wait for a replica, if there is room."""
        ...

    def unpark(self, waiting: Parked) -> None:
        """Let it wait no longer."""

    def refused(self, refusal: Refusal) -> None:
        """Count an answer of the router itself."""

    def learn(
        self, request: Request, way: Way, wish: Wish, *, pool: Pool, tokens: tuple[int | None, int | None]
    ) -> None:
        """Count and learn from the tokens of an answer."""

    def tell(self, request: Request, way: Way, what: str) -> None:
        """Log a request."""
