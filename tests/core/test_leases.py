"""One leads at a time, whatever the clocks say, as long as they run alike; a dead leader is followed by another."""

import heapq
import math
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.errors import InvalidError
from gpcore.leases import (
    MAX_DURATION_S,
    MAX_NAME,
    Election,
    Following,
    HeldLease,
    Leading,
    Lease,
    Timing,
)

OTHER = Lease("b", "http://b:8080", term=4)
A = Election("a", "http://a:8080")


def reading(election: Election, lease: Lease, *, now: float, version: str = "1") -> Election:
    return election.seen(HeldLease(lease, version), now=now)


def leading(*, began: float = 0.0) -> Election:
    """Return what `a` knows, who took the lease at *began* and has read it."""
    lease = A.claim(now=began, wall=0.0)
    assert lease is not None
    return reading(A.claimed(lease, began=began), lease, now=began)


class TestOneLeads:
    """The record is a compare-and-swap; requests take any time, and what is read is old when it arrives."""

    @attrs.define
    class World:
        elections: dict[str, Election]
        offsets: dict[str, float]
        stored: HeldLease | None = None
        writes: int = 0
        agenda: list[tuple[float, int, str, str, object]] = attrs.field(factory=list)
        serial: Iterator[int] = attrs.field(factory=lambda: iter(range(10**6)))

        def plan(self, at: float, who: str, what: str, about: object = None) -> None:
            heapq.heappush(self.agenda, (at, next(self.serial), who, what, about))

        def leaders(self, at: float) -> list[str]:
            local = {name: at + offset for name, offset in self.offsets.items()}
            return [n for n, one in self.elections.items() if isinstance(one.standing(now=local[n]), Leading)]

    @given(st.data())
    def test_however_long_requests_take_and_whatever_the_clocks_show(self, data: st.DataObject) -> None:
        names = ("a", "b", "c")
        offsets = {name: data.draw(st.sampled_from((0.0, -1e6, 1e9, 7.3))) for name in names}
        world = self.World({name: Election(name) for name in names}, offsets)
        delays = st.sampled_from((0.0, 0.1, 3.0, 9.0, 11.0, 20.0))
        for name in names:
            world.plan(data.draw(delays), name, "load")
        for _ in range(60):
            at, _, who, what, about = heapq.heappop(world.agenda)
            assert len(world.leaders(at)) <= 1
            now, election = at + offsets[who], world.elections[who]
            if what == "load":
                world.plan(at + data.draw(delays), who, "loaded", world.stored)
            elif what == "loaded":
                assert about is None or isinstance(about, HeldLease)
                world.elections[who] = election = election.seen(about, now=now)
                claim = election.claim(now=now, wall=data.draw(st.sampled_from((0.0, 1e9))))
                if claim is None:
                    world.plan(at + election.pause_s(now=now, jitter=data.draw(st.floats(0, 1))), who, "load")
                else:
                    version = None if about is None else about.version
                    world.plan(at + data.draw(delays), who, "save", (claim, version, now))
            elif what == "save":
                assert isinstance(about, tuple)
                claim, version, began = about
                landed = version == (None if world.stored is None else world.stored.version)
                if landed:
                    world.writes += 1
                    world.stored = HeldLease(claim, str(world.writes))
                world.plan(at + data.draw(delays), who, "saved", (claim, began, landed))
            else:
                assert isinstance(about, tuple)
                claim, began, landed = about
                world.elections[who] = election = election.claimed(claim, began=began) if landed else election
                world.plan(at + election.pause_s(now=now, jitter=data.draw(st.floats(0, 1))), who, "load")
        assert world.writes > 0

    @given(st.floats(0, 1), st.floats(0, 2), st.floats(0, 1))
    def test_a_dead_leader_is_followed_within_its_duration_and_one_retry(
        self, first: float, phase: float, second: float
    ) -> None:
        """The leader writes at 0 and dies at once; `a` looks before, and then as often as it should."""
        now, election = -phase, A
        while True:
            lease, version = (OTHER, "1") if now < 0 else (attrs.evolve(OTHER, renewed_at=1.0), "2")
            election = reading(election, lease, now=now, version=version)
            if election.claim(now=now, wall=0.0) is not None:
                break
            now += election.pause_s(now=now, jitter=first if now < 0 else second)
        timing = Timing()
        assert timing.duration_s <= now <= timing.duration_s + timing.retry_s


class TestClaims:
    def test_what_nobody_holds_is_taken(self) -> None:
        lease = A.claim(now=5.0, wall=100.0)
        assert lease == Lease("a", "http://a:8080", 15.0, 0, 100.0, 100.0)

    def test_what_was_given_up_is_taken_at_once_in_a_new_term(self) -> None:
        lease = reading(A, Lease("", term=4), now=5.0).claim(now=5.0, wall=100.0)
        assert lease == Lease("a", "http://a:8080", 15.0, 5, 100.0, 100.0)

    def test_what_somebody_holds_is_theirs_while_the_record_changes_whatever_the_time_in_it(self) -> None:
        election = A
        for count in range(10):
            now = 10.0 * count
            election = reading(election, OTHER, now=now, version=str(count))
            assert election.claim(now=now, wall=1e12) is None

    def test_what_does_not_change_for_its_duration_is_taken_in_a_new_term(self) -> None:
        election = reading(A, attrs.evolve(OTHER, duration_s=30.0), now=5.0)
        election = reading(election, attrs.evolve(OTHER, duration_s=30.0), now=34.9)
        assert election.claim(now=34.9, wall=0.0) is None
        lease = election.claim(now=35.0, wall=100.0)
        assert lease is not None
        assert (lease.holder, lease.term, lease.duration_s) == ("a", 5, 15.0)

    def test_ones_own_is_renewed_in_its_term(self) -> None:
        renewed = leading().claim(now=1.0, wall=50.0)
        assert renewed == Lease("a", "http://a:8080", 15.0, 0, 0.0, 50.0)

    def test_ones_own_whose_answer_was_lost_is_renewed_too(self) -> None:
        election = reading(A, Lease("a", term=7), now=3.0)
        assert election.standing(now=3.0) == Following()
        lease = election.claim(now=3.0, wall=50.0)
        assert lease is not None
        assert election.claimed(lease, began=3.0).standing(now=3.0) == Leading(7)


