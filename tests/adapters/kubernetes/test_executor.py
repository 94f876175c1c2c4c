"""What the executor sends, and what it makes of answers that a real server seldom gives."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from gpadapters.kubernetes.catalogue import ADAPTERS, GRAPHS
from gpadapters.kubernetes.cluster import Cluster, Pace
from gpadapters.kubernetes.executor import Write, written
from gpadapters.kubernetes.objects import Adapter, Graph, read_adapter, read_graph
from gpcore.events import Listed
from gpcore.plans import Change, Step
from gpcore.pools import Authority, Deployment, ParticipantId, PoolKey, Role
from gpcore.ports import Applied, Applying, Refused, Unknown
from tests.adapters.kubernetes.scripted import QUICK, Said, Scripted, connected, graph, page, refused

OWNER = ParticipantId("ns", "a")
GRAPH = Authority("deployment/a", "u")


def change(role: Role, before: int, after: int, authority: Authority = GRAPH) -> Change:
    return Change(PoolKey(OWNER, role), before, after, 1, authority)


def known(*components: tuple[str, str, int | None], field: str = "components") -> Graph:
    parts = [{"name": name, "type": kind, "replicas": count} for name, kind, count in components]
    spec = parts if field == "components" else {part["name"]: part for part in parts}
    return read_graph(json.dumps(graph() | {"spec": {field: spec}}).encode())


def adapter(component: str) -> Adapter:
    reference = {"name": "a", "componentName": component}
    metadata = {"name": "x", "namespace": "ns", "uid": "ux", "resourceVersion": "1"}
    return read_adapter(json.dumps({"metadata": metadata, "spec": {"replicas": 2, "dgdRef": reference}}).encode())


class TestPatches:
    def test_the_deployment_is_written_with_all_its_components_at_once(self) -> None:
        step = Step((change(Role.PREFILL, 2, 5), change(Role.DECODE, 1, 0)))
        write = written(step, known(("p", "prefill", 2), ("f", "frontend", 1), ("d", "decode", None)), ())
        assert isinstance(write, Write)
        assert (write.plural, write.key) == ("dynamographdeployments", ("ns", "a"))
        assert write.patch == (
            {"op": "test", "path": "/metadata/uid", "value": "u"},
            {"op": "test", "path": "/metadata/deletionTimestamp", "value": None},
            {"op": "test", "path": "/spec/components/0/name", "value": "p"},
            {"op": "test", "path": "/spec/components/0/replicas", "value": 2},
            {"op": "add", "path": "/spec/components/0/replicas", "value": 5},
            {"op": "test", "path": "/spec/components/2/name", "value": "d"},
            {"op": "test", "path": "/spec/components/2/replicas", "value": None},
            {"op": "add", "path": "/spec/components/2/replicas", "value": 0},
        )

    def test_services_are_found_by_their_escaped_names(self) -> None:
        write = written(Step((change(Role.PREFILL, 2, 5),)), known(("p/~", "prefill", 2), field="services"), ())
        assert isinstance(write, Write)
        assert write.patch[2:] == (
            {"op": "test", "path": "/spec/services/p~1~0/replicas", "value": 2},
            {"op": "add", "path": "/spec/services/p~1~0/replicas", "value": 5},
        )

    def test_an_adapter_is_written_instead_of_the_deployment(self) -> None:
        step = Step((change(Role.PREFILL, 2, 5, Authority("adapter/x", "ux")),))
        write = written(step, known(("p", "prefill", 2)), (adapter("p"),))
        assert isinstance(write, Write)
        assert (write.plural, write.key) == ("dynamographdeploymentscalingadapters", ("ns", "x"))
        assert write.patch == (
            {"op": "test", "path": "/metadata/uid", "value": "ux"},
            {"op": "test", "path": "/metadata/deletionTimestamp", "value": None},
            {"op": "test", "path": "/spec/dgdRef/componentName", "value": "p"},
            {"op": "test", "path": "/spec/replicas", "value": 2},
            {"op": "replace", "path": "/spec/replicas", "value": 5},
        )

    def test_a_component_that_got_an_adapter_meanwhile_is_not_written_in_the_deployment(self) -> None:
        write = written(Step((change(Role.PREFILL, 2, 5),)), known(("p", "prefill", 2)), (adapter("p"),))
        assert write == "component p of ns/a has a scaling adapter now"

    @pytest.mark.parametrize(
        ("authority", "found", "why"),
        [
            (GRAPH, None, "ns/a does not exist"),
            (Authority("deployment/a", "old"), known(("p", "prefill", 2)), "deployment/a of ns/a is not the object"),
            (GRAPH, known(("p", "decode", 2)), "ns/a has no component for the role prefill any more"),
            (GRAPH, known(("p", "prefill", 2), ("q", "prefill", 2)), "ns/a has no component for the role prefill"),
            (GRAPH, known(("p", "prefill", None)), "ns/a/prefill was changed to 1 replicas meanwhile, from 2"),
        ],
    )
    def test_what_is_no_longer_there_is_not_written(self, authority: Authority, found: Graph | None, why: str) -> None:
        write = written(Step((change(Role.PREFILL, 2, 5, authority),)), found, ())
        assert isinstance(write, str)
        assert write.startswith(why)


@contextlib.asynccontextmanager
async def serving(
    script: Scripted, folder: Path, pace: Pace = QUICK
) -> AsyncIterator[tuple[Cluster, dict[ParticipantId, Deployment]]]:
    """Observe deployment `a` of *script*, and give what was shown."""
    script.lists = script.lists or deque([page(graph())])
    view: dict[ParticipantId, Deployment] = {}
    whole = asyncio.Event()
    async with connected(script, folder, pace) as cluster:

        async def follow() -> None:
            async for one in cluster.observer.observe():
                for deployment in one.deployments if isinstance(one, Listed) else [getattr(one, "deployment", None)]:
                    if deployment is not None:
                        view[deployment.id] = deployment
                whole.set()

        task = asyncio.create_task(follow())
        try:
            await whole.wait()
            yield cluster, view
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def applied(script: Scripted, folder: Path, pace: Pace = QUICK) -> tuple[Applying, int]:
    """Apply prefill 2 to 5 and give the outcome, and the replicas that were shown by then."""
    async with serving(script, folder, pace) as (cluster, view):
        outcome = await cluster.executor.apply(Step((change(Role.PREFILL, 2, 5),)))
        (pool,) = view[OWNER].pools
        return outcome, pool.replicas


def answer(replicas: int, *, generation: int = 2) -> Said:
    return Said(json.dumps(graph(version="30", generation=generation, replicas=replicas)).encode())


async def test_an_accepted_write_is_shown_before_the_answer_and_costs_one_request(tmp_path: Path) -> None:
    script = Scripted(writes=_one(answer(5)))
    assert await applied(script, tmp_path) == (Applied(), 5)
    (patch,) = [one for one in script.asked if one.method == "PATCH"]
    assert patch.query["fieldManager"] == "gp-planner"
    assert patch.headers["Content-Type"] == "application/json-patch+json"
    assert not [one for one in script.asked if one.method == "GET" and one.path.endswith("/a")]


@pytest.mark.parametrize("status", [404, 409, 422])
@pytest.mark.parametrize(
    ("found", "outcome", "shown"),
    [
        (answer(7), Refused("ns/a/prefill was changed to 7 replicas meanwhile, from 2"), 7),
        (answer(5), Applied(), 5),
        (answer(2, generation=1), Refused("{status} Because: denied"), 2),
        (refused(503), Unknown("{status} Because: denied; and then: 503 Because: no"), 2),
        (refused(404), Unknown("{status} Because: denied; and then: 404 Because: no"), 2),
        (Said(b"{}"), Unknown("the answer is not AnyObject: Object missing required field `metadata`"), 2),
    ],
)
async def test_a_write_that_was_not_accepted_is_judged_by_the_object(
    status: int, found: Said, outcome: Applying, shown: int, tmp_path: Path
) -> None:
    script = Scripted(writes=_one(refused(status, "denied")), reads=_one(found))
    expected = outcome if isinstance(outcome, Applied) else type(outcome)(outcome.detail.format(status=status))
    assert await applied(script, tmp_path) == (expected, shown)


@pytest.mark.parametrize("status", [302, 400, 403, 413, 415])
async def test_a_write_that_is_not_allowed_is_refused_in_the_servers_words(status: int, tmp_path: Path) -> None:
    script = Scripted(writes=_one(refused(status, "a\nlong" + "g" * 900)))
    outcome, _ = await applied(script, tmp_path)
    assert outcome == Refused(f"{status} Because: a long" + "g" * 494)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_of_a_server_in_trouble_nobody_knows(status: int, tmp_path: Path) -> None:
    script = Scripted(writes=_one(refused(status)))
    assert await applied(script, tmp_path) == (Unknown(f"{status} Because: no"), 2)
    assert len(script.patches) == 1


@pytest.mark.parametrize(("asked", "least_s", "most_s"), [("3", 3, 3.1), ("86400", 10, 10.1), ("soon", 0, 0.1)])
async def test_a_server_that_asks_for_patience_gets_it_within_reason(
    asked: str, least_s: float, most_s: float, tmp_path: Path
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    script = Scripted(writes=_one(attrs.evolve(refused(429), headers={"Retry-After": asked})))
    outcome, _ = await applied(script, tmp_path, attrs.evolve(QUICK, sleep=sleep))
    assert isinstance(outcome, Unknown)
    assert least_s <= slept[0] <= most_s


async def test_credentials_that_stay_refused_are_read_again_once(tmp_path: Path) -> None:
    script = Scripted(writes=_one(refused(401)))
    script.writes.append(refused(401))
    assert await applied(script, tmp_path) == (Unknown("401 Because: no"), 2)
    assert len(script.patches) == 2


def _adapted(**more: Said) -> Scripted:
    """Serve no adapters, and a deployment that would like one."""
    writes = deque(more.values())
    return Scripted(lists=deque([page(graph(scalingAdapter={}))]), kinds=[GRAPHS], writes=writes)


async def test_where_nobody_serves_adapters_the_deployment_is_written(tmp_path: Path) -> None:
    assert await applied(_adapted(write=answer(5)), tmp_path) == (Applied(), 5)


async def test_a_component_that_wants_an_adapter_is_not_written_from_the_moment_they_are_served(tmp_path: Path) -> None:
    script = _adapted()
    async with serving(script, tmp_path, attrs.evolve(QUICK, absent_s=60.0)) as (cluster, _):
        script.kinds.append(ADAPTERS)
        outcome = await cluster.executor.apply(Step((change(Role.PREFILL, 2, 5),)))
    assert outcome == Refused("component w of ns/a waits for its scaling adapter")
    assert not script.patches


async def test_a_component_that_wants_an_adapter_is_not_written_where_nobody_knows(tmp_path: Path) -> None:
    script = _adapted()
    async with serving(script, tmp_path, attrs.evolve(QUICK, absent_s=60.0)) as (cluster, _):
        script.discovery.append(refused(503))
        outcome = await cluster.executor.apply(Step((change(Role.PREFILL, 2, 5),)))
    assert outcome == Refused("whether there are scaling adapters is not known: 503 Because: no")
    assert not script.patches


async def test_an_answer_that_is_no_object_leaves_it_open(tmp_path: Path) -> None:
    outcome, _ = await applied(Scripted(writes=_one(Said(b"<html>"))), tmp_path)
    assert isinstance(outcome, Unknown)


def _one(said: Said) -> deque[Said]:
    return deque([said])
