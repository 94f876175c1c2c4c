"""The ledger as a document: small, believed in whole or not at all, and kept where a later version wrote it."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.errors import InvalidError
from gpcore.fences import Fence
from gpcore.intents import Intent
from gpcore.ledger import Entry, Held, Ledger, Move, ObjectKey, Reservation, believed
from gpcore.pools import MAX_GPUS_PER_REPLICA, MAX_REPLICAS, ParticipantId, PoolKey, Role
from gpcore.requests import MAX_SEQUENCE
from gpcore.testing.strategies import ledgers
from gpcore.wire.documents import dumps, loads
from gpcore.wire.entries import Lines
from gpcore.wire.ledgers import Scribe, ledger, ledger_document
from tests.core.wire.fleets import Naming, adapters, deployments, fleet


def entry(name: str, *, fence: str, reservation: Reservation | None = None) -> Entry:
    key = ObjectKey(ParticipantId("ns", name), f"deployment/{name}")
    return Entry(key, fence, (Held(Role.DECODE, 1, 2), Held(Role.PREFILL, 4, 2)), reservation)


SMALL = attrs.evolve(
    Ledger.of([entry("a", fence="fa"), entry("b", fence="fb")], budget=Budget(4, 64)), complete=True, epoch=7
)
DOCUMENT = ledger_document(SMALL)
FIELDS = (
    "budget epoch complete entries operations wishes repeats sequences freezes moves ended extra "
    "totals pending"  # which are made anew
)


def problems(document: object, *, epoch: int = 0) -> tuple[str, ...]:
    with pytest.raises(InvalidError) as refused:
        ledger(document, epoch=epoch)
    return refused.value.problems


class TestRoundTrips:
    @given(ledgers())
    def test_what_is_written_is_read_back(self, written: Ledger) -> None:
        assert ledger(loads(dumps(ledger_document(written)))) == written

    def test_the_largest_numbers_that_anybody_may_send_or_ask_for_are_read_back(self) -> None:
        """A ledger that is written and cannot be read would stop everything, and for good."""
        pool, most = PoolKey(ParticipantId("ns", "a"), Role.DECODE), 2**63 - 1
        huge = Entry(ObjectKey(pool.participant, "deployment/a"), "f", (Held(Role.DECODE, most, 1),))
        written = attrs.evolve(
            Ledger.of([huge]),
            sequences={"ns-a": MAX_SEQUENCE},
            moves=(Move(pool, 1.7e9, MAX_REPLICAS * MAX_GPUS_PER_REPLICA),),
            wishes=(Intent(pool, MAX_REPLICAS, 1e300),),
        )
        assert ledger(loads(dumps(ledger_document(written)))) == written

    @given(st.lists(ledgers(), min_size=2, max_size=3), st.data())
    def test_what_was_written_before_makes_no_difference(self, drawn: list[Ledger], data: st.DataObject) -> None:
        """Parts of one ledger go on in the next."""
        scribe, names = Scribe(), ("operations", "wishes", "repeats", "sequences", "freezes", "moves", "ended")
        for at, one in enumerate(drawn):
            kept = {name: getattr(drawn[at - 1], name) for name in names if data.draw(st.booleans())}
            mixed = attrs.evolve(one, **kept)
            for _ in range(2):
                assert scribe.document(mixed) == ledger_document(mixed)

    @given(ledgers())
    def test_the_sums_are_made_anew(self, written: Ledger) -> None:
        read = ledger(loads(dumps(ledger_document(written))))
        assert (read.totals, read.pending) == (written.totals, written.pending)

    def test_a_ledger_at_rest_says_little(self) -> None:
        assert DOCUMENT == {
            "schema": "1.0",
            "state": "Active",
            "epoch": 7,
            "ceiling": 64,
            "floor": 4,
            "gpus": 20,
            "entries": ["0+deployment/~/ns/a fa d1x2p4x2", "16+b fb d1x2p4x2"],
        }

    def test_what_a_later_version_has_written_is_kept(self) -> None:
        later = DOCUMENT | {"schema": "1.3", "surge": {"a": [1, None]}}
        assert ledger_document(attrs.evolve(ledger(later), epoch=8)) == later | {"epoch": 8}

    def test_a_field_that_nobody_knows_is_kept_in_our_version_too(self) -> None:
        assert ledger(DOCUMENT | {"note": "x"}).extra == {"note": "x"}

    @pytest.mark.parametrize(
        ("kind", "written"),
        [
            (Budget, "floor ceiling"),
            (Entry, "key fence held reservation totals"),
            (Reservation, "fence operation afters"),
            (Intent, "pool replicas seen_at"),
            (Move, "pool at gpus"),
            (Ledger, FIELDS),
        ],
    )
    def test_a_field_that_is_new_is_written_or_left_out_on_purpose(
        self, kind: type[attrs.AttrsInstance], written: str
    ) -> None:
        assert [field.name for field in attrs.fields(kind)] == written.split()


class TestSize:
    @pytest.mark.parametrize("naming", [deployments, adapters])
    def test_a_pool_at_rest_takes_at_most_60_bytes(self, naming: Naming) -> None:
        """With real names, one object a pool; an API server's own notes come on top (tests/e2e)."""
        written = dumps(ledger_document(fleet(10_000, naming)))
        assert len(written) <= 60 * 10_000

    def test_of_the_lines_only_what_changed_is_written_anew(self) -> None:
        scribe, before = Scribe(), fleet(1_000, adapters)
        first = scribe.document(before)["entries"]
        changed = next(iter(before.entries.values()))
        second = scribe.document(believed(before, [attrs.evolve(changed, fence="x")]))["entries"]
        assert sum(one is not other for one, other in zip(first, second, strict=True)) == 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def spoiled(draw: st.DrawFn, document: object) -> object:
    """Draw *document* with one place in it replaced by anything, or with one of its texts cut or changed."""
    if isinstance(document, dict) and document and draw(st.integers(0, 9)):
        name = draw(st.sampled_from(sorted(document)))
        return document | {name: draw(spoiled(document[name]))}
    if isinstance(document, list) and document and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(document) - 1))
        return [*document[:at], draw(spoiled(document[at])), *document[at + 1 :]]
    if isinstance(document, str) and draw(st.booleans()):
        at = draw(st.integers(0, len(document)))
        return (
            document[:at] + draw(st.text("0 %~+=/:x#-p\u0661", max_size=2)) + document[at + draw(st.integers(0, 2)) :]
        )
    return draw(ANYTHING)


