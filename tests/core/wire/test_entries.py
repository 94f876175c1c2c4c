"""Entries of a ledger as lines: short, complete, and made anew only where something changed."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.errors import InvalidError
from gpcore.fences import Fence
from gpcore.indexes import Index
from gpcore.ledger import Entry, Held, Ledger, ObjectKey, Reservation
from gpcore.pools import ParticipantId, Role
from gpcore.testing.strategies import ledgers
from gpcore.wire.entries import Lines, plain, read_lines, unplain

A = Entry(
    ObjectKey(ParticipantId("ns", "llama-0"), "deployment/llama-0"),
    "fa",
    (Held(Role.DECODE, 2, None), Held(Role.PREFILL, 4, 8)),
)
B = attrs.evolve(
    A,
    key=ObjectKey(ParticipantId("ns", "llama-1"), "deployment/llama-1"),
    fence="fb",
    reservation=Reservation(Fence("fb", "new", "kill"), "op 1", ((Role.PREFILL, 3),)),
)
C = attrs.evolve(A, key=ObjectKey(ParticipantId("ns", "llama-0"), "adapter/llama-0-w"), fence="")


def index(*entries: Entry) -> Index[ObjectKey, Entry]:
    return Index((entry.key, entry) for entry in entries)


def problems(*lines: str) -> list[str]:
    found = [one for one in read_lines(lines) if isinstance(one, InvalidError)]
    return [problem for error in found for problem in error.problems]


class TestLines:
    def test_a_line_says_the_object_its_fence_and_its_pools_and_shares_the_name_with_the_line_before(self) -> None:
        assert Lines().of(index(A, B, C)) == [
            "0+adapter/~-w/ns/llama-0  d2p4x8",
            "0+deployment/~/ns/llama-0 fa d2p4x8",
            "22+1 fb d2p4x8 = new kill op%201 p3",
        ]

    @given(ledgers())
    def test_what_is_written_is_read_back(self, ledger: Ledger) -> None:
        assert index(*list(read_lines(Lines().of(ledger.entries)))) == ledger.entries  # type: ignore[arg-type]

    @given(st.lists(ledgers(), min_size=1, max_size=4))
    def test_what_was_written_before_makes_no_difference(self, history: list[Ledger]) -> None:
        lines = Lines()
        for ledger in history:
            assert lines.of(ledger.entries) == Lines().of(ledger.entries)

    @given(ledgers(), st.data())
    def test_nor_does_it_when_a_single_entry_comes_changes_or_goes(self, ledger: Ledger, data: st.DataObject) -> None:
        lines, entries = Lines(), ledger.entries
        lines.of(entries)
        for entry in data.draw(st.permutations([A, B, C])):
            for change in (entry, attrs.evolve(entry, held=()), None):
                entries = entries.replaced({entry.key: change})
                assert lines.of(entries) == Lines().of(entries)
                entries = entries.put(entry.key, entry)

    @pytest.mark.parametrize("fence", ["", "=", "fb"])
    @pytest.mark.parametrize("old", ["", "=", "fb", "other"])
    def test_the_fence_that_a_reservation_needs_is_said_once(self, fence: str, old: str) -> None:
        one = attrs.evolve(B, fence=fence, reservation=Reservation(Fence(old, "new", "kill")))
        (line,) = Lines().of(index(one))
        assert list(read_lines([line])) == [one]
        assert line.count("fb") == (fence == "fb" or old == "fb")

    def test_lines_that_were_given_away_stay_as_they_were(self) -> None:
        lines = Lines()
        given = lines.of(index(A))
        lines.of(index(B))
        assert given == ["0+deployment/~/ns/llama-0 fa d2p4x8"]


class TestNames:
    @given(st.text(st.characters(codec="utf-8")))
    def test_any_text_is_written_in_plain_characters_and_read_back(self, text: str) -> None:
        written = plain(text)
        assert not set(written) - set(map(chr, range(0x21, 0x7E)))
        assert not set(written) & set("+=~ ")
        assert unplain(written) == text

    @pytest.mark.parametrize("text", ["%", "%2", "a%zz", "%80", "%2g", "%%20"])
    def test_what_cannot_have_been_written_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidError):
            unplain(text)


class TestHostileLines:
    @pytest.mark.parametrize(
        ("rest", "problem"),
        [
            ("f", "must have 3 or 8 fields: 2"),
            ("f p1x1 a b", "must have 3 or 8 fields: 5"),
            ("f p-1x1", "must be pools as 'p4x8': \"p-1x1\""),
            ("f p1x-1", "must be pools as 'p4x8'"),
            ("f q1", "must be pools as 'p4x8'"),
            ("f p\u0661", "must be pools as 'p4x8'"),
            ("f p1p2", "has two pools of one role"),
            ("f p9223372036854775808", "a pool has at most 9223372036854775807 replicas of 1000000 GPUs"),
            ("f p1x1000001", "a pool has at most 9223372036854775807 replicas of 1000000 GPUs"),
            ("f% p1", "'%' must begin two digits"),
            ("f p1 f  kill op p2", "a reservation needs three fences, none like another"),
            ("f p1 f new  op p2", "a reservation needs three fences, none like another"),
            ("f p1 = f kill op p2", "a reservation needs three fences, none like another"),
            ("f p1 f new f op p2", "a reservation needs three fences, none like another"),
            ("f p1 f new kill op d2", "reserves for pools that it does not hold: decode"),
            ("f p1 f new kill op ", 'reserves 0 pools for operation "op"'),
            ("f p1 f new kill  p2", "reserves 1 pools for none"),
            ("f p1 f new kill op p-2", "must be pools as 'p4x8': \"p-2\""),
        ],
    )
    def test_a_line_that_cannot_be_says_why_and_of_which_object(self, rest: str, problem: str) -> None:
        (found, *_) = problems(f"0+deployment/~/ns/a {rest}")
        assert found.startswith('"deployment/~/ns/a": ')
        assert problem in found

    def test_every_problem_of_a_line_is_told_at_once(self) -> None:
        assert len(problems("0+deployment/~/NS/a%2 f q1 old  kill op ")) == 5

    @pytest.mark.parametrize("name", ["deployment", "a/b", "x/ns/A", "x/NS/a", "x//", "/ns/a%2"])
    def test_an_object_must_be_named(self, name: str) -> None:
        assert problems(f"0+{name} f p1")

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("", "must begin with a number and '+'"),
            ("deployment/~/ns/a f p1", "must begin with a number and '+'"),
            ("+deployment/~/ns/a f p1", "must begin with a number and '+'"),
            ("-1+deployment/~/ns/a f p1", "must begin with a number and '+'"),
            ("\u0661+deployment/~/ns/a f p1", "must begin with a number and '+'"),
            ("00001+deployment/~/ns/a f p1", "must begin with a number and '+'"),
            ("1+deployment/~/ns/a f p1", "must share at most 0 characters with the line before"),
        ],
    )
    def test_a_name_is_shared_with_a_line_that_is_there(self, line: str, problem: str) -> None:
        (found,) = problems(line)
        assert problem in found

    def test_a_line_that_is_refused_does_not_hide_the_next(self) -> None:
        lines = ["0+deployment/~/ns/llama-0 q q q", *Lines().of(index(A, B))[1:]]
        assert [type(one) for one in read_lines(lines)] == [InvalidError, Entry]
