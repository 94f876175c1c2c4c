"""What every question prints: a table, and verdicts on ratios."""

import statistics
from collections.abc import Iterable, Sequence

import attrs

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


@attrs.frozen
class Times:
    """Hold the seconds that the repetitions of one thing took."""

    seconds: tuple[float, ...] = ()

    def __add__(self, other: "Times") -> "Times":
        return Times(self.seconds + other.seconds)

    def __str__(self) -> str:
        if not self.seconds:
            return "-"
        return f"{shown(self.median)} ({shown(min(self.seconds))} - {shown(max(self.seconds))})"

    @property
    def median(self) -> float:
        """Return the median in seconds."""
        return statistics.median(self.seconds)


def shown(seconds: float) -> str:
    """Return *seconds* in the unit that people would use, with three digits.

    >>> shown(0.000_043_21)
    '43.2 us'
    """
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), _UNITS[-1])
    value = seconds / size
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}" if value >= 1 else f"{value:.2f} {unit}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print *rows* under *head*; the first column to the left, the others to the right."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for at, row in enumerate(cells):
        first, *others = row
        padded = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print("  ".join(padded).rstrip(), flush=True)
        if at == 0:
            print("-" * (sum(widths) + 2 * len(widths) - 2))


def verdict(claim: str, *, holds: bool, found: str) -> None:
    """Print whether *claim* holds, and the numbers that were *found*."""
    print(f"{'met   ' if holds else 'MISSED'}  {claim}: {found}", flush=True)
