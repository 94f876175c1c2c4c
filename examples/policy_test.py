"""Test a policy of your own: `pytest examples/policy_test.py`.

`check_policy` draws scenarios in which something is at stake and holds what your policy decides against the laws of
`gpcore.testing.laws`. It fails with the law that was broken and a small scenario in which it was.
"""

import attrs
import pytest

from gpcore import Budget, Decision, Intents, ScaleRequest, Snapshot, decide
from gpcore.testing.laws import BrokenLawError, check_policy


def never_pairs(request: ScaleRequest, *, snapshot: Snapshot, intents: Intents, budget: Budget) -> Decision:
    """Approve what fits alone, and move nobody else's replicas."""
    nobody = Intents.of((), snapshot) if len(intents) else intents
    return decide(request, snapshot=snapshot, intents=nobody, budget=budget)


def test_a_policy_that_never_pairs_keeps_the_laws() -> None:
    """Name what a stricter policy leaves out: else a run that has not seen it would fail."""
    check_policy(never_pairs, without={"paired", "partial"})


def overbooks(request: ScaleRequest, *, snapshot: Snapshot, intents: Intents, budget: Budget) -> Decision:
    """Let the fleet have one GPU more than there is."""
    more = budget if budget.ceiling is None else attrs.evolve(budget, ceiling=budget.ceiling + 1)
    return decide(request, snapshot=snapshot, intents=intents, budget=more)


def test_a_policy_that_overbooks_is_caught() -> None:
    """Show what a broken law looks like."""
    with pytest.raises(BrokenLawError, match="the law of ceiling is broken") as caught:
        check_policy(overbooks)
    print(caught.value)