class TestHostileDocuments:
    @given(st.data())
    def test_whatever_is_spoiled_it_is_believed_or_refused_with_reasons(self, data: st.DataObject) -> None:
        document = loads(dumps(ledger_document(data.draw(ledgers()))))
        try:
            read = ledger(data.draw(spoiled(document)))
        except InvalidError:
            return
        assert ledger(loads(dumps(ledger_document(read)))) == read

    def test_of_very_many_problems_the_first_are_told(self) -> None:
        found = problems(DOCUMENT | {"entries": ["x"] * 10_000})
        assert len(found) == 21
        assert found[-1] == "and 9980 more"

    @pytest.mark.parametrize(
        ("field", "value", "problem"),
        [
            ("schema", "2.0", '$.schema: must be 1.x, which is what this version reads: "2.0"'),
            ("schema", "0.9", "$.schema: must be 1.x"),
            ("schema", "1", "$.schema: must be 1.x"),
            ("schema", 1.0, "$.schema: must be 1.x"),
            ("schema", None, "$.schema: must be 1.x"),
            ("state", "Fine", '$.state: must be one of Bootstrapping, Active, OverCommitted: "Fine"'),
            ("state", "OverCommitted", "$.state: must be 'Active', with 20 GPUs and the ceiling 64"),
            ("ceiling", 16, "$.state: must be 'OverCommitted', with 20 GPUs and the ceiling 16"),
            ("ceiling", -1, "$.ceiling: must be at least 0: -1"),
            ("ceiling", 2, "$.floor: floor must be at most the ceiling (2): 4"),
            ("floor", "4", '$.floor: must be an integer: "4"'),
            ("epoch", -1, "$.epoch: must be at least 0: -1"),
            ("epoch", True, "$.epoch: must be an integer: true"),
            ("gpus", 19, "$.gpus: must be 20, which is what entries and operations add up to"),
            ("entries", {}, "$.entries: must be a list: an object"),
            ("entries", DOCUMENT["entries"][:1], "$.gpus: must be 10"),
            ("entries", [5, None], "$.entries[0]: must begin with a number and '+': \"\""),
            ("entries", ["0+deployment/~/ns/a fa d-1x2"], '$.entries[0]: "deployment/~/ns/a": must be pools'),
            ("entries", [*DOCUMENT["entries"], "0+deployment/~/ns/a fc d1x2"], "is there twice"),
            ("entries", ["0+x/ns/a f p1", "0+y/ns/a f p1"], '$.entries: two objects have the fence "f"'),
            ("entries", ["0+x/ns/a f p1 f n k op p2"], 'is reserved for operation "op", which is not there'),
            ("operations", [{}], "$.operations[0]: id is missing"),
            ("wishes", ["ns/a 3 1.5"], "$.wishes[0]: a pool is written namespace/name/role"),
            ("wishes", ["ns/a/decode -3 1.5"], "$.wishes[0]: a count must be 0 to 9223372036854775807"),
            ("wishes", ["ns/a/decode 3 soon"], "$.wishes[0]: a time must be a number of seconds since 1970"),
            ("wishes", ["ns/a/decode 3 nan"], "$.wishes[0]: a time must be a number of seconds since 1970"),
            ("moves", ["ns/a/decode x 1.5"], "$.moves[0]: a count must be -9223372036854775807 to 9223372036854775807"),
            ("repeats", [{"caller": "a"}], "$.repeats[0]: request_id is missing"),
            ("sequences", ["-1 ns-a"], "$.sequences[0]: must be a number and a caller"),
            ("sequences", ["many ns-a"], "$.sequences[0]: must be a number and a caller"),
            ("ended", ["op"], "$.ended[0]: must be an object"),
            (
                "freezes",
                [{"id": "f", "direction": "left", "until": 1, "reason": "", "by": "a"}],
                '$.freezes[0]: direction must be one of up, down, all: "left"',
            ),
        ],
    )
    def test_what_cannot_be_a_ledger_says_why(self, field: str, value: object, problem: str) -> None:
        assert any(problem in found for found in problems(DOCUMENT | {field: value}))

    @pytest.mark.parametrize("field", ["schema", "state", "epoch", "floor", "gpus", "entries"])
    def test_what_is_missing_is_named(self, field: str) -> None:
        rest = {name: value for name, value in DOCUMENT.items() if name != field}
        assert problems(rest) == (f"$: {field} is missing",)

    @pytest.mark.parametrize("document", [None, [], "x", 5])
    def test_anything_else_is_no_ledger(self, document: object) -> None:
        assert problems(document)

    def test_an_operation_that_is_there_twice_is_refused(self) -> None:
        one = {"id": "op", "caller": "a", "participant": "ns/a", "targets": ["p1"]}
        assert problems(DOCUMENT | {"operations": [one, one]}) == ('$.entries: operation "op" is there twice',)

    def test_an_epoch_that_goes_back_is_not_believed(self) -> None:
        assert ledger(DOCUMENT, epoch=7) == SMALL
        assert problems(DOCUMENT, epoch=8) == (
            "$.epoch: must be at least 8, which was seen before: 7; was it put back from a copy?",
        )

    def test_every_problem_is_told_at_once(self) -> None:
        wrong = {"epoch": -1, "floor": "x", "entries": ["y", "0+x/ns/a f q"], "moves": ["z"], "operations": [5]}
        assert len(problems(DOCUMENT | wrong)) == 6

    def test_a_reservation_for_an_operation_that_is_there_is_believed(self) -> None:
        reservation = Reservation(Fence("fa", "n", "k"), "op", ((Role.PREFILL, 5),))
        one = {"id": "op", "caller": "a", "participant": "ns/a", "targets": ["p5"]}
        lines = Lines().of(Ledger.of([entry("a", fence="fa", reservation=reservation)]).entries)
        read = ledger(DOCUMENT | {"entries": lines, "operations": [one], "gpus": 12})
        assert [found.reservation for found in read.entries.values()] == [reservation]
