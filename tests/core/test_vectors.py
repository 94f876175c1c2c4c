"""The peer's verified decisions, as this project decides them.

The setups are those of the eleven verified vectors; the results are this project's, which differ from the peer's
where the peer drags partners in, overshoots, or lets invalid requests through.
"""

import attrs
import pytest

from gpcore.budgets import Budget
from gpcore.control import Rules, State, preview, step
from gpcore.decisions import INVALID, CallerRefused, CeilingBreach, FloorBreach, Rejected, explain
from gpcore.errors import InvalidError
from gpcore.events import Listed, Submitted
from gpcore.intents import Intents
from gpcore.management import Management
from gpcore.policy import decide
from gpcore.pools import ParticipantId, Role
from gpcore.requests import Claimed, ScaleRequest, Target
from tests.core.words import fleet, request, scene, wishes


def test_1_what_fits_alone_drags_nobody_in() -> None:
    case = scene("a/prefill 2x1", "b/decode 4x1", wish=["b/decode 1"], ceiling=16)
    assert case.plan("a/prefill 3") == {"a/prefill": 3}


@pytest.mark.parametrize("count", [19, 16])
def test_2_from_above_the_ceiling_every_step_down_is_approved(count: int) -> None:
    assert scene("a/prefill 20x1", ceiling=16).plan(f"a/prefill {count}") == {"a/prefill": count}


def test_2_from_above_the_ceiling_a_step_up_is_refused() -> None:
    reason = scene("a/prefill 20x1", ceiling=16).reason("a/prefill 21")
    assert isinstance(reason, CeilingBreach)
    assert (reason.total, reason.ceiling) == (21, 16)


@pytest.mark.parametrize("count", [5, 8])
def test_3_from_below_the_floor_every_step_up_is_approved(count: int) -> None:
    assert scene("a/prefill 4x1", floor=8).plan(f"a/prefill {count}") == {"a/prefill": count}


def test_3_a_request_for_what_already_is_changes_nothing() -> None:
    case = scene("a/prefill 4x1", floor=8)
    assert case.plan("a/prefill 4") == {}
    assert explain(case.decide("a/prefill 4")).startswith("unchanged")


def test_3_from_below_the_floor_a_step_down_is_refused() -> None:
    reason = scene("a/prefill 4x1", floor=8).reason("a/prefill 3")
    assert isinstance(reason, FloorBreach)
    assert (reason.total, reason.floor, reason.tolerance) == (3, 8, 0)


_FOUR = scene(
    "p0/prefill 4x1", "p1/prefill 6x1", "p2/prefill 6x1", wish=["p0/prefill 2", "p1/prefill 2"], floor=16, ceiling=16
)


def test_4a_a_refusal_names_the_largest_count_that_fits_and_who_would_give() -> None:
    reason = _FOUR.reason("p2/prefill 14")
    assert isinstance(reason, CeilingBreach)
    assert (reason.total, reason.ceiling, reason.partners_offer) == (24, 16, 6)
    assert [change.after for change in reason.nearest.own] == [12]
    told = explain(Rejected(reason))
    assert "the largest count that fits is 12, with" in told
    assert "ns/p0/prefill 4 to 2" in told
    assert "ns/p1/prefill 6 to 2" in told


def test_4b_donors_give_exactly_what_is_needed() -> None:
    assert _FOUR.plan("p2/prefill 12") == {"p0/prefill": 2, "p1/prefill": 2, "p2/prefill": 12}


def test_4c_a_donor_gives_a_part_so_that_the_total_stays_exact() -> None:
    assert _FOUR.plan("p2/prefill 10") == {"p1/prefill": 2, "p2/prefill": 10}
    assert _FOUR.total("p2/prefill 10") == 16


def test_5_no_pool_gets_more_than_the_request_leaves() -> None:
    case = scene("a/prefill 8x1", "b/prefill 2x1", "big/prefill 1x8", wish=["b/prefill 3", "big/prefill 9"], floor=18)
    assert case.plan("a/prefill 2") == {"a/prefill": 2, "big/prefill": 2}
    assert case.total("a/prefill 2") == 20


