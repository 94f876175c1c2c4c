"""The executor against a real API server: a write lands as a whole on what was decided on, or not at all."""

import asyncio
import http
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest

from gpadapters.kubernetes.cluster import KubernetesExecutor, KubernetesObserver, connect
from gpadapters.kubernetes.schema import FENCE
from gpcore.events import Mark
from gpcore.plans import Step
from gpcore.pools import ParticipantId, PoolKey, Role
from gpcore.ports import Absent, Applied, Applying, Refused, Unknown
from gpcore.testing.checks import CHECKS, Check
from tests.chaos.proxy import FaultProxy, Rule
from tests.cluster import (
    BOTH,
    V1ALPHA1,
    V1BETA1,
    ApiError,
    ApiServer,
    Client,
    FakeOperator,
    Json,
    Options,
    Served,
    adapters,
    disaggregated,
    eventually,
    grant,
    graphs,
    install,
    rule,
)
from tests.cluster.crds import ADAPTERS, GRAPHS
from tests.cluster.objects import Component, components_of, graph
from tests.e2e.following import DOMAIN, QUICK, Follower, listed, rewrite

THEIRS = {"nvidia.com/enable-metrics": "true", "nvidia.com/enable-grove": "false"}
"""The annotations that the objects of these tests are made with."""


@pytest.fixture
async def shown(client: Client, served: Served, namespace: str, tmp_path: Path) -> AsyncIterator[Follower]:
    """Give a followed namespace that holds deployment `a`, prefill 2 and decode 3."""
    client.create(disaggregated("a", prefill=2, decode=3, version=served.versions[-1]), namespace=namespace)
    async with listed(client.access, tmp_path, namespace) as shown:
        yield shown


def stored(client: Client, namespace: str, *, version: str = "v1beta1") -> dict[str, int]:
    """Give what stands in the object."""
    components = components_of(client.get(graphs(namespace, "a", version=version)))
    return {one.type: one.wanted for one in components if one.type in ("prefill", "decode")}


def annotations(client: Client, path: str) -> Json:
    found: Json = client.get(path)["metadata"].get("annotations", {})
    return found


def claimed(write: Step | Mark) -> Json:
    """Give the annotation that *write* leaves."""
    new = write.new if isinstance(write, Mark) else write.fence.new if write.fence is not None else ""
    return {FENCE: f"{DOMAIN}:{new}"}


def bare(obj: Json) -> Json:
    """Give *obj* without any annotations, as the operator makes adapters."""
    return obj | {"metadata": {key: value for key, value in obj["metadata"].items() if key != "annotations"}}


