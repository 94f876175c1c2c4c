"""Values of named numbers and texts: every field is written that says something, and read as what it may be."""

import attrs
import pytest

from gpcore.errors import InvalidError
from gpcore.pools import ParticipantId, PoolKey, Role
from gpcore.wire.documents import Extras, Reading
from gpcore.wire.flat import flat_document, pool_text, read_flat, read_pool

POOL = PoolKey(ParticipantId("ns", "a"), Role.DECODE)


@attrs.frozen
class Flat:
    """One field of each sort."""

    name: str
    at: float
    count: int = 0
    told: bool = False
    note: str | None = None
    pools: tuple[PoolKey, ...] = ()


FULL = Flat("a", 1.5, -3, told=True, note="", pools=(POOL,))


def read(document: object) -> Flat | None:
    reading = Reading(Extras.IGNORED)
    found = read_flat(reading.root(document), Flat)
    reading.finish()
    return found


@pytest.mark.parametrize("value", [FULL, Flat("", 0.0)])
def test_what_is_written_is_read_back(value: Flat) -> None:
    assert read(flat_document(value)) == value


def test_what_is_as_by_default_is_left_out() -> None:
    assert flat_document(Flat("a", 0.0)) == {"name": "a", "at": 0.0}
    assert flat_document(FULL)["pools"] == ["ns/a/decode"]


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(InvalidError) as refused:
        read({"at": -1, "count": True, "told": 1, "note": 5, "pools": ["ns/a", "ns/a/none", "x"]})
    assert refused.value.problems == (
        "$: name is missing",
        "$.at: must be at least 0: -1",
        "$.count: must be an integer: true",
        "$.told: must be true or false: 1",
        "$.note: must be a string: 5",
        '$.pools[0]: a pool is written namespace/name/role: "ns/a"',
        '$.pools[1]: a pool is written namespace/name/role: "ns/a/none"',
        '$.pools[2]: a pool is written namespace/name/role: "x"',
    )


def test_a_pool_is_named_by_its_deployment_and_role() -> None:
    assert read_pool(pool_text(POOL)) == POOL
    with pytest.raises(InvalidError, match="RFC 1123"):
        read_pool("NS/a/decode")
