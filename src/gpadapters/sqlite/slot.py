"""A document in a database file that is read whole and replaced by compare-and-swap.

Rules of this file: each call opens the file for itself and runs in a thread, so any number of processes may use one
file, one may be killed at any point, and the event loop waits for no disk. What was committed survives the machine.
"""

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import attrs

from gpcore.errors import PortError
from gpcore.ports import Conflicted, Refused, Saved, Saving, Unknown

T = TypeVar("T")

_TABLE = """
CREATE TABLE IF NOT EXISTS documents (
    name TEXT PRIMARY KEY,
    life TEXT NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID
"""
_READ = "SELECT life, number, body FROM documents WHERE name = ?"
_WRITE = "INSERT OR REPLACE INTO documents (name, life, number, body) VALUES (?, ?, ?, ?)"


@attrs.frozen
class Slot:
    """The document *name* in the database *path*, whose folder must exist.

    A version is a life, random and of a document from its creation on, and a number that grows: a document that is
    removed and made anew never has a version twice.
    """

    path: Path
    name: str
    busy_s: float = 5.0

    def __str__(self) -> str:
        return f"{self.name} in {self.path}"

    async def load(self, read: Callable[[str, str], T]) -> T | None:
        """Return what *read* makes of the document's body and version, or None where there is no document.

        PortError where the file, or what is in it, cannot be read.
        """
        try:
            found = await asyncio.to_thread(self._load)
            return None if found is None else read(found.body, found.version)
        except (sqlite3.Error, ValueError, TypeError) as fault:
            raise PortError(f"{self} cannot be read: {fault}") from fault

    async def save(self, body: str, *, expected: str | None) -> Saving:
        """Write *body* over the version *expected* (None: if there is no document)."""
        try:
            version = await asyncio.to_thread(self._save, body, expected)
        except sqlite3.Error as fault:
            return Refused(f"{self} cannot be written: {fault}")
        except _UncertainError as fault:
            return Unknown(f"{self}: {fault}")
        return Conflicted() if version is None else Saved(version, len(body))

    def _load(self) -> "_Row | None":
        with self._opened() as database:
            return self._found(database)

    def _save(self, body: str, expected: str | None) -> str | None:
        with self._opened() as database:
            database.execute("BEGIN IMMEDIATE")
            found = self._found(database)
            if expected != (None if found is None else found.version):
                return None
            made = _Row(secrets.token_hex(8), 1, body) if found is None else _Row(found.life, found.number + 1, body)
            database.execute(_WRITE, (self.name, made.life, made.number, made.body))
            try:
                database.execute("COMMIT")
            except sqlite3.Error as fault:
                raise _UncertainError(str(fault)) from fault
        return made.version

    def _found(self, database: sqlite3.Connection) -> "_Row | None":
        row = database.execute(_READ, (self.name,)).fetchone()
        return None if row is None else _Row(*row)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=self.busy_s, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(_TABLE)
            yield database


class _UncertainError(Exception):
    """The database failed while a write was being committed, so it may have landed."""


@attrs.frozen
class _Row:
    life: str
    number: int
    body: str

    @property
    def version(self) -> str:
        return f"{self.life}-{self.number}"