class TestEveryVersion:
    @pytest.fixture(params=[V1ALPHA1, V1BETA1, BOTH], ids=lambda served: "+".join(served.versions))
    def served(self, request: pytest.FixtureRequest) -> Served:
        given: Served = request.param
        return given

    async def test_all_pools_of_a_deployment_are_written_at_once_and_shown_before_the_answer(
        self, shown: Follower, client: Client, served: Served, namespace: str
    ) -> None:
        prefill, decode = shown.pool(Role.PREFILL), shown.pool(Role.DECODE)
        step = shown.step((prefill, 5), (decode, 1))
        assert await shown.cluster.executor.apply(step) == Applied()
        assert (shown.pool().replicas, shown.pool(Role.DECODE).replicas) == (5, 1)
        version = served.versions[-1]
        assert stored(client, namespace, version=version) == {"prefill": 5, "decode": 1}
        obj = client.get(graphs(namespace, "a", version=version))
        assert "gp-planner" in {entry["manager"] for entry in obj["metadata"]["managedFields"]}
        assert obj["metadata"]["generation"] == 2
        assert obj["metadata"]["annotations"].items() >= {**THEIRS, **claimed(step)}.items()

    async def test_a_mark_leaves_its_fence_and_starts_no_rollout(
        self, shown: Follower, client: Client, served: Served, namespace: str
    ) -> None:
        path = graphs(namespace, "a", version=served.versions[-1])
        marks: list[Mark] = []
        for _ in range(3):  # the first fence, and later ones
            marks.append(shown.fenced(shown.pool()))
            assert await shown.mark(marks[-1]) == Applied()
            assert [shown.pool(role).fence for role in (Role.PREFILL, Role.DECODE)] == [marks[-1].new] * 2
        metadata = client.get(path)["metadata"]
        assert metadata["generation"] == 1
        assert metadata["annotations"].items() >= {**THEIRS, **claimed(marks[-1])}.items()
        assert stored(client, namespace, version=served.versions[-1]) == {"prefill": 2, "decode": 3}
        assert isinstance(await shown.mark(marks[1]), Refused)

    async def test_an_absent_count_is_one_and_can_be_written(
        self, client: Client, served: Served, namespace: str, tmp_path: Path
    ) -> None:
        version = served.versions[-1]
        client.create(disaggregated("a", prefill=None, version=version), namespace=namespace)
        async with listed(client.access, tmp_path, namespace) as shown:
            assert await shown.apply((shown.pool(), 4)) == Applied()
            assert stored(client, namespace, version=version)["prefill"] == 4

    async def test_a_component_with_an_adapter_is_written_there(
        self, client: Client, served: Served, namespace: str, operator: FakeOperator, tmp_path: Path
    ) -> None:
        version = served.versions[-1]
        client.create(disaggregated("a", prefill=2, scaling_adapter=True, version=version), namespace=namespace)
        eventually(lambda: len(client.items(adapters(namespace, version=version))) == 2)
        operator.pause()  # so that nobody relays
        async with listed(client.access, tmp_path, namespace) as shown:
            assert await shown.apply((shown.pool(), 6)) == Applied()
            assert (shown.pool().replicas, shown.pool().relayed) == (6, 2)
            path = adapters(namespace, "a-vllmprefillworker", version=version)
            assert client.get(path)["spec"]["replicas"] == 6
            assert stored(client, namespace, version=version)["prefill"] == 2
            mark = shown.fenced(shown.pool())
            assert await shown.mark(mark) == Applied()
            assert (shown.pool().fence, shown.pool(Role.DECODE).fence) == (mark.new, "")
            assert client.get(path)["metadata"]["generation"] == 2
            assert annotations(client, path) == claimed(mark)
            assert FENCE not in annotations(client, graphs(namespace, "a", version=version))
            operator.resume()
            await shown.until(lambda: shown.pool().relayed == 6)


