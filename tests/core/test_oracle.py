"""The pairing against the oracle that tries everything.

`ORACLE_CASES` says how many random cases are compared; the default takes some seconds, 100000 some minutes.
"""

import os
from collections import Counter
from collections.abc import Mapping
from itertools import islice

import pytest

from gpcore.decisions import Approved, CeilingBreach, FloorBreach, Rejected
from gpcore.intents import Intents
from gpcore.policy import decide
from gpcore.pools import PoolKey
from tests.core.oracle import Case, Partners, best, cases, nearest

CASES = int(os.environ.get("ORACLE_CASES", "20000"))
PARTS = 8


def paired(case: Case) -> Partners | CeilingBreach | FloorBreach:
    """Return what the core makes of the case: the partners, or why not."""
    snapshot = case.snapshot
    intents = Intents.of(case.intents, snapshot)
    decision = decide(case.request, snapshot=snapshot, intents=intents, budget=case.budget)
    match decision:
        case Approved(plan):
            afters = plan.afters
            asked = {key: n for key, n in case.asked.items() if n != case.pools[key].replicas}
            assert asked.items() <= afters.items()
            return {key: after for key, after in afters.items() if key not in asked}
        case Rejected(reason):
            assert isinstance(reason, CeilingBreach | FloorBreach), reason
            return reason


def check(case: Case) -> str:
    """Compare one case, and say of which kind it was."""
    expected, found = best(case), paired(case)
    if isinstance(found, CeilingBreach | FloorBreach):
        assert expected is None, case
        _check_nearest(case, found)
        return found.kind
    assert found == expected, case
    return "paired" if found else "alone"


def _check_nearest(case: Case, reason: CeilingBreach | FloorBreach) -> None:
    """What a refusal offers is itself approved, with just those partners; and nothing nearer is."""
    own = {change.pool: change.after for change in reason.nearest.own}
    partners = {change.pool: change.after for change in reason.nearest.partners}
    if len(case.asked) == 1:
        offered = (*own.values(), partners) if own else None
        assert offered == nearest(case), case
    elif own:
        left = {key: own.get(key, case.pools[key].replicas) for key in case.asked}
        assert best(case.asking(left)) == partners, case
        _check_next(case, left)


def _check_next(case: Case, left: Mapping[PoolKey, int]) -> None:
    """Of several targets, the one that is asked for less could not be asked for one replica more."""
    for key, after in left.items():
        if after != case.asked[key]:
            more = after + (1 if case.asked[key] > after else -1)
            assert best(case.asking({**left, key: more})) is None, case
            return


@pytest.mark.parametrize("part", range(PARTS))
def test_pairing_agrees_with_trying_everything(part: int) -> None:
    seen = Counter(check(case) for case in islice(cases(part), CASES // PARTS))
    assert min(seen[kind] for kind in ("alone", "paired", "above_ceiling", "below_floor")) > CASES // PARTS // 50, seen
