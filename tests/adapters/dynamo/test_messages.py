"""What is said over Dynamo's runtime: every payload has a meaning, and `error` is for faults alone."""

import json
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpadapters.answering import Answer
from gpadapters.dynamo import messages
from gpcore.budgets import Budget
from gpcore.control import Rules, State
from gpcore.decisions import PolicyBroken, Reason
from gpcore.errors import InvalidError, MalformedError
from gpcore.management import Management
from gpcore.pools import Deployment, ParticipantId, Role, Snapshot
from gpcore.requests import Claimed, ScaleRequest, Target

STOCK = (
    '{"caller_namespace":"ns-a","graph_deployment_name":"a","k8s_namespace":"ns","target_replicas":[{"sub_component_'
    'type":"prefill","component_name":"prefill","desired_replicas":3}],"blocking":false,"timestamp":1763900000.12,'
    '"predicted_load":null}'
)
"""What the client of ai-dynamo 1.4.2 sends, byte for byte."""

A = ParticipantId("ns", "a")
ASKED = ScaleRequest(Claimed("ns-a"), A, (Target(Role.PREFILL, 3, "prefill"),))
TURNED_AWAY = ("overloaded", "stopping", "internal")
KINDS = tuple(reason.kind for reason in get_args(Reason))
FLEET = Snapshot.of([Deployment(A, ())])
NAMES = st.sampled_from(["ns-a", "ns-b", "ns", "admin", "a"])

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
nearly = st.fixed_dictionaries(
    {},
    optional={
        "caller_namespace": NAMES | anything,
        "graph_deployment_name": st.just("a") | anything,
        "k8s_namespace": st.just("ns") | anything,
        "target_replicas": st.lists(
            st.fixed_dictionaries(
                {"sub_component_type": st.sampled_from(["prefill", "decode"]) | anything},
                optional={"desired_replicas": st.integers(-2, 5) | anything, "component_name": anything},
            ),
            max_size=3,
        )
        | anything,
        "blocking": anything,
        "timestamp": anything,
        "predicted_load": anything,
        "more": anything,
    },
)


def test_the_bytes_of_a_stock_client_are_its_request_as_text_and_as_object() -> None:
    assert messages.request(STOCK) == messages.request(json.loads(STOCK)) == ASKED


def test_fields_that_nobody_knows_are_ignored_wherever_they_are() -> None:
    document = json.loads(STOCK) | {"more": [1]}
    document["target_replicas"][0]["less"] = {}
    assert messages.request(document) == ASKED


@given(nearly)
@example({"timestamp": float("nan")})
def test_an_object_is_a_request_or_every_problem_with_it(document: dict[str, Any]) -> None:
    found: ScaleRequest | InvalidError
    try:
        found = messages.request(document)
    except InvalidError as exc:
        found = exc
    assert not isinstance(found, MalformedError)
    if isinstance(found, InvalidError):
        answer = messages.invalid(found)
        assert (answer["status"], answer["problems"]) == ("rejected", list(found.problems))
        json.dumps(answer, allow_nan=False)


@given(anything)
@example("[]")
@example("3")
@example('{"a":1,"a":2}')
@example("\ud800")
@example("{}" + " " * messages.MAX_PAYLOAD)
@example('{"timestamp":' + "9" * 200 + "}")
@example("[" * 1_000)
def test_whatever_else_comes_cannot_be_decoded_and_that_is_all(payload: object) -> None:
    if isinstance(payload, dict):
        return
    with pytest.raises(MalformedError):
        messages.request(payload)


@given(st.sampled_from(KINDS + TURNED_AWAY + ("failed", "success", "scaling")), st.text())
def test_error_is_for_faults_of_our_own_alone(kind: str, message: str) -> None:
    document = {"status": "", "message": message, "current_replicas": {}}
    said = messages.response(Answer(kind, None if kind in TURNED_AWAY else document))
    assert said["status"] in {"success", "scaling", "rejected", "error"}
    assert (said["status"] == "error") == (kind in {"internal", PolicyBroken.kind})
    assert (said["status"] in {"success", "scaling"}) == (kind in {"success", "scaling"})
    assert {"status", "message", "current_replicas"} <= set(said)


def test_a_breach_is_told_in_the_peers_words_and_then_in_ours() -> None:
    document = {"message": "total 17 exceeds ceiling (16); the largest count that fits is 2"}
    said = messages.response(Answer("above_ceiling", document))["message"]
    assert said.startswith("GPU budget breach: total 17 exceeds ceiling (16); no feasible pair packing")
    assert said.endswith("; the largest count that fits is 2")


@given(caller=NAMES, callers=st.none() | st.frozensets(NAMES), managed=st.none() | st.frozensets(NAMES))
def test_nobody_asks_for_a_deployment_but_its_own_planner_and_who_is_named_to(
    caller: str, callers: frozenset[str] | None, managed: frozenset[str] | None
) -> None:
    management = Management(managed, callers)
    asked = ScaleRequest(Claimed(caller), A, ASKED.targets)
    wrong = messages.stranger(asked, State(Rules(management), FLEET))
    if wrong is None and management.refusal(asked, FLEET) is None:
        assert caller == "ns-a" or caller in (callers or ())
    if management.managed is None and caller == "ns-a":
        assert wrong is None


def test_a_stranger_is_told_in_the_peers_words_and_whose_name_would_do() -> None:
    wrong = messages.stranger(ScaleRequest(Claimed("ns-b"), A, ASKED.targets), State(Rules()))
    assert wrong is not None
    assert (wrong["status"], wrong["message"]) == (
        "rejected",
        "Namespace ns-b not authorized for ns/a, whose own is ns-a",
    )


def test_a_name_that_two_deployments_derive_says_nothing() -> None:
    one, other = ParticipantId("ns", "a-b"), ParticipantId("ns-a", "b")
    asked = ScaleRequest(Claimed("ns-a-b"), one, ASKED.targets)
    state = State(Rules(), Snapshot.of([Deployment(one, ()), Deployment(other, ())]))
    wrong = messages.stranger(asked, state)
    assert wrong is not None
    assert (wrong["status"], wrong["reason"]) == ("rejected", {"kind": "ambiguous_name"})


@pytest.mark.parametrize(
    ("managed", "names"), [(None, "all"), (frozenset({"b", "a"}), ["a", "b"]), (frozenset[str](), [])]
)
def test_health_says_for_whom_the_planner_is_there(managed: frozenset[str] | None, names: object) -> None:
    assert messages.health("infra", State(Rules(Management(managed), Budget()))) == {
        "status": "healthy",
        "component": "GlobalPlanner",
        "namespace": "infra",
        "managed_namespaces": names,
    }
