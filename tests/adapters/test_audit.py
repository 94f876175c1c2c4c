"""One line for each operation that ended: whole, once, and on the disk before it counts as kept."""

import asyncio
import json
import threading
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpadapters.audit import REMEMBERED, JsonLines, appending, line, printing
from gpcore.errors import ConfigError, PortError
from gpcore.ledger import Ended

ENDED = Ended(
    "d-1", 1_700_000_000.0, 1_700_000_001.25, "success", "", "ns-a", "ns/a", "ns/a/prefill 2 to 3: done (- to 1)", 4, 5
)


def named(key: str) -> Ended:
    return attrs.evolve(ENDED, id=key)


@attrs.define
class Disk:
    """What was written, one entry a write; a fault that is told to the next one; *going*: it may write."""

    writes: list[bytes] = attrs.field(factory=list)
    faults: list[OSError] = attrs.field(factory=list)
    going: threading.Event = attrs.field(factory=threading.Event)

    def __attrs_post_init__(self) -> None:
        self.going.set()

    def write(self, lines: bytes) -> None:
        assert self.going.wait(10)
        self.writes.append(lines)
        if self.faults:
            raise self.faults.pop()

    @property
    def ids(self) -> list[str]:
        return [json.loads(one)["id"] for one in b"".join(self.writes).splitlines() if one]


@given(st.builds(Ended, st.text(), st.floats(), st.floats(), *[st.text()] * 5, before=st.integers(0)))
def test_whatever_an_operation_says_it_is_one_line_of_plain_characters(ended: Ended) -> None:
    written = line(ended)
    assert written.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in written[:-1])
    read = json.loads(written)
    assert (read["id"], read["message"], read["caller"]) == (ended.id, ended.message, ended.caller)


def test_a_line_says_who_asked_for_what_and_what_came_of_it() -> None:
    assert json.loads(line(ENDED)) == {
        "kind": "operation",
        "id": "d-1",
        "began_at": "2023-11-14T22:13:20.000Z",
        "ended_at": "2023-11-14T22:13:21.250Z",
        "caller": "ns-a",
        "caller_authenticated": False,
        "participant": "ns/a",
        "changes": "ns/a/prefill 2 to 3: done (- to 1)",
        "gpus_before": 4,
        "gpus_after": 5,
        "status": "success",
        "message": "",
    }


async def test_an_operation_that_is_told_again_is_written_once() -> None:
    disk = Disk()
    auditor = JsonLines(disk.write)
    await auditor.tell(ENDED)
    await auditor.tell(attrs.evolve(ENDED, message="told by another"))
    await asyncio.gather(auditor.tell(named("d-2")), auditor.tell(named("d-2")))
    assert disk.ids == ["d-1", "d-2"]


async def test_those_that_end_while_lines_are_written_share_the_next_write() -> None:
    disk = Disk()
    auditor = JsonLines(disk.write)
    disk.going.clear()
    telling = [asyncio.create_task(auditor.tell(named(str(number)))) for number in range(64)]
    await asyncio.sleep(0)
    disk.going.set()
    await asyncio.gather(*telling)
    assert sorted(disk.ids) == sorted(str(number) for number in range(64))
    assert len(disk.writes) <= 2


async def test_what_could_not_be_written_is_not_kept_and_is_written_when_it_is_told_again() -> None:
    disk = Disk(faults=[OSError(28, "No space left on device")])
    auditor = JsonLines(disk.write)
    with pytest.raises(PortError, match=r"the audit log cannot be written: .*No space left"):
        await auditor.tell(ENDED)
    await auditor.tell(ENDED)
    assert disk.writes == [line(ENDED), b"\n" + line(ENDED)]  # whatever was left of the first is a line of its own


async def test_one_that_shared_a_write_that_failed_is_written_all_the_same() -> None:
    disk = Disk(faults=[OSError(5, "Input/output error")])
    auditor = JsonLines(disk.write)
    disk.going.clear()
    telling = [asyncio.create_task(auditor.tell(named(key))) for key in ("d-1", "d-2")]
    await asyncio.sleep(0)
    disk.going.set()
    first, second = await asyncio.gather(*telling, return_exceptions=True)
    assert (type(first), second) == (PortError, None)
    assert disk.ids[-1] == "d-2"


async def test_only_so_many_are_remembered() -> None:
    disk = Disk()
    auditor = JsonLines(disk.write)
    await asyncio.gather(*[auditor.tell(named(str(number))) for number in range(REMEMBERED)])
    await auditor.tell(named("one more"))
    await auditor.tell(named("1"))
    assert len(disk.ids) == REMEMBERED + 1
    await auditor.tell(named("0"))
    assert len(disk.ids) == REMEMBERED + 2


async def test_a_file_is_appended_to_and_may_be_renamed_and_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"before\n")
    auditor = JsonLines(appending(path))
    await auditor.tell(ENDED)
    path.rename(tmp_path / "yesterday")
    await auditor.tell(named("d-2"))
    assert (tmp_path / "yesterday").read_bytes() == b"before\n" + line(ENDED)
    assert path.read_bytes() == line(named("d-2"))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--audit-log: .* cannot be written: No such file or directory"):
        appending(tmp_path / "none" / "audit.jsonl")


async def test_standard_output_gets_the_line_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    await JsonLines(printing()).tell(ENDED)
    assert capfd.readouterr().out.encode() == line(ENDED)