@pytest.mark.parametrize(("age", "usable"), [(360.0, True), (360.01, False)])
def test_6_a_wish_is_fresh_up_to_and_including_its_ttl(age: float, usable: bool) -> None:  # noqa: FBT001
    snapshot = fleet("a/prefill 8x1", "b/prefill 8x1")
    intents = Intents.of(wishes("b/prefill 7"), snapshot).fresh(age, ttl_s=360)
    decision = decide(request("a/prefill 9"), snapshot=snapshot, intents=intents, budget=Budget(16, 16))
    assert isinstance(decision, Rejected) is not usable


_SEVEN = scene("a/prefill 4x2", "a/decode 8x1", floor=16, ceiling=16)


@pytest.mark.parametrize(("prefill", "decode", "total"), [(3, 10, 16), (3, 9, 15), (2, 10, 14)])
def test_7_a_transfer_within_one_request_may_use_the_tolerance(prefill: int, decode: int, total: int) -> None:
    assert _SEVEN.total(f"a/prefill {prefill}", f"a/decode {decode}") == total


def test_7_a_transfer_above_the_ceiling_is_refused() -> None:
    reason = _SEVEN.reason("a/prefill 3", "a/decode 11")
    assert isinstance(reason, CeilingBreach)
    assert (reason.total, reason.ceiling) == (17, 16)


def test_7_a_transfer_beyond_the_tolerance_is_refused_with_the_tolerance_named() -> None:
    reason = _SEVEN.reason("a/prefill 2", "a/decode 9")
    assert isinstance(reason, FloorBreach)
    assert (reason.total, reason.floor, reason.tolerance) == (13, 16, 2)
    assert "16 - tol 2" in explain(Rejected(reason))


def test_8_a_negative_count_is_no_target() -> None:
    with pytest.raises(InvalidError, match="between 0 and 10000: -5"):
        Target(Role.PREFILL, -5)


def test_8_one_role_twice_is_no_request() -> None:
    twice = (Target(Role.PREFILL, 100), Target(Role.PREFILL, 1))
    with pytest.raises(InvalidError, match="'prefill' is named 2 times"):
        ScaleRequest(Claimed("ns-a"), ParticipantId("ns", "a"), twice)


def test_8_nothing_is_no_request() -> None:
    with pytest.raises(InvalidError, match="1 to 32 targets: 0"):
        ScaleRequest(Claimed("ns-a"), ParticipantId("ns", "a"), ())


def test_8_a_role_that_the_deployment_does_not_have_is_invalid() -> None:
    assert isinstance(scene("a/prefill 4x1", ceiling=8).reason("a/decode 999"), INVALID)


def test_9_one_small_partner_suffices_where_a_larger_one_would_overshoot() -> None:
    case = scene(
        "a/prefill 4x1",
        "a/decode 8x2",
        "b/decode 4x1",
        wish=["a/decode 7", "b/decode 3"],
        floor=24,
        ceiling=24,
    )
    assert case.plan("a/prefill 5") == {"a/prefill": 5, "b/decode": 3}
    assert case.total("a/prefill 5") == 24


def test_10_a_fixed_total_does_not_drift() -> None:
    case = scene(
        "a/prefill 8x1", "x/prefill 1x4", "y/prefill 8x1", wish=["x/prefill 0", "y/prefill 2"], floor=20, ceiling=20
    )
    assert case.plan("a/prefill 10") == {"a/prefill": 10, "y/prefill": 6}
    assert case.total("a/prefill 10") == 20


def test_11_an_empty_list_of_the_managed_authorizes_nobody() -> None:
    state = step(State(Rules(Management(frozenset()))), Listed(tuple(fleet("a/prefill 4x1").deployments()))).state
    asked = request("a/prefill 5")
    assert preview(state, asked, now=0) == Rejected(CallerRefused("ns-a"))
    assert step(state, Submitted("1", asked, 0)).state == state


def test_12_a_lone_release_never_uses_the_tolerance() -> None:
    reason = scene("a/prefill 2x8", "b/prefill 2x8", floor=32).reason("a/prefill 1")
    assert isinstance(reason, FloorBreach)
    assert attrs.astuple(reason)[:3] == (24, 32, 0)
