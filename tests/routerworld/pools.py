"""Pools as processes."""

import json
import sys
from pathlib import Path
from typing import Any, Self

from tests.cluster.processes import Leashed
from tests.cluster.waiting import eventually

_PROGRAM = Path(__file__).with_name("behave.py")


class FakePool:
    """One server of a pool, in a manner that can be changed."""

    def __init__(self, name: str, folder: Path, manner: str = "json") -> None:
        """Start it and wait until it listens."""
        self.name = name
        self._log = folder / f"{name}-{len(list(folder.iterdir()))}.jsonl"
        self._process = Leashed(name, [sys.executable, str(_PROGRAM), manner], log=self._log)
        self._process.start()
        self.port = int(eventually(lambda: self.told("port"))[0])

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def told(self, what: str) -> list[Any]:
        """Return everything of one kind that it told so far."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [told[what] for line in lines if line.startswith("{") and what in (told := _loads(line))]

    @property
    def requests(self) -> list[str]:
        """Return the heads of the requests that reached it."""
        return self.told("request")

    def behave(self, manner: str) -> None:
        """Take another manner, for the requests from now on."""
        before = len(self.told("manner"))
        self._process.tell(manner)
        eventually(lambda: len(self.told("manner")) > before)

    def pause(self) -> None:
        """Stop it in its tracks."""
        self._process.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._process.resume()

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def __enter__(self) -> Self:
        """Give it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.kill()


def _loads(line: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:  # half a line: it is still being written
        return {}
    return found