class TestWhatChangedMeanwhile:
    async def test_a_count_that_somebody_else_changed_is_not_overwritten(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        seen = (shown.pool(Role.PREFILL), shown.pool(Role.DECODE))
        rewrite(client, namespace, "a", 7)
        outcome = await shown.apply((seen[0], 3), (seen[1], 4))
        assert outcome == Refused(f"{namespace}/a/prefill was changed to 7 replicas meanwhile, from 2")
        assert (shown.pool().replicas, shown.pool(Role.DECODE).replicas) == (7, 3)
        assert stored(client, namespace) == {"prefill": 7, "decode": 3}

    async def test_a_step_that_landed_before_is_applied_and_has_no_second_effect(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        step = shown.step((shown.pool(), 3))
        for _ in range(2):
            assert await shown.cluster.executor.apply(step) == Applied()
            assert shown.pool().replicas == 3
        rewrite(client, namespace, "a", 2)  # as it was before, but for the fence
        assert await shown.cluster.executor.apply(step) == Applied()
        assert shown.pool().replicas == 2

    async def test_a_deployment_that_is_gone_is_shown_to_be_gone(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        pool = shown.pool()
        client.delete(graphs(namespace, "a"))
        gone = Absent(f"deployment/a of {namespace}/a does not exist")
        assert await shown.apply((pool, 3)) == gone
        assert not shown.view
        assert await shown.apply((pool, 3)) == gone
        assert await shown.mark(shown.fenced(pool)) == gone

    async def test_a_successor_of_the_same_name_is_left_alone(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        pool = shown.pool()
        client.delete(graphs(namespace, "a"))
        client.create(disaggregated("a", prefill=2, decode=3), namespace=namespace)
        assert isinstance(await shown.apply((pool, 5)), Refused)
        assert shown.pool().authority != pool.authority
        assert isinstance(await shown.mark(shown.fenced(pool)), Refused)
        assert stored(client, namespace) == {"prefill": 2, "decode": 3}

    async def test_a_successor_that_was_made_of_what_was_exported_is_left_alone(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        """It has the fence of its predecessor, as after `kubectl replace --force`."""
        assert await shown.mark(shown.fenced(shown.pool())) == Applied()
        pool, path = shown.pool(), graphs(namespace, "a")
        exported = client.get(path)
        client.delete(path)
        head = {key: exported["metadata"][key] for key in ("name", "labels", "annotations")}
        client.create(exported | {"metadata": head}, namespace=namespace)
        refused = await shown.apply((pool, 5))
        assert isinstance(refused, Refused)
        assert refused.detail.startswith(f"deployment/a of {namespace}/a is not the object that it was")
        assert isinstance(await shown.mark(shown.fenced(pool)), Refused)
        assert (shown.pool().fence, shown.pool().replicas) == (pool.fence, 2)

    async def test_a_deployment_that_is_being_deleted_takes_marks_and_no_replicas(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        pool, path = shown.pool(), graphs(namespace, "a")
        client.merge(path, {"metadata": {"finalizers": ["test.example/hold"]}})
        client.delete(path)
        assert await shown.apply((pool, 5)) == Refused(f"deployment/a of {namespace}/a is being deleted")
        mark = shown.fenced(pool)
        assert await shown.mark(mark) == Applied()
        assert (shown.pool().replicas, shown.pool().fence) == (2, mark.new)
        assert "it is being deleted; it counts until it is gone" in shown.view["a"].problems
        client.merge(path, {"metadata": {"finalizers": None}})

    async def test_components_that_changed_places_are_told_by_name(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        pool, path = shown.pool(), graphs(namespace, "a")
        obj = client.get(path)
        obj["spec"]["components"].reverse()
        client.replace(path, obj)
        assert await shown.apply((pool, 5)) == Applied()
        assert stored(client, namespace) == {"prefill": 5, "decode": 3}

    async def test_an_adapter_that_was_made_meanwhile_takes_over(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        pool = shown.pool()
        target = {"name": "a", "componentName": "VllmPrefillWorker"}
        adapter: Json = {
            "apiVersion": "nvidia.com/v1beta1",
            "kind": "DynamoGraphDeploymentScalingAdapter",
            "metadata": {"name": "mine"},
            "spec": {"replicas": 2, "dgdRef": target},
        }
        client.create(adapter, namespace=namespace)
        await shown.until(lambda: shown.pool().authority.name == "adapter/mine")
        assert await shown.apply((shown.pool(), 4)) == Applied()
        assert stored(client, namespace)["prefill"] == 2
        assert pool.authority.name == "deployment/a"


class TestFences:
    async def test_of_many_writers_through_one_fence_one_lands(
        self, shown: Follower, client: Client, namespace: str, tmp_path: Path
    ) -> None:
        """Three planners, each with steps and marks that need the same fence; what they say is what is there."""
        assert await shown.mark(shown.fenced(shown.pool())) == Applied()
        pool = shown.pool()
        async with AsyncExitStack() as stack:
            planners = [shown]
            for name in ("second", "third"):
                (tmp_path / name).mkdir()
                planners.append(await stack.enter_async_context(listed(client.access, tmp_path / name, namespace)))
            writes: list[tuple[Follower, Step | Mark]] = []
            for count, one in enumerate(planners * 8):
                writes.append((one, one.fenced(pool) if count % 2 else one.step((pool, 10 + count))))
            assert len(writes) == 24
            outcomes = await asyncio.gather(*(_carried_out(one, write) for one, write in writes))
            assert outcomes.count(Applied()) == 1
            assert all(isinstance(one, Applied | Refused) for one in outcomes)
            landed = outcomes.index(Applied())
            write = writes[landed][1]
            assert annotations(client, graphs(namespace, "a")) == {**THEIRS, **claimed(write)}
            wanted = 2 if isinstance(write, Mark) else 10 + landed
            assert stored(client, namespace)["prefill"] == wanted
            for one in planners:
                await one.until(lambda one=one: one.pool().replicas == wanted)  # type: ignore[misc]

    async def test_a_step_that_is_on_its_way_for_long_never_lands_once_it_was_killed(
        self, shown: Follower, client: Client, namespace: str, tmp_path: Path
    ) -> None:
        (tmp_path / "slow").mkdir()
        with FaultProxy(client.access) as network:
            async with listed(network.access, tmp_path / "slow", namespace) as slow:
                late = network.rule(Rule(method="PATCH", held=True))
                step = slow.step((slow.pool(), 5))
                applying = asyncio.create_task(slow.cluster.executor.apply(step))
                await asyncio.to_thread(late.arrived.wait)
                kill = shown.fenced(shown.pool())
                assert await shown.mark(kill) == Applied()
                network.release(late)
                outcome = await applying
                assert isinstance(outcome, Refused)
                assert "had another write meanwhile" in outcome.detail
                assert (slow.pool().fence, slow.pool().replicas) == (kill.new, 2)
                assert stored(client, namespace)["prefill"] == 2

    async def test_a_step_that_was_given_up_and_lands_late_keeps_the_kill_from_landing(
        self, shown: Follower, client: Client, namespace: str, tmp_path: Path
    ) -> None:
        (tmp_path / "slow").mkdir()
        with FaultProxy(client.access) as network:
            async with listed(network.access, tmp_path / "slow", namespace) as slow:
                late = network.rule(Rule(method="PATCH", held=True))
                step = slow.step((slow.pool(), 5))
                applying = asyncio.create_task(slow.cluster.executor.apply(step))
                await asyncio.to_thread(late.arrived.wait)
                applying.cancel()
                network.release(late)
                await shown.until(lambda: shown.replicas() == 5)
                kill = Mark(shown.fenced(shown.pool()).key, shown.pool().authority, "", "kill")
                assert isinstance(await shown.mark(kill), Refused)
                assert await shown.cluster.executor.apply(step) == Applied()
                assert annotations(client, graphs(namespace, "a")) == {**THEIRS, **claimed(step)}

    async def test_of_a_step_and_its_kill_at_once_one_lands(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        for count in range(3, 23):
            pool = shown.pool()
            step, kill = shown.step((pool, count)), shown.fenced(pool)
            writes = (_carried_out(shown, step), _carried_out(shown, kill))
            outcomes = await asyncio.gather(*(writes if count % 2 else writes[::-1]))
            assert outcomes.count(Applied()) == 1
            applied = outcomes[0 if count % 2 else 1] == Applied()
            wanted = count if applied else pool.replicas
            assert stored(client, namespace)["prefill"] == shown.pool().replicas == wanted
            assert shown.pool().fence == (step.fence.new if applied and step.fence is not None else kill.new)

    async def test_what_another_ledger_claims_is_shown_and_left_alone(
        self, shown: Follower, client: Client, namespace: str, tmp_path: Path
    ) -> None:
        (tmp_path / "theirs").mkdir()
        async with listed(client.access, tmp_path / "theirs", namespace, domain="gp/theirs") as theirs:
            assert await theirs.apply((theirs.pool(), 4)) == Applied()
            await shown.until(lambda: shown.pool().fence is None)
            (problem,) = shown.view["a"].problems
            assert problem == "deployment/a belongs to another ledger, gp/theirs; it is not scaled"
            for outcome in (await shown.apply((shown.pool(), 5)), await shown.mark(shown.fenced(shown.pool()))):
                assert isinstance(outcome, Refused)
                assert "belongs to another ledger, gp/theirs" in outcome.detail
            assert stored(client, namespace)["prefill"] == 4
            assert await theirs.apply((theirs.pool(), 3)) == Applied()

    async def test_the_first_annotation_of_somebody_else_at_the_same_time_is_not_lost(
        self, client: Client, namespace: str, tmp_path: Path
    ) -> None:
        path = graphs(namespace, "a")
        client.create(bare(disaggregated("a", prefill=2)), namespace=namespace)
        assert annotations(client, path) == {}
        async with listed(client.access, tmp_path, namespace) as shown:
            for count in range(10):
                mark = Mark(shown.fenced(shown.pool()).key, shown.pool().authority, "", f"f{count}")
                client.merge(path, {"metadata": {"annotations": {"theirs": str(count)}}})  # not told by the watch yet
                assert await shown.mark(mark) == Applied()
                assert annotations(client, path) == {"theirs": str(count), **claimed(mark)}
                client.merge(path, {"metadata": {"annotations": None}})
                await shown.until(lambda: shown.pool().fence == "")

    async def test_a_fence_that_somebody_took_away_lets_nothing_through(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        assert await shown.mark(shown.fenced(shown.pool())) == Applied()
        pool = shown.pool()
        client.merge(graphs(namespace, "a"), {"metadata": {"annotations": {FENCE: None}}})
        assert isinstance(await shown.apply((pool, 5)), Refused)
        assert shown.pool().fence == ""
        assert await shown.mark(shown.fenced(shown.pool())) == Applied()


class TestRefusals:
    async def test_without_the_right_to_patch_the_servers_words_are_passed_on(
        self, cluster: ApiServer, namespace: str, tmp_path: Path
    ) -> None:
        cluster.client.create(disaggregated("a"), namespace=namespace)
        reader = cluster.service_account(namespace, "reader")
        reading = rule(["get", "list", "watch"], GRAPHS, ADAPTERS)
        grant(cluster.client, namespace, "reader", [reading, rule(["patch"], GRAPHS)])
        async with listed(reader, tmp_path, namespace) as shown:
            grant(cluster.client, namespace, "reader", [reading])
            with Client(reader) as asking:
                eventually(lambda: _forbidden(asking, graphs(namespace, "a")))
            outcome = await shown.apply((shown.pool(), 2))
            assert isinstance(outcome, Refused)
            assert "403 Forbidden" in outcome.detail
            assert 'cannot patch resource "dynamographdeployments"' in outcome.detail

    async def test_what_the_schema_denies_is_refused_with_the_servers_words(self, shown: Follower) -> None:
        outcome = await shown.apply((shown.pool(), -1))
        assert isinstance(outcome, Refused)
        assert str(http.HTTPStatus.UNPROCESSABLE_ENTITY.value) in outcome.detail
        assert shown.pool().replicas == 2

    async def test_many_writers_of_one_deployment_agree(self, shown: Follower, client: Client, namespace: str) -> None:
        """Of many steps decided on the same count one lands; the others are refused and shown why."""
        pool = shown.pool()
        outcomes = await asyncio.gather(*(shown.apply((pool, 10 + n)) for n in range(16)))
        assert outcomes.count(Applied()) == 1
        assert all(isinstance(one, Applied | Refused) for one in outcomes)
        assert stored(client, namespace)["prefill"] == shown.pool().replicas == 10 + outcomes.index(Applied())


class TestFaults:
    async def test_of_a_server_that_is_down_nobody_knows(self, assets: Path, tmp_path: Path) -> None:
        with ApiServer(assets, Options()) as own:
            install(own.client, V1BETA1)
            namespace = own.namespace()
            own.client.create(disaggregated("a", prefill=2), namespace=namespace)
            async with listed(own.admin, tmp_path, namespace) as shown:
                pool = shown.pool()
                own.kill()
                assert isinstance(await shown.apply((pool, 4)), Unknown)
                await asyncio.to_thread(own.restart)
                while isinstance(outcome := await shown.apply((shown.pool(), 4)), Unknown):
                    pass
                assert outcome == Applied()
                assert shown.pool().replicas == 4
                assert stored(own.client, namespace)["prefill"] == 4


def _forbidden(client: Client, path: str) -> bool:
    try:
        client.patch(path, [], dryRun="All")
    except ApiError as error:
        return error.status == http.HTTPStatus.FORBIDDEN
    return False


@attrs.frozen
class World:
    """Implements `gpcore.testing.checks.World` with a namespace of the real API server."""

    observer: KubernetesObserver
    executor: KubernetesExecutor
    namespace: str
    client: Client

    async def create(self, participant: ParticipantId, replicas: Mapping[Role, int]) -> None:
        parts = [Component(f"{role.value}s", role.value, count, 1) for role, count in replicas.items()]
        await asyncio.to_thread(self.client.create, graph(participant.name, parts), namespace=participant.namespace)

    async def scale(self, pool: PoolKey, replicas: int) -> None:
        path = graphs(pool.participant.namespace, pool.participant.name)
        roles = [one.type for one in components_of(await asyncio.to_thread(self.client.get, path))]
        pointer = f"/spec/components/{roles.index(pool.role.value)}/replicas"
        await asyncio.to_thread(self.client.patch, path, [{"op": "add", "path": pointer, "value": replicas}])

    async def delete(self, participant: ParticipantId) -> None:
        await asyncio.to_thread(self.client.delete, graphs(participant.namespace, participant.name))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_cluster_keeps_the_promises_of_its_ports(check: Check, cluster: ApiServer, tmp_path: Path) -> None:
    @asynccontextmanager
    async def maker() -> AsyncIterator[World]:
        namespace = cluster.namespace()
        kubeconfig = cluster.admin.write_kubeconfig(tmp_path / "kubeconfig")
        async with connect([namespace], domain=DOMAIN, kubeconfig=kubeconfig, pace=QUICK) as ports:
            yield World(ports.observer, ports.executor, namespace, cluster.client)

    await check(maker)


async def _carried_out(one: Follower, write: Step | Mark) -> Applying:
    return await (one.mark(write) if isinstance(write, Mark) else one.cluster.executor.apply(write))
