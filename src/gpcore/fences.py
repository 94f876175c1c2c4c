"""The marks that let one write through, once.

Rules of this file: a fence is never used twice, and never guessed: each is made of a *seed* of at least 128 random
bits, which whoever starts a planner brings, and of how many were made of it before. The seed is another in each
life of a planner, so a ledger that is restored from a backup meets no fence that it knows.
"""

from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import NamedTuple

import attrs

_BYTES = 16


class Fence(NamedTuple):
    """Let one write through, once: it needs *old* on its object and leaves *new* there.

    Whoever puts *kill* in the place of *old* has made sure that the write can never land.
    """

    old: str
    new: str
    kill: str


@attrs.frozen
class Mint:
    """Make fences of *seed*, after those that were *made* of it."""

    seed: str = ""
    made: int = 0

    def fence(self, old: str) -> tuple[Fence, "Mint"]:
        """Return a fence for an object that shows *old*, and the mint that makes the next one."""
        new, kill = [self._mark(self.made + at) for at in range(2)]
        return Fence(old, new, kill), Mint(self.seed, self.made + 2)

    def _mark(self, number: int) -> str:
        digest = blake2b(f"{self.seed}/{number}".encode(), digest_size=_BYTES).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()
