"""What holds a planner back, or what it runs without, in words that stay the same.

Rules of this file: pure. A condition is there or not; when it began and ended is for whoever compares two moments.
"""

from collections.abc import Iterator

import attrs

from gpcore.states import State

_SHOWN = 3


@attrs.frozen
class Condition:
    """Something that holds a part of the planner back, or that it runs without.

    *kind* is the stable word for it, *detail* the sentence that says what is missing and what follows from that.
    """

    kind: str
    detail: str


def conditions(state: State) -> tuple[Condition, ...]:
    """Return what holds the planner back at the moment, the gravest first; nothing where it may do all that fits."""
    return tuple(_conditions(state))


def _conditions(state: State) -> Iterator[Condition]:
    ledger, book, snapshot = state.ledger, state.book, state.view
    if state.snapshot is None:
        yield Condition("not_read", "the cluster was not read yet, so every request is refused")
    elif state.stale:
        yield Condition("view_stale", "the cluster is not being followed, so nothing may grow")
    if state.leading and (book is None or state.fault):
        yield Condition("ledger_down", f"nothing can be promised without the ledger: {state.fault}")
    elif state.leading and not ledger.complete:
        yield Condition("bootstrapping", "what is deployed is being put on record, so every request is refused")
    if book is not None and book.full:
        yield Condition("ledger_full", f"the ledger has {book.size} bytes and takes in no new pool: use another domain")
    if ledger.excess:
        yield Condition(
            "over_committed", f"others have taken the pools {ledger.excess} GPUs above the ceiling, so nothing may grow"
        )
    if len(snapshot.unknown) and state.rules.budget.ceiling is not None:
        names = ", ".join(sorted(map(str, snapshot.unknown))[:_SHOWN])
        yield Condition("shape_unknown", f"the GPUs per replica of {names} are not known, so nothing may grow")
    if len(state.behind):
        names = ", ".join(sorted(map(str, state.behind))[:_SHOWN])
        yield Condition("unsettled", f"{names} shows a mark that the ledger does not know, so nothing may grow")
    for freeze in ledger.freezes:
        named = ", ".join(map(str, freeze.pools)) or "every pool"
        way = "up or down" if freeze.direction == "all" else freeze.direction
        yield Condition("frozen", f"{named} may not go {way}: {freeze.reason}")
