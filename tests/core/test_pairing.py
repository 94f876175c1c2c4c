"""The parts of pairing; that all of it finds the best is in `test_oracle`."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.budgets import Budget
from gpcore.decisions import Approved, FloorBreach
from gpcore.intents import ACQUIRE, RELEASE, Candidate, Intent, Intents
from gpcore.pairing import EXACT_CELLS, Amount, Gap, Market
from gpcore.policy import decide
from gpcore.pools import ParticipantId, Pool, PoolKey, Role, Snapshot, Totals
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.testing.laws import LAWS, Trial
from gpcore.testing.strategies import Scenario, budgets
from tests.core.words import fleet, key, scene, short, wishes

HOME = ParticipantId("ns", "home")
SMALL = st.integers(0, 12)


def gaps() -> st.SearchStrategy[Gap]:
    totals = st.builds(Totals, SMALL, SMALL)
    return st.builds(
        Gap, totals, budgets(Totals(6, 6)), st.sampled_from((RELEASE, ACQUIRE)), st.integers(0, 4), st.booleans()
    )


@given(gap=gaps(), amount=SMALL)
def test_an_amount_that_is_inside_ends_in_the_band(gap: Gap, amount: int) -> None:
    end = gap.after + Totals(gap.direction * amount, gap.direction * amount)
    assert amount not in gap.inside or gap.budget.holds(end)


@given(gap=gaps(), amount=SMALL, tolerance=st.integers(0, 6))
def test_what_is_tolerated_ends_below_the_floor_by_no_more_than_the_tolerance(
    gap: Gap, amount: int, tolerance: int
) -> None:
    end = gap.after + Totals(gap.direction * amount, gap.direction * amount)
    if amount in gap.tolerated(tolerance):
        assert 0 < gap.budget.shortfall(end) <= tolerance
        assert gap.tolerance(amount) == gap.budget.shortfall(end)
        assert not gap.budget.excess(end)


def many(count: int) -> tuple[Snapshot, Intents]:
    """Return a fleet of *count* pools of 1 to 3 GPUs that each would give 1 to 3 replicas, and one that wants them."""
    keys = [PoolKey(ParticipantId("ns", f"p{at}"), Role.PREFILL) for at in range(count)]
    pools = [Pool(name, 4, at % 3 + 1, present=4) for at, name in enumerate(keys)]
    snapshot = Snapshot.of_pools([*pools, Pool(PoolKey(HOME, Role.PREFILL), 0, 1)])
    return snapshot, Intents.of((Intent(name, at % 3 + 1, float(at)) for at, name in enumerate(keys)), snapshot)


def test_where_exactness_is_too_much_the_oldest_go_first() -> None:
    snapshot, intents = many(2000)
    asked = EXACT_CELLS // 2000 + 5
    budget = Budget(snapshot.totals.least, snapshot.totals.charged)
    request = ScaleRequest(Claimed("x"), HOME, (Target(Role.PREFILL, asked),))
    trial = Trial.of(Scenario(snapshot, tuple(intents), budget, request), decide)
    assert isinstance(trial.decision, Approved)
    assert trial.decision.totals == snapshot.totals
    assert [LAWS[name](trial) for name in ("ceiling", "floor", "conservation")] == [None, None, None]
    partners = {change.pool: change.before - change.after for change in trial.partners}
    oldest = sorted(trial.wishes, key=lambda name: int(name.participant.name[1:]))
    given_up = [partners.get(name, 0) for name in oldest]
    whole = [4 - trial.wishes[name] for name in oldest]
    last = max(at for at, moved in enumerate(given_up) if moved)
    assert given_up[: last - 10] == whole[: last - 10]


def test_where_exactness_is_too_much_a_demand_is_met_all_the_same() -> None:
    snapshot, intents = many(2000)
    home = snapshot.deployment(HOME)
    assert home is not None
    market = Market.of(intents, snapshot, home=home, asked=frozenset(), way=RELEASE)
    shares = market.share(Amount(EXACT_CELLS // 2000 + 5, demand=3))
    assert sum(candidate.gpus * moved for candidate, moved in shares.items()) == EXACT_CELLS // 2000 + 5
    assert all(0 < moved <= candidate.replicas for candidate, moved in shares.items())
    assert max(candidate.gpus for candidate in shares) == 3


def test_an_amount_that_cannot_be_made_up_is_a_mistake_of_who_asks_for_it() -> None:
    snapshot = fleet("a/prefill 4x2", "a/decode 4x2")
    home = snapshot.deployment(key("a/prefill").participant)
    assert home is not None
    intents = Intents.of(wishes("a/decode 2"), snapshot)
    market = Market.of(intents, snapshot, home=home, asked=frozenset({key("a/prefill")}), way=RELEASE)
    assert market.offer == 4
    with pytest.raises(AssertionError):
        market.share(Amount(3))


def test_the_own_participant_gives_before_others_do() -> None:
    case = scene(
        "a/prefill 4x1", "a/decode 4x1", "b/decode 9x1", wish=["b/decode 0", "a/decode 2"], floor=17, ceiling=17
    )
    assert case.plan("a/prefill 7") == {"a/prefill": 7, "a/decode": 2, "b/decode": 8}


def test_between_two_ways_of_the_own_participant_fewer_partners_then_the_older_wish_decide() -> None:
    case = scene(
        "a/prefill 4x1",
        "a/decode 4x1",
        "a/worker 4x1",
        wish=["a/worker 2", "a/decode 2"],
        floor=12,
        ceiling=12,
    )
    assert case.plan("a/prefill 6") == {"a/prefill": 6, "a/worker": 2}
    assert case.plan("a/prefill 7") == {"a/prefill": 7, "a/worker": 2, "a/decode": 3}


def test_a_tolerance_beyond_the_own_size_needs_a_partner_of_that_size() -> None:
    case = scene(
        "a/prefill 12x1", "b/prefill 1x4", "c/prefill 1x3", wish=["b/prefill 2", "c/prefill 3"], floor=19, ceiling=19
    )
    assert case.plan("a/prefill 3") == {"a/prefill": 3, "c/prefill": 3}
    assert case.total("a/prefill 3") == 16


def test_a_wish_of_a_pool_that_the_request_names_is_not_used_against_it() -> None:
    case = scene("a/prefill 4x1", "a/decode 4x1", wish=["a/decode 2"], floor=8, ceiling=8)
    reason = case.reason("a/prefill 6", "a/decode 4")
    assert reason.kind == "above_ceiling"
    assert case.plan("a/prefill 6") == {"a/prefill": 6, "a/decode": 2}


def test_who_releases_hears_of_the_floor_even_while_others_drain_above_the_ceiling() -> None:
    case = scene("a/prefill 4x1", "b/prefill 4x1", floor=7, ceiling=8)
    draining = attrs.evolve(case.pools[1], present=6)
    case = attrs.evolve(case, pools=(case.pools[0], draining))
    reason = case.reason("a/prefill 1")
    assert isinstance(reason, FloorBreach)
    assert [change.after for change in reason.nearest.own] == [3]


def test_nobody_grows_for_a_partner_while_something_cannot_be_counted() -> None:
    case = scene("a/prefill 4x1", "b/prefill 4x1", wish=["b/prefill 6"], floor=8, ceiling=8)
    assert case.plan("a/prefill 2") == {"a/prefill": 2, "b/prefill": 6}
    unknown = Pool(key("c/prefill"), 1, None)
    assert attrs.evolve(case, pools=(*case.pools, unknown)).reason("a/prefill 2").kind == "below_floor"


def test_a_partner_that_still_shuts_down_gives_all_that_it_holds_with_the_first_replica() -> None:
    case = scene("a/prefill 4x1", "b/decode 2x1", wish=["a/prefill 3"], ceiling=7)
    case = attrs.evolve(case, pools=(attrs.evolve(case.pools[0], present=6), case.pools[1]))
    assert case.plan("b/decode 3") == {"a/prefill": 3, "b/decode": 3}


def test_of_very_many_pools_on_their_way_the_youngest_are_not_asked() -> None:
    names = [f"p{at:02}/prefill" for at in range(14)]
    case = scene("a/prefill 4x1", *(f"{name} 4x1" for name in names), wish=[f"{name} 3" for name in names], ceiling=88)
    case = attrs.evolve(case, pools=(case.pools[0], *(attrs.evolve(pool, present=6) for pool in case.pools[1:])))
    assert case.plan("a/prefill 6") == {"a/prefill": 6, "p00/prefill": 3}


def market(*others: str, own: str, wish: list[str]) -> Market:
    """Return the market for a request for a/prefill, with *own* another pool of its participant."""
    snapshot = fleet("a/prefill 0x1", own, *others)
    home = snapshot.deployment(key("a/prefill").participant)
    assert home is not None
    asked = frozenset({key("a/prefill")})
    return Market.of(Intents.of(wishes(*wish), snapshot), snapshot, home=home, asked=asked, way=RELEASE)


def shared(shares: dict[Candidate, int]) -> dict[str, int]:
    return {short(candidate.pool): replicas for candidate, replicas in shares.items()}


def test_the_own_participant_steps_back_where_another_size_is_demanded() -> None:
    found = market("b/decode 4x2", own="a/decode 3x1", wish=["b/decode 0", "a/decode 0"]).share(Amount(3, demand=2))
    assert shared(found) == {"a/decode": 1, "b/decode": 1}


def test_a_demand_that_the_own_participant_meets_is_not_asked_of_others() -> None:
    several = market(
        "b/decode 1x2", "c/decode 1x2", own="a/decode 2x3", wish=["b/decode 0", "c/decode 0", "a/decode 1"]
    ).share(Amount(7, demand=3))
    assert shared(several) == {"a/decode": 1, "b/decode": 1, "c/decode": 1}


@pytest.mark.parametrize("units", [{3: 1, 4: 2}, {4: 2, 3: 1}])
def test_a_demand_is_met_by_any_size_that_is_large_enough(units: dict[int, int]) -> None:
    assert Market(units=units)._includes(8, 3)  # noqa: SLF001 - in any order of the sizes
    assert not Market(units=units)._includes(5, 3)  # noqa: SLF001
