import attrs
import pytest

from gpcore.decisions import AmbiguousName, CallerRefused, NotYours, Rejected, UnknownDeployment
from gpcore.management import Management
from gpcore.pools import Deployment, ParticipantId, Snapshot
from gpcore.requests import Claimed, ScaleRequest
from tests.core.words import fleet, request

FLEET = fleet("a/prefill 4x1", "b/prefill 4x1")
IMPLICIT = Management()
EXPLICIT = Management(frozenset({"ns-a", "ns-c"}))
LISTED = Management(frozenset({"ns-a", "ns-b"}), frozenset({"planner"}))


def asked(text: str, caller: str) -> ScaleRequest:
    return attrs.evolve(request(text), caller=Claimed(caller))


def test_implicitly_everybody_may_ask_for_everything_that_is_there() -> None:
    assert IMPLICIT.refusal(asked("b/prefill 5", "whoever"), FLEET) is None
    assert IMPLICIT.manages(ParticipantId("any", "thing"))
    gone = IMPLICIT.refusal(asked("c/prefill 5", "whoever"), FLEET)
    assert gone == Rejected(UnknownDeployment(ParticipantId("ns", "c")))


def test_explicitly_each_may_ask_for_itself() -> None:
    assert EXPLICIT.refusal(asked("a/prefill 5", "ns-a"), FLEET) is None
    assert EXPLICIT.refusal(asked("a/prefill 5", "ns-b"), FLEET) == Rejected(CallerRefused("ns-b"))
    assert EXPLICIT.refusal(asked("a/prefill 5", "ns-c"), FLEET) == Rejected(NotYours("ns-c", ParticipantId("ns", "a")))
    assert EXPLICIT.refusal(asked("b/prefill 5", "ns-a"), FLEET) == Rejected(NotYours("ns-a", ParticipantId("ns", "b")))
    assert EXPLICIT.refusal(asked("c/prefill 5", "ns-c"), FLEET) == Rejected(
        UnknownDeployment(ParticipantId("ns", "c"))
    )


def test_callers_that_are_listed_may_ask_for_all_that_is_managed() -> None:
    assert LISTED.refusal(asked("b/prefill 5", "planner"), FLEET) is None
    assert LISTED.refusal(asked("a/prefill 5", "ns-a"), FLEET) == Rejected(CallerRefused("ns-a"))
    assert LISTED.refusal(asked("c/prefill 5", "planner"), FLEET) == Rejected(
        NotYours("planner", ParticipantId("ns", "c"))
    )


@pytest.mark.parametrize("management", [Management(frozenset()), Management(callers=frozenset())])
def test_an_empty_list_means_nobody(management: Management) -> None:
    assert management.refusal(asked("a/prefill 5", "ns-a"), FLEET) == Rejected(CallerRefused("ns-a"))


def test_a_name_that_two_deployments_derive_says_nothing() -> None:
    first, second = ParticipantId("ns", "a-b"), ParticipantId("ns-a", "b")
    twins = Snapshot.of([Deployment(first), Deployment(second)])
    wanted = attrs.evolve(request("a/prefill 5"), participant=first, caller=Claimed("ns-a-b"))
    refusal = Management(frozenset({"ns-a-b"})).refusal(wanted, twins)
    assert refusal == Rejected(AmbiguousName("ns-a-b", (second, first)))
    assert Management().refusal(wanted, twins) is None
