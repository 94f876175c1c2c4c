"""The record of what was done to the cluster: one line of JSON for each operation that ended.

Rules of this file: a line is whole or not there, and nothing that a caller sent can end it or move a cursor. An
operation is told as kept when its line cannot be lost any more; before that the ledger keeps it, and tells it again.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from gpcore.errors import ConfigError, PortError
from gpcore.ledger import Ended

REMEMBERED = 4_096
"""How many operations are remembered as kept; the ledger itself remembers fewer, so none is ever kept twice."""

Write = Callable[[bytes], None]
"""Keeps whole lines, or raises OSError."""


class JsonLines:
    """Implements `gpcore.ports.Auditor`: each operation is one line for *write*, which runs in a thread.

    A line that could not be kept is kept when it is told again. Then there may be half a line before it, or the whole
    of it twice where only its way to the disk had failed; the id tells.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._writing = asyncio.Lock()
        self._waiting: dict[str, bytes] = {}
        self._kept: dict[str, None] = {}
        self._broken = False

    async def tell(self, ended: Ended) -> None:
        """Keep *ended*; see the port. Those that are told while lines are being written share the next write."""
        if ended.id in self._kept:
            return
        self._waiting[ended.id] = line(ended)
        async with self._writing:
            if ended.id in self._kept:
                return
            batch = dict(self._waiting)
            try:
                await asyncio.to_thread(self._write, b"\n" * self._broken + b"".join(batch.values()))
            except OSError as fault:
                self._broken = True
                self._waiting.pop(ended.id, None)
                raise PortError(f"the audit log cannot be written: {fault}") from fault
            self._broken = False
            self._keep(batch)

    def _keep(self, batch: dict[str, bytes]) -> None:
        for key in batch:
            self._waiting.pop(key, None)
            self._kept[key] = None
        while len(self._kept) > REMEMBERED:
            del self._kept[next(iter(self._kept))]


def line(ended: Ended) -> bytes:
    """Return the line of one operation: ASCII, without control characters but the one that ends it."""
    record = {
        "kind": "operation",
        "id": ended.id,
        "began_at": _time(ended.began_at),
        "ended_at": _time(ended.ended_at),
        "caller": ended.caller,
        "caller_authenticated": False,  # it is what the request said of itself
        "participant": ended.participant,
        "changes": ended.changes,
        "gpus_before": ended.before,
        "gpus_after": ended.after,
        "status": ended.status,
        "message": ended.message,
    }
    return json.dumps(record).replace("\x7f", "\\u007f").encode() + b"\n"


def appending(path: Path) -> Write:
    """Return what appends to the file *path*, which is made where it is not; ConfigError where that cannot be.

    It is opened anew each time, so that it can be renamed to begin another, and written through to the disk each time:
    the ledger forgets an operation that is told as kept, and no caller waits for it.
    """

    def write(lines: bytes) -> None:
        new = not path.exists()
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _all(file, lines)
            os.fsync(file)
        finally:
            os.close(file)
        if new:
            _name_kept(path.parent)

    try:
        write(b"")
    except OSError as fault:
        raise ConfigError([f"--audit-log: {path} cannot be written: {fault.strerror}"]) from fault
    return write


def printing() -> Write:
    """Return what writes to standard output, whose reader sees to the rest."""
    return lambda lines: _all(sys.__stdout__.fileno() if sys.__stdout__ is not None else 1, lines)


def _all(file: int, lines: bytes) -> None:
    while lines:
        lines = lines[os.write(file, lines) :]


def _name_kept(folder: Path) -> None:
    """Let the name of a new file in *folder* outlive a crash of the machine."""
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _time(wall: float) -> str | None:
    """Return a time for people and programs; None for what is none, whatever somebody wrote into the ledger."""
    try:
        return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None
