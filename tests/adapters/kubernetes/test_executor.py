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
from gpadapters.kubernetes.executor import Write, marked, target_of, written
from gpadapters.kubernetes.objects import Adapter, Graph, read_adapter, read_graph
from gpadapters.kubernetes.schema import FENCE
from gpcore.errors import InvalidError
from gpcore.events import Listed, Mark
from gpcore.fences import Fence
from gpcore.ledger import ObjectKey
from gpcore.plans import Change, Step
from gpcore.pools import Authority, Deployment, ParticipantId, Pool, PoolKey, Role
from gpcore.ports import Absent, Applied, Applying, Refused, Unknown
from tests.adapters.kubernetes.scripted import DOMAIN, QUICK, Json, Said, Scripted, connected, graph, page, refused

OWNER = ParticipantId("ns", "a")
GRAPH = Authority("deployment/a", "u")
POINTER = "/metadata/annotations/gpcore.dev~1fence"
SAME: Json = {"op": "test", "path": "/metadata/uid", "value": "u"}
ALIVE: list[Json] = [{"op": "test", "path": "/metadata/deletionTimestamp", "value": None}, SAME]
FENCED: Json = {"op": "test", "path": POINTER, "value": "gp/main:old"}
LEFT: Json = {"op": "add", "path": POINTER, "value": "gp/main:new"}


def change(role: Role, before: int, after: int, authority: Authority = GRAPH) -> Change:
    return Change(PoolKey(OWNER, role), before, after, 1, authority)


def step(*changes: Change, old: str = "old") -> Step:
    return Step(changes, Fence(old, "new", "kill"))


def mark(authority: Authority = GRAPH, *, old: str = "old") -> Mark:
    return Mark(ObjectKey(OWNER, authority.name), authority, old, "new")


def known(
    *components: tuple[str, str, int | None], field: str = "components", annotations: Json | None = None
) -> Graph:
    parts = [{"name": name, "type": kind, "replicas": count} for name, kind, count in components]
    spec = parts if field == "components" else {part["name"]: part for part in parts}
    metadata = graph()["metadata"] | ({} if annotations is None else {"annotations": annotations})
    return read_graph(json.dumps({"metadata": metadata, "spec": {field: spec}}).encode())


def adapter(component: str) -> Adapter:
    reference = {"name": "a", "componentName": component}
    metadata = {"name": "x", "namespace": "ns", "uid": "ux", "resourceVersion": "1"}
    return read_adapter(json.dumps({"metadata": metadata, "spec": {"replicas": 2, "dgdRef": reference}}).encode())


def patch_of(one: Step | Mark, found: Graph | None, *adapters: Adapter) -> list[Json]:
    """Give what is sent, which must be something."""
    if isinstance(one, Mark):
        write = marked(one, adapters[0] if adapters else found, domain=DOMAIN)
    else:
        write = written(one, found, adapters, domain=DOMAIN)
    assert isinstance(write, Write)
    return list(write.patch)