class TestStanding:
    def test_a_leader_that_cannot_renew_stops_before_others_may_follow(self) -> None:
        election = leading(began=5.0)
        assert election.standing(now=14.9) == Leading(0)
        assert election.standing(now=15.0) == Following()

    def test_a_leader_that_sees_another_in_its_place_stops_at_once(self) -> None:
        assert reading(leading(), OTHER, now=1.0, version="2").standing(now=1.0) == Following("b", "http://b:8080")

    def test_a_leader_whose_record_is_deleted_leads_on_and_makes_it_anew(self) -> None:
        election = leading().seen(None, now=1.0)
        assert election.standing(now=1.0) == Leading(0)
        assert election.claim(now=1.0, wall=0.0) is not None

    def test_a_follower_names_the_leader_until_its_lease_is_over(self) -> None:
        election = reading(A, OTHER, now=0.0)
        assert election.standing(now=14.9) == Following("b", "http://b:8080")
        assert election.standing(now=15.0) == Following()

    def test_before_anything_is_read_nobody_is_known_to_lead(self) -> None:
        assert A.standing(now=0.0) == Following()


class TestPauses:
    @given(st.floats(0, 1))
    def test_a_leader_tries_at_fixed_intervals_and_no_later_than_it_must(self, jitter: float) -> None:
        assert leading().pause_s(now=0.0, jitter=jitter) == 2.0
        assert leading().pause_s(now=9.5, jitter=jitter) == 0.5

    @given(st.floats(0, 1))
    def test_a_follower_looks_between_one_and_two_times_as_often(self, jitter: float) -> None:
        assert 1.0 <= reading(A, OTHER, now=0.0).pause_s(now=0.0, jitter=jitter) <= 2.0
        assert 1.0 <= A.pause_s(now=0.0, jitter=jitter) <= 2.0

    def test_a_follower_is_there_when_the_lease_is_over(self) -> None:
        assert reading(A, OTHER, now=0.0).pause_s(now=14.5, jitter=0.0) == 0.5


class TestRelease:
    def test_what_is_held_is_given_up_and_its_term_kept(self) -> None:
        election = reading(A, Lease("a", "http://a:8080", term=3), now=0.0)
        assert election.released(wall=9.0) == Lease("", term=3, renewed_at=9.0)

    def test_what_is_not_held_is_not_given_up(self) -> None:
        assert A.released(wall=0.0) is None
        assert reading(A, OTHER, now=0.0).released(wall=0.0) is None


class TestValues:
    @pytest.mark.parametrize(
        ("lease", "problem"),
        [
            ({"holder": "x" * (MAX_NAME + 1)}, "holder must be at most 253 printable characters"),
            ({"holder": "a\nb"}, "holder must be at most 253 printable characters: 'a\\nb'"),
            ({"address": "\x00"}, "address must be"),
            ({"duration_s": 0.0}, "duration_s must be above 0 and at most 3600: 0"),
            ({"duration_s": MAX_DURATION_S + 1}, "duration_s must be above 0 and at most 3600: 3601"),
            ({"duration_s": math.nan}, "duration_s must be"),
            ({"term": -1}, "term must be at least 0: -1"),
        ],
    )
    def test_a_lease_that_cannot_be_is_refused(self, lease: dict[str, object], problem: str) -> None:
        with pytest.raises(InvalidError) as refused:
            Lease(**{"holder": "a", **lease})  # type: ignore[arg-type]
        assert problem in str(refused.value)

    def test_every_problem_of_a_lease_is_told_at_once(self) -> None:
        with pytest.raises(InvalidError) as refused:
            Lease("\n", "\n", 0.0, -1)
        assert len(refused.value.problems) == 4

    @pytest.mark.parametrize(
        ("timing", "problem"),
        [
            ((10.0, 10.0, 2.0), "duration_s must be above the deadline (10) and at most 3600: 10"),
            ((4000.0, 10.0, 2.0), "duration_s must be"),
            ((15.0, 2.4, 2.0), "deadline_s must be above 1.2 times 2 (retry_s): 2.4"),
            ((15.0, 10.0, 0.0), "retry_s must be above 0: 0"),
        ],
    )
    def test_times_in_another_order_are_refused(self, timing: tuple[float, float, float], problem: str) -> None:
        with pytest.raises(InvalidError) as refused:
            Timing(*timing)
        assert problem in str(refused.value)

    def test_nobody_cannot_be_elected(self) -> None:
        with pytest.raises(InvalidError, match="identity must not be empty"):
            Election("")
