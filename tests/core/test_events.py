from typing import get_args

import attrs
import pytest

from gpcore import events
from gpcore.events import Effect, Event, Noted, Outcome


@pytest.mark.parametrize("kind", [*get_args(Event), *get_args(Effect)], ids=lambda kind: kind.__name__)
def test_what_happens_and_what_is_done_cannot_be_changed_afterwards(kind: type) -> None:
    assert attrs.has(kind)
    assert kind.__setattr__ is not object.__setattr__


def test_every_kind_is_an_event_an_effect_or_an_outcome() -> None:
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and kind.__module__ == events.__name__}
    ended = {kind for kind in get_args(Outcome) if kind.__module__ == events.__name__}
    assert kinds == {*get_args(Event), *get_args(Effect), *ended, Noted}
