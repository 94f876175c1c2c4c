import pytest

from gpcore.decisions import NotReady, Rejected
from gpcore.events import Failed, HandedOver, Outcome, Succeeded
from gpcore.plans import Plan
from gpcore.pools import ParticipantId, Role
from gpcore.records import OperationRecord
from gpcore.requests import Claimed, ScaleRequest, Target


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (None, "scaling"),
        (Succeeded(Plan()), "success"),
        (Failed("no"), "error"),
        (Rejected(NotReady()), "rejected"),
        (HandedOver("d-1"), "scaling"),
    ],
)
def test_an_operation_has_the_status_that_its_answer_would_carry(outcome: Outcome | None, status: str) -> None:
    request = ScaleRequest(Claimed("ns-a"), ParticipantId("ns", "a"), (Target(Role.PREFILL, 6),))
    assert OperationRecord("d-1", request, Plan(), 12.5, 13.0, outcome).status == status
