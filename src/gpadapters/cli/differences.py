"""What a user of Dynamo's global planner should know who puts this one in its place.

Rules of this file: pure. The peer's defaults are kept; where one of them is unsafe, what is done instead is named, or
what is at risk where nothing else can be done.
"""

from collections.abc import Iterator

from gpadapters.cli.options import Settings


def differences(chosen: Settings) -> Iterator[str]:
    """Yield a warning for each unsafe default of the peer's that *chosen* has, and each risk of the transport."""
    management, budget = chosen.rules.management, chosen.rules.budget
    if management.managed is None:
        yield (
            "no --managed-namespaces: every deployment counts, and a caller may scale only the one that it is called "
            "after; dynamo.global_planner would let any caller scale any deployment"
        )
    if budget.ceiling is None:
        yield "no --max-total-gpus: nothing limits how many GPUs are asked for, as with dynamo.global_planner"
    if chosen.namespaces is None and chosen.fleet is None:
        yield (
            "no POD_NAMESPACE: deployments are looked for where the pod's own account is; dynamo.global_planner would "
            "look in 'default'"
        )
    if management.callers:
        names = ", ".join(sorted(management.callers))
        yield (
            f"--callers: whoever says over Dynamo's runtime that it is {names} may scale every deployment that counts; "
            "the runtime does not tell who calls"
        )
