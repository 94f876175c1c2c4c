"""Work that is done in rounds, for callers who each want a round that begins after they ask.

Rules of this file: no I/O. All who ask before a round begins share it; who asks while one is under way waits for the
next.
"""

import asyncio
import contextlib


class Rounds:
    """Let callers wait for a whole round."""

    def __init__(self) -> None:
        self._asking: list[asyncio.Future[None]] = []
        self._sharing: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()

    async def next(self) -> None:
        """Wait for the end of the next round to begin, or until there will be none."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking.append(future)
        self._wake.set()
        await future

    async def wait(self, seconds: float) -> None:
        """Wait until somebody asks, and *seconds* at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def begin(self) -> None:
        """Begin a round for all who have asked."""
        self._sharing += self._asking
        self._asking = []
        self._wake.clear()

    def end(self) -> None:
        """Let those go for whom the round was."""
        sharing, self._sharing = self._sharing, []
        for future in sharing:
            if not future.done():
                future.set_result(None)

    def give_up(self) -> None:
        """Let everybody go: there is no round to wait for."""
        self.begin()
        self.end()
