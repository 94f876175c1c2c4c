"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def eventually(found: Callable[[], Found], *, within_s: float = 10.0, every_s: float = 0.01) -> Found:
    """Call *found* until it gives something true, and give that; the TimeoutError tells what it gave last."""
    deadline = time.monotonic() + within_s
    while not (last := found()):
        if time.monotonic() > deadline:
            msg = f"still {last!r} after {within_s} s"
            raise TimeoutError(msg)
        time.sleep(every_s)
    return last
