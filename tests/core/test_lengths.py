import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.lengths import MAX_LEARNED, MAX_UNITS, OUTPUT, PROMPT, Estimate, Lengths, Rate, context_length

ANYTHING = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.floats(), st.integers())


def taught(rate: Rate, units: int, tokens: int, *, times: int = 1_000) -> Rate:
    for _ in range(times):
        rate = rate.learned(units, tokens)
    return rate


@given(
    st.sampled_from([PROMPT, OUTPUT]), st.lists(st.tuples(ANYTHING, ANYTHING), max_size=30), st.integers(0, MAX_UNITS)
)
def test_whatever_answers_claim_an_estimate_stays_in_its_bounds(
    rate: Rate, claims: list[tuple[object, object]], units: int
) -> None:
    for claim in claims:
        rate = rate.learned(*claim)
    assert round(units * rate.least) <= rate.estimate(units).tokens + 1
    assert rate.estimate(units).tokens <= round(units * rate.most) + 1
    assert 0 <= rate.off <= 1


@given(st.integers(1, 10**6), st.floats(1 / 32, 0.9))
def test_what_is_always_so_is_soon_known(units: int, ratio: float) -> None:
    tokens = round(units * ratio)
    rate = taught(PROMPT, units, tokens)
    real = min(max(tokens, units / 64), units)
    assert rate.estimate(units).tokens == pytest.approx(real, rel=0.1, abs=1)


def test_an_estimate_says_how_far_off_its_like_has_been() -> None:
    steady = taught(PROMPT, 4_000, 1_000)
    wild = PROMPT
    for at in range(1_000):
        wild = wild.learned(4_000, 500 if at % 2 else 1_500)
    assert steady.estimate(4_000).error < 50
    assert wild.estimate(4_000).error > 300
    assert PROMPT.estimate(4_000) == Estimate(1_000, 500)


def test_what_changed_is_learned_anew() -> None:
    rate = taught(taught(PROMPT, 3_000, 1_000), 3_000, 2_000)
    assert rate.estimate(3_000).tokens == pytest.approx(2_000, rel=0.03)


@pytest.mark.parametrize(
    ("units", "tokens"), [(0, 5), (-1, 5), (5, -1), (True, 5), (5, 5.0), (5, "5"), (None, 5), (MAX_UNITS + 1, 5)]
)
def test_what_cannot_be_teaches_nothing(units: object, tokens: object) -> None:
    assert PROMPT.learned(units, tokens) is PROMPT


def test_a_route_knows_its_own_else_its_models_else_what_all_do() -> None:
    lengths = Lengths(OUTPUT)
    assert lengths.estimate("m", "/a") == OUTPUT.estimate(1)
    for _ in range(2_000):
        lengths = lengths.learned("m", "/a", tokens=10)
        lengths = lengths.learned("m", "/b", tokens=1_000)
    assert lengths.estimate("m", "/a").tokens == pytest.approx(10, abs=1)
    assert lengths.estimate("m", "/b").tokens == pytest.approx(1_000, rel=0.01)
    assert 10 < lengths.estimate("m", "/c").tokens < 1_000
    assert lengths.estimate("n", "/a") == OUTPUT.estimate(1)


def test_names_cannot_fill_the_memory() -> None:
    lengths = Lengths(OUTPUT)
    for at in range(MAX_LEARNED):
        lengths = lengths.learned("m", f"/{at}", tokens=10)
    assert lengths.estimate("m", "/0") != lengths.estimate("m", "/another")
    grown = lengths.learned("m", "/another", tokens=500)
    assert grown.rate("m", "/another") == grown.rate("m", "/one more")
    assert grown.rate("m", "/0") == lengths.rate("m", "/0")


def test_the_context_is_the_prompt_and_where_it_is_asked_for_half_of_the_output() -> None:
    assert context_length(3_000) == 3_000
    assert context_length(3_000, Estimate(501, 100)) == 3_250