class TestPatches:
    def test_the_deployment_is_written_with_all_its_components_at_once(self) -> None:
        one = step(change(Role.PREFILL, 2, 5), change(Role.DECODE, 1, 0))
        assert patch_of(one, known(("p", "prefill", 2), ("f", "frontend", 1), ("d", "decode", None))) == [
            *ALIVE,
            FENCED,
            {"op": "test", "path": "/spec/components/0/name", "value": "p"},
            {"op": "test", "path": "/spec/components/0/replicas", "value": 2},
            {"op": "add", "path": "/spec/components/0/replicas", "value": 5},
            {"op": "test", "path": "/spec/components/2/name", "value": "d"},
            {"op": "test", "path": "/spec/components/2/replicas", "value": None},
            {"op": "add", "path": "/spec/components/2/replicas", "value": 0},
            LEFT,
        ]
        target = target_of(one, DOMAIN)
        assert (target.plural, target.key) == ("dynamographdeployments", ("ns", "a"))

    def test_services_are_found_by_their_escaped_names(self) -> None:
        assert patch_of(step(change(Role.PREFILL, 2, 5)), known(("p/~", "prefill", 2), field="services")) == [
            *ALIVE,
            FENCED,
            {"op": "test", "path": "/spec/services/p~1~0/replicas", "value": 2},
            {"op": "add", "path": "/spec/services/p~1~0/replicas", "value": 5},
            LEFT,
        ]

    def test_an_adapter_is_written_instead_of_the_deployment(self) -> None:
        one = step(change(Role.PREFILL, 2, 5, Authority("adapter/x", "ux")), old="")
        assert patch_of(one, known(("p", "prefill", 2)), adapter("p")) == [
            {"op": "test", "path": "/metadata/deletionTimestamp", "value": None},
            {"op": "test", "path": "/metadata/uid", "value": "ux"},
            {"op": "test", "path": "/metadata/annotations", "value": None},
            {"op": "test", "path": "/spec/dgdRef/componentName", "value": "p"},
            {"op": "test", "path": "/spec/replicas", "value": 2},
            {"op": "replace", "path": "/spec/replicas", "value": 5},
            {"op": "add", "path": "/metadata/annotations", "value": {FENCE: "gp/main:new"}},
        ]
        target = target_of(one, DOMAIN)
        assert (target.plural, target.key) == ("dynamographdeploymentscalingadapters", ("ns", "x"))

    @pytest.mark.parametrize(
        ("annotations", "tested"), [({"other": "x"}, None), ({FENCE: ""}, ""), ({FENCE: "gp/main:other"}, None)]
    )
    def test_the_first_fence_comes_where_there_is_none(self, annotations: Json, tested: str | None) -> None:
        assert patch_of(mark(old=""), known(annotations=annotations)) == [
            SAME,
            {"op": "test", "path": POINTER, "value": tested},
            LEFT,
        ]

    def test_a_mark_changes_the_fence_alone_and_tells_an_object_by_its_uid_where_that_is_known(self) -> None:
        assert patch_of(mark(), known()) == [SAME, FENCED, LEFT]
        assert patch_of(mark(Authority("deployment/a")), known()) == [FENCED, LEFT]
        assert target_of(mark(Authority("adapter/x")), DOMAIN).key == ("ns", "x")
        assert marked(mark(), None, domain=DOMAIN) == "deployment/a of ns/a is not known"

    def test_a_step_without_a_fence_is_never_written(self) -> None:
        with pytest.raises(ValueError, match="a step without a fence is never written: deployment/a of ns/a"):
            written(Step((change(Role.PREFILL, 2, 5),)), known(("p", "prefill", 2)), (), domain=DOMAIN)

    @pytest.mark.parametrize("name", ["", "a", "pod/a", "deployment/", "deployment/../../nodes/a", "adapter/A b"])
    def test_what_no_object_is_called_becomes_no_part_of_a_path(self, name: str) -> None:
        with pytest.raises(InvalidError):
            target_of(mark(Authority(name)), DOMAIN)

    def test_a_component_that_got_an_adapter_meanwhile_is_not_written_in_the_deployment(self) -> None:
        found = known(("p", "prefill", 2))
        write = written(step(change(Role.PREFILL, 2, 5)), found, (adapter("p"),), domain=DOMAIN)
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
        write = written(step(change(Role.PREFILL, 2, 5, authority)), found, (), domain=DOMAIN)
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


async def carried_out(one: Step | Mark, script: Scripted, folder: Path, pace: Pace = QUICK) -> tuple[Applying, Pool]:
    """Carry out *one* and give the outcome, and the pool that was shown by then."""
    async with serving(script, folder, pace) as (cluster, view):
        executor = cluster.executor
        outcome = await (executor.mark(one) if isinstance(one, Mark) else executor.apply(one))
        (pool,) = view[OWNER].pools
        return outcome, pool


