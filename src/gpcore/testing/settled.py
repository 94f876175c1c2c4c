"""A planner that leads over a ledger which has all of a fleet on record, for tests that begin in the middle.

Rules of this file: values only; nothing here is what a planner does to get there.
"""

from collections.abc import Iterable

import attrs

from gpcore.control import Rules, State
from gpcore.intents import Intent, Intents
from gpcore.ledger import Entry, Ledger, held
from gpcore.pools import Deployment, Snapshot
from gpcore.states import Book, objects_of

FENCE = "settled"
"""The fence that every object shows in the beginning."""


def fenced(deployment: Deployment) -> Deployment:
    """Return *deployment* with every object marked as the ledger of `settled_state` has it."""
    pools = tuple(attrs.evolve(pool, fence=FENCE, reserved=None) for pool in deployment.pools)
    return attrs.evolve(deployment, pools=pools)


def settled_state(rules: Rules, snapshot: Snapshot, intents: Iterable[Intent] = ()) -> State:
    """Return the state of a planner that leads, has *snapshot* on record, and remembers *intents*."""
    deployments = [fenced(one) for one in snapshot.deployments()]
    shown = Snapshot.of(deployments)
    entries = [
        Entry(key, FENCE, held(pools)) for deployment in deployments for key, pools in objects_of(deployment).items()
    ]
    ledger = attrs.evolve(Ledger.of(entries, budget=rules.budget), epoch=1, complete=True)
    return State(
        rules,
        shown,
        intents=Intents.of(intents, shown),
        book=Book(ledger, "1", ledger),
        fault="",
        leading=True,
        epoch=1,
    )
