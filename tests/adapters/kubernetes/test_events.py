"""What Events say, and what the answers of the API server mean for them."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpadapters.kubernetes.cluster import Cluster
from gpadapters.kubernetes.events import OPERATION, condition_event, event, operation_event
from gpcore.conditions import Condition
from gpcore.errors import PortError
from gpcore.ledger import Ended
from gpcore.pools import ParticipantId
from tests.adapters.kubernetes.scripted import Json, Said, Scripted, connected, refused

A = ParticipantId("ns", "a")
ENDED = Ended("d-1", 1.0, 2.5, "success", "", "ns-a", "ns/a", "ns/a/prefill 2 to 3: done (- to 1)", 4, 5)
MADE = Said(b"{}", 201)


@contextlib.asynccontextmanager
async def told(tmp_path: Path, *answers: Said, ended: Ended = ENDED) -> AsyncIterator[tuple[Scripted, Cluster]]:
    """Give what was asked for, to make the Event of an operation."""
    script = Scripted(reviews=deque(answers))
    async with connected(script, tmp_path) as cluster:
        await cluster.events.tell(ended)
        yield script, cluster


def test_an_operation_is_an_event_of_its_deployment() -> None:
    made = event(operation_event(ENDED, A, "the-uid", "gp/main"), "host-7")
    name = made["metadata"].pop("name")
    assert name.startswith("a.")
    assert made == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "ns", "annotations": {OPERATION: "d-1"}},
        "eventTime": "1970-01-01T00:00:02.500000Z",
        "reportingController": "gpcore.dev/planner",
        "reportingInstance": "host-7",
        "action": "Scale",
        "reason": "Scaled",
        "type": "Normal",
        "regarding": {
            "apiVersion": "nvidia.com/v1beta1",
            "kind": "DynamoGraphDeployment",
            "namespace": "ns",
            "name": "a",
            "uid": "the-uid",
        },
        "note": "for ns-a: ns/a/prefill 2 to 3: done (- to 1); the fleet went from 4 to 5 GPUs",
    }


def test_one_that_failed_says_why_and_is_a_warning() -> None:
    made = event(operation_event(attrs.evolve(ENDED, status="error", message="no room"), A, "", "gp/main"), "x")
    assert (made["type"], made["reason"], made["note"].endswith("; no room")) == ("Warning", "ScalingFailed", True)
    assert "uid" not in made["regarding"]


def test_the_name_follows_from_the_operation_and_its_ledger() -> None:
    one, same, later, elsewhere = (
        operation_event(ended, A, "", domain).name
        for ended, domain in [
            (ENDED, "gp/main"),
            (attrs.evolve(ENDED, message="told by another"), "gp/main"),
            (attrs.evolve(ENDED, id="d-2"), "gp/main"),
            (ENDED, "gp/other"),
        ]
    )
    assert one == same
    assert len({one, later, elsewhere}) == 3


@given(st.builds(Ended, st.text(), st.floats(), st.floats(), *[st.text()] * 4))
def test_whatever_an_operation_says_the_api_server_can_take_it(ended: Ended) -> None:
    made = event(operation_event(ended, ParticipantId("ns", "a" * 253), "", "gp/main"), "x")
    assert len(made["note"].encode()) <= 1024
    assert made["note"].isprintable()
    assert len(made["metadata"]["name"]) <= 253
    json.dumps(made).encode()


def test_a_condition_is_an_event_of_the_ledger_each_time() -> None:
    condition = Condition("view_stale", "the cluster is not being followed")
    begun, over, again = (
        event(condition_event(condition, ParticipantId("gp", "main"), at, over=ended), "x")
        for at, ended in ((1.0, False), (2.0, True), (3.0, False))
    )
    assert (begun["reason"], begun["type"], begun["note"]) == ("ViewStale", "Warning", condition.detail)
    assert (over["reason"], over["type"], over["note"]) == ("ViewStaleOver", "Normal", f"over: {condition.detail}")
    assert begun["regarding"] == {
        "apiVersion": "gpcore.dev/v1alpha1",
        "kind": "GPULedger",
        "namespace": "gp",
        "name": "main",
    }
    assert len({one["metadata"]["name"] for one in (begun, over, again)}) == 3


@pytest.mark.parametrize("answer", [MADE, refused(409, reason="AlreadyExists")])
async def test_an_event_that_is_there_is_told(answer: Said, tmp_path: Path) -> None:
    async with told(tmp_path, answer) as (script, _):
        (request,) = script.asked
        assert (request.method, request.path) == ("POST", "/apis/events.k8s.io/v1/namespaces/ns/events")
        assert request.query["fieldManager"] == "gp-planner"


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_what_may_pass_is_tried_again(status: int, tmp_path: Path) -> None:
    answers = [refused(status)] * (2 if status == 401 else 1)  # one more is for the credentials
    async with told(tmp_path, *answers, MADE) as (script, _):
        assert len(script.asked) == len(answers) + 1


async def test_what_does_not_pass_is_told_to_whoever_waits(tmp_path: Path) -> None:
    with pytest.raises(PortError, match=r"the Event ns/a\.[0-9a-f]{16} was not made: 503"):
        async with told(tmp_path, *[refused(503)] * 3):
            pass


async def test_an_account_that_may_not_is_a_condition_until_it_may(tmp_path: Path) -> None:
    async with told(tmp_path, refused(403, "events is forbidden"), MADE) as (_, cluster):
        (condition,) = cluster.observer.conditions
        assert condition.kind == "events_forbidden"
        await cluster.events.tell(ENDED)
        assert cluster.observer.conditions == ()


@pytest.mark.parametrize(
    "answer",
    [
        refused(404, "namespaces not found"),
        refused(403, "unable to create new content in namespace ns because it is being terminated"),
        refused(422, "invalid"),
    ],
)
async def test_what_will_never_be_is_not_asked_for_again(answer: Said, tmp_path: Path) -> None:
    async with told(tmp_path, answer) as (script, cluster):
        assert (len(script.asked), cluster.observer.conditions) == (1, ())


async def test_what_is_about_no_object_needs_no_event(tmp_path: Path) -> None:
    async with told(tmp_path, ended=attrs.evolve(ENDED, participant="nobody")) as (script, _):
        assert script.asked == []


async def test_what_holds_the_planner_back_is_told_of_the_ledger_as_it_is_now(tmp_path: Path) -> None:
    ledger: Json = {"metadata": {"name": "main", "uid": "the-uid", "resourceVersion": "7"}, "spec": {}}
    script = Scripted(reads=deque([Said(json.dumps(ledger).encode())]), reviews=deque([MADE]))
    async with connected(script, tmp_path) as cluster, cluster.events.noticing("gp") as notice:
        notice(Condition("view_stale", "no news"), False)  # noqa: FBT003 - it begins
        async with asyncio.timeout(10):
            while len(script.asked) < 2:  # noqa: ASYNC110 - the server is a script
                await asyncio.sleep(0.01)
    assert [(one.method, one.path.rpartition("/")[2]) for one in script.asked] == [("GET", "main"), ("POST", "events")]
