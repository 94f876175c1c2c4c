"""The table of faults in docs/ names tests that exist, and every fault is in it."""

import re
from pathlib import Path

import pytest

from tests.chaos import test_crash_points as crash_points
from tests.simulation import swarm

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "fault-matrix.md"
FAULTS = 58

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if re.match(r"\| \d+ \|", line)
]
CASES = {str(row) for row in crash_points.ROWS}
NAMED = sorted({name for row in ROWS for name in re.findall(r"`([^`]+::[^`]+)`", row[-1])})


def test_every_fault_has_its_row() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, FAULTS + 1))
    assert all(len(row) == 4 and all(row) for row in ROWS)


def test_every_knob_that_is_named_is_one_of_the_simulation() -> None:
    knobs = {name for row in ROWS for name in re.findall(r"knob `([^`]+)`", row[-1])}
    assert knobs <= {*swarm.FAULTS, *swarm.LEASES}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_said_to_show_it_exists(name: str) -> None:
    file, _, test = name.partition("::")
    function, _, case = test.rstrip("]").partition("[")
    assert re.search(rf"^ *(async )?def {re.escape(function)}\(", (TESTS / file).read_text(), re.MULTILINE), name
    assert not case or case in CASES, f"there is no case {case}"
