"""What can happen to a request on its way, and the weather that says what does.

Rules of this file: values and pure functions. Chance comes from a seed and from nothing else.
"""

import random
from collections.abc import Mapping
from urllib.parse import urlsplit

import attrs


@attrs.frozen
class Fault:
    """What happens to one exchange, in this order.

    The sender's connection is *cut* at once. The request waits *before_s* seconds, and if it is *overtaken* until
    another write was answered. It is sent on *copies* times. The first answer waits *after_s* seconds and goes back,
    unless it is *lost*: then the connection is cut instead, or where it is *silent* left open until its sender gives
    up. A stream is cut after *stream_s* seconds, in the middle of a line.
    """

    name: str = "none"
    cut: bool = False
    before_s: float = 0.0
    overtaken: bool = False
    copies: int = 1
    after_s: float = 0.0
    lost: bool = False
    silent: bool = False
    stream_s: float | None = None


def delayed(seconds: float, *, answer: bool = False) -> Fault:
    """Let the request, or its *answer*, take so much longer."""
    return Fault("answer delayed", after_s=seconds) if answer else Fault("delayed", before_s=seconds)


def late(seconds: float) -> Fault:
    """Cut the connection at once, and send the request on when its sender has long given up."""
    return Fault("late", cut=True, before_s=seconds)


def dropped(*, silent: bool = False) -> Fault:
    """Lose the request: the API server never hears of it."""
    return Fault("dropped", copies=0, lost=True, silent=silent)


def unanswered(*, silent: bool = False) -> Fault:
    """Lose the answer: the API server has done what was asked."""
    return Fault("unanswered", lost=True, silent=silent)


def doubled(*, lost: bool = False) -> Fault:
    """Send the request twice, at the same time."""
    return Fault("doubled, unanswered" if lost else "doubled", copies=2, lost=lost)


def reordered() -> Fault:
    """Let another write overtake this one."""
    return Fault("reordered", overtaken=True)


def cut_after(seconds: float) -> Fault:
    """End a stream in the middle of a line after so many seconds."""
    return Fault("cut", stream_s=seconds)


def watches(method: str, path: str) -> bool:
    """Say whether a request is a watch, whose answer is a stream."""
    return method == "GET" and "watch=" in urlsplit(path).query


@attrs.frozen
class Weather:
    """Draw what a request meets: each fault with its odds, of *writes*, *reads* and *watches*.

    The same *seed* gives the n-th request of one method and path the same fault, whatever else is going on.
    """

    seed: int
    writes: Mapping[Fault, float] = attrs.field(factory=dict)
    reads: Mapping[Fault, float] = attrs.field(factory=dict)
    watches: Mapping[Fault, float] = attrs.field(factory=dict)

    def fault(self, method: str, path: str, count: int) -> Fault:
        """Return what the request number *count* of this *method* and *path* meets."""
        odds = self.watches if watches(method, path) else self.reads if method == "GET" else self.writes
        drawn = random.Random(f"{self.seed} {method} {urlsplit(path).path} {count}").random()  # noqa: S311 - drawn again
        for fault, share in odds.items():
            if drawn < share:
                return fault
            drawn -= share
        return Fault()


def storm(seed: int, *, share: float = 0.2, patience_s: float = 1.0) -> Weather:
    """Return weather in which *share* of all writes meets a fault, and of the reads half as many.

    A third of the watches is cut after *patience_s* seconds; what is late is that late.
    """
    short_s = patience_s / 10
    reads = [delayed(short_s), delayed(short_s, answer=True), dropped(), unanswered()]
    writes = [*reads, late(patience_s), doubled(), doubled(lost=True), reordered()]
    return Weather(
        seed,
        writes=dict.fromkeys(writes, share / len(writes)),
        reads=dict.fromkeys(reads, share / 2 / len(reads)),
        watches={cut_after(patience_s): 1 / 3},
    )
