"""The bounds on the fleet's GPUs.

Rules of this file: `Budget` owns the bounds, so nobody else compares against them; "no ceiling" is None.
"""

import attrs
from attrs.validators import ge, instance_of, optional

from gpcore.errors import InvalidError
from gpcore.pools import Totals


@attrs.frozen
class Budget:
    """Bound the fleet's GPUs: at least *floor*, at most *ceiling* (None: no ceiling)."""

    floor: int = attrs.field(default=0, validator=[instance_of(int), ge(0)])
    ceiling: int | None = attrs.field(default=None, validator=optional([instance_of(int), ge(0)]))

    def __attrs_post_init__(self) -> None:
        if self.ceiling is not None and self.floor > self.ceiling:
            raise InvalidError([f"floor must be at most the ceiling ({self.ceiling}): {self.floor}"])

    @property
    def bounded(self) -> bool:
        """Say whether there is anything to keep to."""
        return self.floor > 0 or self.ceiling is not None

    def excess(self, totals: Totals) -> int:
        """Return the GPUs by which *totals* are above the ceiling, at least 0."""
        return 0 if self.ceiling is None else max(0, totals.charged - self.ceiling)

    def shortfall(self, totals: Totals) -> int:
        """Return the GPUs by which *totals* are below the floor, at least 0."""
        return max(0, self.floor - totals.least)

    def headroom(self, totals: Totals) -> int | None:
        """Return the GPUs that may still be acquired (None: any number); negative above the ceiling."""
        return None if self.ceiling is None else self.ceiling - totals.charged

    def holds(self, totals: Totals, *, tolerance: int = 0) -> bool:
        """Say whether *totals* lie in the band; *tolerance* (GPUs) relaxes the floor only."""
        return not self.excess(totals) and self.shortfall(totals) <= tolerance

    def recovers(self, before: Totals, after: Totals) -> bool:
        """Say whether a change from outside the band moves toward it without passing the far edge."""
        up = self.shortfall(before) > 0 and after.least > before.least and not self.excess(after)
        down = self.excess(before) > 0 and after.charged < before.charged and not self.shortfall(after)
        return up or down
