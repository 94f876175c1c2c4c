"""The ledger and the lease in a file: the promises of any store, for many processes, whatever the disk does."""

import asyncio
import contextlib
import multiprocessing
import resource
import sqlite3
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from gpadapters.sqlite.lease import SqliteLease
from gpadapters.sqlite.ledger import SqliteLedger
from gpadapters.sqlite.slot import Slot
from gpcore.errors import PortError
from gpcore.leases import Lease
from gpcore.ledger import Ledger
from gpcore.ports import Conflicted, Refused, Saved, Unknown
from gpcore.testing.ledger_checks import LEASE_CHECKS, LEDGER_CHECKS, LeaseCheck, LedgerCheck
from tests.core.wire.fleets import adapters, fleet

PROCESSES = 4
ROUNDS = 15


@pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
async def test_the_ledger_in_a_file_keeps_its_promises(check: LedgerCheck, tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def made() -> AsyncIterator[Callable[[], SqliteLedger]]:
        yield lambda: SqliteLedger(tmp_path / "planner.db")

    await check(made)


@pytest.mark.parametrize("check", LEASE_CHECKS, ids=lambda check: check.__name__)
async def test_the_lease_in_a_file_keeps_its_promises(check: LeaseCheck, tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def made() -> AsyncIterator[Callable[[], SqliteLease]]:
        yield lambda: SqliteLease(tmp_path / "planner.db")

    await check(made)


async def test_a_file_holds_ledgers_and_leases_of_several_names_apart(tmp_path: Path) -> None:
    path = tmp_path / "planner.db"
    for epoch, name in enumerate(("a", "b")):
        assert isinstance(await SqliteLedger(path, name=name).save(Ledger(epoch=epoch), expected=None), Saved)
    assert isinstance(await SqliteLease(path).save(Lease("x"), expected=None), Saved)
    for epoch, name in enumerate(("a", "b")):
        found = await SqliteLedger(path, name=name).load()
        assert found is not None
        assert found.ledger.epoch == epoch


async def test_a_large_ledger_is_written_and_read_with_its_size(tmp_path: Path) -> None:
    store, ledger = SqliteLedger(tmp_path / "planner.db"), fleet(1_000, adapters)
    saved = await store.save(ledger, expected=None)
    found = await store.load()
    assert isinstance(saved, Saved)
    assert found is not None
    assert found.ledger == ledger
    assert found.size == saved.size > 30_000


def _count_up(path: Path, result: Connection) -> None:
    """Save as often as it goes, each time over what was loaded, and tell how many were saved."""

    async def saved() -> int:
        store, wins = SqliteLedger(path), 0
        for _ in range(ROUNDS):
            found = await store.load()
            before, version = (Ledger(), None) if found is None else (found.ledger, found.version)
            answer = await store.save(Ledger(epoch=before.epoch + 1), expected=version)
            assert isinstance(answer, Saved | Conflicted), answer
            wins += isinstance(answer, Saved)
        return wins

    result.send(asyncio.run(saved()))


async def test_no_save_of_any_process_is_lost_or_counted_twice(tmp_path: Path) -> None:
    """They begin on a file that is not there yet."""
    path, spawn = tmp_path / "planner.db", multiprocessing.get_context("spawn")
    ends = [spawn.Pipe(duplex=False) for _ in range(PROCESSES)]
    processes = [spawn.Process(target=_count_up, args=(path, end)) for _, end in ends]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    wins = sum(end.recv() for end, _ in ends)
    found = await SqliteLedger(path).load()
    assert found is not None
    assert found.ledger.epoch == wins >= ROUNDS
    for pair in ends:
        for end in pair:
            end.close()


async def test_a_document_that_is_removed_and_made_anew_never_has_a_version_twice(tmp_path: Path) -> None:
    slot = Slot(tmp_path / "planner.db", "x")
    first = await slot.save("a", expected=None)
    (tmp_path / "planner.db").unlink()
    second = await slot.save("b", expected=None)
    assert isinstance(first, Saved)
    assert isinstance(second, Saved)
    assert first.version != second.version
    assert await slot.save("c", expected=first.version) == Conflicted()


class TestFaults:
    async def test_a_folder_that_is_not_there_is_told_by_its_file(self, tmp_path: Path) -> None:
        store = SqliteLedger(tmp_path / "nowhere" / "planner.db")
        with pytest.raises(PortError, match=r"ledger in .*nowhere/planner.db cannot be read: unable to open"):
            await store.load()
        answer = await store.save(Ledger(), expected=None)
        assert isinstance(answer, Refused)
        assert "planner.db cannot be written: unable to open" in answer.detail

    async def test_a_file_that_is_no_database_is_left_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "planner.db"
        path.write_text("something else, and long enough to be read as a header of a database file " * 20)
        before = path.read_bytes()
        with pytest.raises(PortError, match="file is not a database"):
            await SqliteLedger(path).load()
        assert isinstance(await SqliteLedger(path).save(Ledger(), expected=None), Refused)
        assert path.read_bytes() == before

    @pytest.mark.parametrize("body", ["{", "[]", '{"schema": "9.0"}', '{"holder": 5}', '{"nobody": 1}'])
    async def test_what_is_no_ledger_or_lease_is_not_believed(self, body: str, tmp_path: Path) -> None:
        path = tmp_path / "planner.db"
        for name in ("ledger", "lease/default"):
            await Slot(path, name).save(body, expected=None)
        with pytest.raises(PortError, match=r"ledger in .* cannot be read"):
            await SqliteLedger(path).load()
        with pytest.raises(PortError, match=r"lease/default in .* cannot be read"):
            await SqliteLease(path).load()

    async def test_while_somebody_else_writes_a_save_waits(self, tmp_path: Path) -> None:
        path = tmp_path / "planner.db"
        saved = await SqliteLedger(path).save(Ledger(), expected=None)
        assert isinstance(saved, Saved)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            saving = asyncio.create_task(SqliteLedger(path).save(Ledger(epoch=1), expected=saved.version))
            await asyncio.sleep(0.1)
            assert not saving.done()
            other.execute("ROLLBACK")
            assert isinstance(await saving, Saved)

    async def test_a_save_that_waits_in_vain_has_not_landed_and_says_so(self, tmp_path: Path) -> None:
        path = tmp_path / "planner.db"
        slot = Slot(path, "x", busy_s=0.05)
        saved = await slot.save("a", expected=None)
        assert isinstance(saved, Saved)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = await slot.save("b", expected=saved.version)
        assert isinstance(answer, Refused)
        assert "database is locked" in answer.detail
        assert await slot.load(lambda body, _: body) == "a"

    async def test_when_the_disk_is_full_nobody_knows_and_what_was_there_stays(self, tmp_path: Path) -> None:
        path, spawn = tmp_path / "planner.db", multiprocessing.get_context("spawn")
        saved = await Slot(path, "x").save("a", expected=None)
        assert isinstance(saved, Saved)
        ours, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_save_too_much, args=(path, saved.version, theirs))
        process.start()
        process.join()
        assert isinstance(ours.recv(), Unknown)
        assert await Slot(path, "x").load(lambda body, version: (body, version)) == ("a", saved.version)
        ours.close()
        theirs.close()


def _save_too_much(path: Path, expected: str, result: Connection) -> None:
    """Save more than this process may write into a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    result.send(asyncio.run(Slot(path, "x").save("b" * 1_000_000, expected=expected)))


async def test_a_ledger_and_a_lease_of_one_name_are_two_documents_of_one_file(tmp_path: Path) -> None:
    ledger, lease = SqliteLedger(tmp_path / "file", name="a"), SqliteLease(tmp_path / "file", name="a")
    assert isinstance(await lease.save(Lease("x"), expected=None), Saved)
    assert await ledger.load() is None
