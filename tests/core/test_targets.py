import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpcore.targets import Source, Sourced, number, target

PLACES = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.booleans(), st.floats(allow_nan=False))


@given(st.one_of(st.none(), st.just("5")), PLACES, PLACES, st.one_of(st.none(), st.floats(0, 1e6)))
def test_the_first_place_that_says_anything_wins(
    header: str | None, nvext: object, extra_args: object, default: float | None
) -> None:
    found = target(header=header, nvext=nvext, extra_args=extra_args, default=default)
    places = {
        Source.HEADER: None if header is None else 5.0,
        Source.NVEXT: nvext,
        Source.EXTRA_ARGS: extra_args,
        Source.DEFAULT: default,
    }
    said = [(source, value) for source, value in places.items() if value is not None]
    assert found == (Sourced(said[0][1], said[0][0]) if said else Sourced(None, Source.MIDDLE))


def test_zero_and_nonsense_are_something_and_are_not_passed_over() -> None:
    assert target(header="0", nvext=5) == Sourced(0.0, Source.HEADER)
    assert target(nvext=0, extra_args=5, default=7) == Sourced(0, Source.NVEXT)
    assert target(header="soon", nvext=5) == Sourced("soon", Source.HEADER)
    assert target(extra_args=False, default=7) == Sourced(value=False, source=Source.EXTRA_ARGS)


@pytest.mark.parametrize(
    ("text", "value"), [("200", 200.0), ("0.5", 0.5), ("+1.5e2", 150.0), ("-3", -3.0), (".5", 0.5), ("5.", 5.0)]
)
def test_a_header_is_a_number_as_people_write_it(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text", ["", " 5", "5 ", "5\n", "1_000", "nan", "inf", "Infinity", "0x10", "1e999", "٣", "1,5", "5ms", "1" * 400]
)
def test_what_is_no_such_number_is_left_as_it_is_for_the_refusal(text: str) -> None:
    assert number(text) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_can_be_said_in_a_header(value: float) -> None:
    assert number(repr(value)) == value
    assert math.isfinite(value)
