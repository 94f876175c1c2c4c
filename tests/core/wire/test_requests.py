from typing import Any

import pytest

from gpcore.errors import InvalidError, MalformedError
from gpcore.pools import ParticipantId, Role
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.wire import Extras, loads, scale_request

STOCK = (
    b'{"caller_namespace":"ns-a","graph_deployment_name":"a","k8s_namespace":"ns","target_replicas":[{"sub_component_'
    b'type":"prefill","component_name":"prefill","desired_replicas":3}],"blocking":false,"timestamp":1763900000.12,'
    b'"predicted_load":null}'
)


def document(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - bad documents hold anything
    given: dict[str, Any] = {
        "caller_namespace": "ns-a",
        "graph_deployment_name": "a",
        "k8s_namespace": "ns",
        "target_replicas": [{"sub_component_type": "prefill", "desired_replicas": 3}],
    }
    return given | changes


def problems(given: object) -> tuple[str, ...]:
    with pytest.raises(InvalidError) as caught:
        scale_request(given)
    return caught.value.problems


def test_the_bytes_of_a_stock_client_are_a_request() -> None:
    expected = ScaleRequest(Claimed("ns-a"), ParticipantId("ns", "a"), (Target(Role.PREFILL, 3, "prefill"),))
    assert scale_request(loads(STOCK)) == expected


def test_what_is_only_information_is_checked_and_not_used() -> None:
    plain = scale_request(document())
    assert scale_request(document(timestamp=-9e18, predicted_load={"isl": 3, "more": []}, blocking=False)) == plain
    assert scale_request(document(blocking=True)).blocking
    assert problems(document(timestamp="now", predicted_load=3, blocking="yes")) == (
        '$.blocking: must be true or false: "yes"',
        '$.timestamp: must be a number: "now"',
        "$.predicted_load: must be an object: 3",
    )


def test_every_problem_of_a_request_is_listed() -> None:
    bad = [
        {"sub_component_type": "PREFILL", "desired_replicas": "5"},
        {"sub_component_type": "decode", "desired_replicas": -1, "component_name": ""},
        {"desired_replicas": 10_001, "more": 1},
        7,
    ]
    given = document(caller_namespace="a\nb", k8s_namespace="../apis", graph_deployment_name="", target_replicas=bad)
    assert problems(given) == (
        "$.caller_namespace: caller must be 1 to 317 letters, digits, '-', '_' or '.': 'a\\nb'",
        "$.k8s_namespace: namespace must be an RFC 1123 label of at most 63 characters: '../apis'",
        "$.graph_deployment_name: name must be an RFC 1123 name of at most 253 characters: ''",
        "$.target_replicas[0].sub_component_type: must be one of 'prefill', 'decode': \"PREFILL\"",
        '$.target_replicas[0].desired_replicas: must be an integer: "5"',
        "$.target_replicas[1].desired_replicas: must be between 0 and 10000: -1",
        "$.target_replicas[1].component_name: must be 1 to 253 letters, digits, '-', '_' or '.', or null: \"\"",
        '$.target_replicas[2]: unknown field "more"',
        "$.target_replicas[2]: sub_component_type is missing",
        "$.target_replicas[2].desired_replicas: must be between 0 and 10000: 10001",
        "$.target_replicas[3]: must be an object: 7",
    )


@pytest.mark.parametrize("replicas", [True, None, 3.0, 3.5, "3", [3], -0.0])
def test_replicas_are_integers_and_nothing_that_is_like_them(replicas: object) -> None:
    target = {"sub_component_type": "prefill", "desired_replicas": replicas}
    (problem,) = problems(document(target_replicas=[target]))
    assert problem.startswith("$.target_replicas[0].desired_replicas: must be an integer: ")


def test_a_role_is_named_once() -> None:
    target = {"sub_component_type": "prefill", "desired_replicas": 3}
    assert problems(document(target_replicas=[target, target])) == (
        "$.target_replicas[1]: role 'prefill' is named before",
    )


@pytest.mark.parametrize("count", [0, 33, 10_000])
def test_a_request_has_one_to_thirty_two_targets(count: int) -> None:
    target = {"sub_component_type": "prefill", "desired_replicas": 3}
    expected = (f"$.target_replicas: must have 1 to 32 items: {count}",)
    assert problems(document(target_replicas=[target] * count)) == expected


def test_an_unknown_field_is_refused_unless_a_newer_minor_version_declares_it() -> None:
    plain = scale_request(document())
    assert problems(document(priority=1)) == ('$: unknown field "priority"',)
    assert problems(document(priority=1, api_version="1.0")) == ('$: unknown field "priority"',)
    assert scale_request(document(priority=1, api_version="1.7")) == plain
    assert scale_request(document(priority=1), extras=Extras.IGNORED) == plain
    assert scale_request(document(api_version=None)) == plain


@pytest.mark.parametrize("version", ["2.0", "1", "", "1.x", 1.0])
def test_another_major_version_is_refused(version: object) -> None:
    (problem,) = problems(document(api_version=version))
    assert problem.startswith("$.api_version: must be 1.x, as this is 1.0: ")


@pytest.mark.parametrize("given", [None, [], "text", 3])
def test_what_is_no_object_is_malformed(given: object) -> None:
    with pytest.raises(MalformedError):
        scale_request(given)
