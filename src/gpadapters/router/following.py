"""Following a file: what it says now, and again whenever that changes.

Rules of this file: it needs nothing but the base installation; what cannot be read leaves the last value in place and
is told.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from gpcore.errors import ConfigError, InvalidError

MAX_BYTES = 1 << 20
POLL_S = 1.0

Read = TypeVar("Read")


async def followed(
    path: Path, read: Callable[[bytes], Read], *, every_s: float = POLL_S
) -> AsyncIterator[Read | InvalidError]:
    """Yield what *read* makes of *path*, again whenever its bytes change; what is wrong is yielded as an error.

    The bytes are compared and not the times: a file that is swapped by a symbolic link, as a ConfigMap is, may well
    keep its time.
    """
    before: bytes | None = None
    missing = False
    while True:
        try:
            data = await asyncio.to_thread(_bytes, path)
        except OSError as error:
            if not missing:
                yield ConfigError([f"{path} cannot be read: {error.strerror}"])
            missing = True
        else:
            if data != before or missing:
                yield _tried(read, data)
            before, missing = data, False
        await asyncio.sleep(every_s)


def _tried(read: Callable[[bytes], Read], data: bytes) -> Read | InvalidError:
    try:
        return read(data)
    except InvalidError as error:
        return error


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