async def applied(script: Scripted, folder: Path, pace: Pace = QUICK) -> tuple[Applying, int]:
    """Apply prefill 2 to 5 and give the outcome, and the replicas that were shown by then."""
    outcome, pool = await carried_out(step(change(Role.PREFILL, 2, 5)), script, folder, pace)
    return outcome, pool.replicas


def answer(replicas: int, *, generation: int = 2, fence: str = "new", **more: object) -> Said:
    obj = graph(version="30", generation=generation, replicas=replicas, fence=fence)
    obj["metadata"] |= more
    return Said(json.dumps(obj).encode())


STANDS = answer(2, generation=1, fence="old")


async def test_an_accepted_write_is_shown_before_the_answer_and_costs_one_request(tmp_path: Path) -> None:
    script = Scripted(writes=_one(answer(5)))
    assert await applied(script, tmp_path) == (Applied(), 5)
    (patch,) = [one for one in script.asked if one.method == "PATCH"]
    assert patch.query["fieldManager"] == "gp-planner"
    assert patch.headers["Content-Type"] == "application/json-patch+json"
    assert not [one for one in script.asked if one.method == "GET" and one.path.endswith("/a")]


async def test_a_mark_is_shown_before_the_answer_and_costs_one_request(tmp_path: Path) -> None:
    script = Scripted(writes=_one(answer(2, generation=1)))
    outcome, pool = await carried_out(mark(), script, tmp_path)
    assert (outcome, pool.fence, pool.replicas) == (Applied(), "new", 2)
    assert script.patches == [[SAME, FENCED, LEFT]]


async def test_a_write_that_leaves_another_fence_than_ours_has_not_landed_for_all_we_know(tmp_path: Path) -> None:
    script = Scripted(writes=_one(answer(5, fence="old")))
    unsure = Unknown("deployment/a of ns/a was written, but does not show the fence of the write")
    assert await applied(script, tmp_path) == (unsure, 5)


@pytest.mark.parametrize("status", [404, 409, 422])
@pytest.mark.parametrize(
    ("found", "outcome", "shown"),
    [
        (answer(7, fence="old"), Refused("ns/a/prefill was changed to 7 replicas meanwhile, from 2"), 7),
        (answer(5, fence="old"), Refused("ns/a/prefill was changed to 5 replicas meanwhile, from 2"), 5),
        (answer(5), Applied(), 5),
        (answer(7), Applied(), 7),
        (
            answer(5, fence="x"),
            Refused("deployment/a of ns/a had another write meanwhile: {status} Because: denied"),
            5,
        ),
        (
            answer(2, uid="v"),
            Refused("deployment/a of ns/a is not the object that it was: {status} Because: denied"),
            2,
        ),
        (
            answer(2, fence="old", deletionTimestamp="2026-01-01T00:00:00Z"),
            Refused("deployment/a of ns/a is being deleted"),
            2,
        ),
        (
            answer(5, annotations={FENCE: "other/one:new"}),
            Refused("deployment/a of ns/a belongs to another ledger, other/one: {status} Because: denied"),
            5,
        ),
        (STANDS, Refused("{status} Because: denied"), 2),
        (refused(503), Unknown("{status} Because: denied; and then: 503 Because: no"), 2),
        (refused(404), Unknown("{status} Because: denied; and then: 404 Because: no"), 2),
        (Said(b"{}"), Unknown("the answer is not AnyObject: Object missing required field `metadata`"), 2),
        (Said(json.dumps(graph("b")).encode()), Unknown("the answer is not deployment/a of ns/a"), 2),
    ],
)
async def test_a_write_that_was_not_accepted_is_judged_by_the_fence_on_the_object(
    status: int, found: Said, outcome: Applying, shown: int, tmp_path: Path
) -> None:
    script = Scripted(writes=_one(refused(status, "denied")), reads=_one(found))
    expected = outcome if isinstance(outcome, Applied) else type(outcome)(outcome.detail.format(status=status))
    assert await applied(script, tmp_path) == (expected, shown)
    assert len(script.patches) == 1


