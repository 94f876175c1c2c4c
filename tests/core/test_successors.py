"""The next value of one that never changes."""

import attrs
import pytest

from gpcore.ledger import Ledger
from gpcore.operations import Operation
from gpcore.states import State
from gpcore.successors import Successive


@attrs.frozen(slots=False)
class Value(Successive):
    """Two fields."""

    one: int = 1
    two: int = 2


def test_a_successor_differs_in_what_was_changed_and_in_nothing_else() -> None:
    value = Value()
    assert value.but(two=3) == attrs.evolve(value, two=3) == Value(1, 3)
    assert value == Value()


def test_a_successor_never_changes_either() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Value().but(two=3).two = 4  # type: ignore[misc]


@pytest.mark.parametrize("kind", [State, Ledger, Operation])
def test_no_field_of_a_successive_value_is_derived_from_others(kind: type[attrs.AttrsInstance]) -> None:
    assert issubclass(kind, Successive)
    assert all(field.init for field in attrs.fields(kind))
    assert "__slots__" not in vars(kind)
    assert not hasattr(kind, "__attrs_post_init__")
