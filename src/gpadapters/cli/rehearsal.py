"""`--no-operation`: the planner that decides, records and answers as ever, and changes nothing.

Rules of this file: pure, as the brain that it stands in for.
"""

from gpcore.control import State, Transition, preview, step
from gpcore.decisions import Rejected
from gpcore.events import Decided, Event, Reply, Submitted, Succeeded


def rehearse(state: State, event: Event) -> Transition:
    """Return what `step` does, but for a request only how it would be decided.

    No wish is remembered, so each request is decided as if it were the first; only the cluster changes the state.
    """
    if not isinstance(event, Submitted):
        return step(state, event)
    decision = preview(state, event.request, now=event.now)
    outcome = decision if isinstance(decision, Rejected) else Succeeded(decision.plan)
    return Transition(state, (Decided(event.id, event.request, decision), Reply(event.id, outcome)))