async def test_an_object_that_is_asked_for_by_name_and_not_found_is_absent(tmp_path: Path) -> None:
    gone = refused(404, details={"name": "a", "kind": "dynamographdeployments"})
    script = Scripted(writes=_one(gone), reads=_one(gone))
    async with serving(script, tmp_path) as (cluster, _):
        assert await cluster.executor.mark(mark()) == Absent("deployment/a of ns/a does not exist")
        script.reads.append(gone)
        absent = await cluster.executor.apply(step(change(Role.PREFILL, 2, 5)))
        assert absent == Absent("deployment/a of ns/a does not exist")
    assert len(script.patches) == 1


async def test_what_is_not_known_is_read_before_it_is_marked(tmp_path: Path) -> None:
    script = Scripted(reads=_one(Said(json.dumps(graph("b", uid="ub", version="2")).encode())))
    script.writes.append(Said(json.dumps(graph("b", uid="ub", version="3", fence="new")).encode()))
    async with serving(script, tmp_path) as (cluster, view):
        other = ParticipantId("ns", "b")
        one = Mark(ObjectKey(other, "deployment/b"), Authority("deployment/b"), "old", "new")
        assert await cluster.executor.mark(one) == Applied()
        assert view[other].pools[0].fence == "new"
    assert script.patches == [[FENCED, LEFT]]


async def test_a_patch_that_rests_on_old_news_is_made_anew_and_none_is_sent_twice(tmp_path: Path) -> None:
    """The object has got its first annotation since it was seen: the whole map must not be written over."""
    bare = graph()
    del bare["metadata"]["annotations"]
    read = graph(version="3")
    read["metadata"]["annotations"] = {"other": "x"}
    script = Scripted(lists=deque([page(bare)]), writes=deque([refused(422), answer(2, generation=1)]))
    script.reads.append(Said(json.dumps(read).encode()))
    outcome, pool = await carried_out(mark(old=""), script, tmp_path)
    assert (outcome, pool.fence) == (Applied(), "new")
    assert [patch[1] for patch in script.patches] == [
        {"op": "test", "path": "/metadata/annotations", "value": None},
        {"op": "test", "path": POINTER, "value": None},
    ]


async def test_an_object_that_changes_again_and_again_is_not_written_for_ever(tmp_path: Path) -> None:
    script = Scripted()
    for version, name in enumerate("abc"):
        moved = graph(version=str(20 + version), generation=2 + version, name="a")
        moved["spec"]["components"].insert(0, {"name": name, "type": "frontend"})
        moved["spec"]["components"][:0] = [{"name": f"{name}{n}"} for n in range(version)]
        script.reads.append(Said(json.dumps(moved).encode()))
        script.writes.append(refused(422))
    outcome, _ = await applied(script, tmp_path)
    assert outcome == Refused("422 Because: no")
    assert len(script.patches) == 3


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
    script.reads.append(Said(json.dumps(graph(scalingAdapter={})).encode()))
    async with serving(script, tmp_path, attrs.evolve(QUICK, absent_s=60.0)) as (cluster, _):
        script.kinds.append(ADAPTERS)
        outcome = await cluster.executor.apply(step(change(Role.PREFILL, 2, 5)))
    assert outcome == Refused("component w of ns/a waits for its scaling adapter")
    assert not script.patches


async def test_a_component_that_wants_an_adapter_is_not_written_where_nobody_knows(tmp_path: Path) -> None:
    script = _adapted()
    async with serving(script, tmp_path, attrs.evolve(QUICK, absent_s=60.0)) as (cluster, _):
        script.discovery.append(refused(503))
        outcome = await cluster.executor.apply(step(change(Role.PREFILL, 2, 5)))
    assert outcome == Refused("whether there are scaling adapters is not known: 503 Because: no")
    assert not script.patches


async def test_an_answer_that_is_no_object_leaves_it_open(tmp_path: Path) -> None:
    outcome, _ = await applied(Scripted(writes=_one(Said(b"<html>"))), tmp_path)
    assert isinstance(outcome, Unknown)


def _one(said: Said) -> deque[Said]:
    return deque([said])
