"""The executor against a real API server: a write lands as a whole on what was decided on, or not at all."""

import asyncio
import http
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpcore.pools import Role
from gpcore.ports import Applied, Refused, Unknown
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
from tests.cluster.objects import components_of
from tests.e2e.following import Follower, listed, rewrite


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


class TestEveryVersion:
    @pytest.fixture(params=[V1ALPHA1, V1BETA1, BOTH], ids=lambda served: "+".join(served.versions))
    def served(self, request: pytest.FixtureRequest) -> Served:
        given: Served = request.param
        return given

    async def test_all_pools_of_a_deployment_are_written_at_once_and_shown_before_the_answer(
        self, shown: Follower, client: Client, served: Served, namespace: str
    ) -> None:
        prefill, decode = shown.pool(Role.PREFILL), shown.pool(Role.DECODE)
        assert await shown.apply((prefill, 5), (decode, 1)) == Applied()
        assert (shown.pool().replicas, shown.pool(Role.DECODE).replicas) == (5, 1)
        version = served.versions[-1]
        assert stored(client, namespace, version=version) == {"prefill": 5, "decode": 1}
        obj = client.get(graphs(namespace, "a", version=version))
        assert "gp-planner" in {entry["manager"] for entry in obj["metadata"]["managedFields"]}
        assert obj["metadata"]["generation"] == 2

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

    async def test_a_step_that_landed_before_is_applied(self, shown: Follower) -> None:
        pool = shown.pool()
        assert await shown.apply((pool, 3)) == Applied()
        assert await shown.apply((pool, 3)) == Applied()
        assert shown.pool().replicas == 3

    async def test_a_deployment_that_is_gone_is_shown_to_be_gone(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        pool = shown.pool()
        client.delete(graphs(namespace, "a"))
        assert isinstance(await shown.apply((pool, 3)), Refused)
        assert not shown.view
        assert await shown.apply((pool, 3)) == Refused(f"{namespace}/a does not exist")

    async def test_a_successor_of_the_same_name_is_left_alone(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        pool = shown.pool()
        client.delete(graphs(namespace, "a"))
        client.create(disaggregated("a", prefill=2, decode=3), namespace=namespace)
        assert isinstance(await shown.apply((pool, 5)), Refused)
        assert shown.pool().authority != pool.authority
        assert stored(client, namespace) == {"prefill": 2, "decode": 3}

    async def test_a_deployment_that_is_being_deleted_is_left_alone(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        pool, path = shown.pool(), graphs(namespace, "a")
        client.merge(path, {"metadata": {"finalizers": ["test.example/hold"]}})
        client.delete(path)
        assert isinstance(await shown.apply((pool, 5)), Refused)
        assert shown.pool().replicas == 2
        assert "it is being deleted; it counts until it is gone" in shown.view["a"].problems
        client.merge(path, {"metadata": {"finalizers": None}})

    async def test_components_that_changed_places_are_told_by_name(
        self, shown: Follower, client: Client, namespace: str
    ) -> None:
        pool, path = shown.pool(), graphs(namespace, "a")
        obj = client.get(path)
        obj["spec"]["components"].reverse()
        client.replace(path, obj)
        outcome = await shown.apply((pool, 5))
        if outcome != Applied():  # the watch had not told yet, so the first try tested the old place
            assert await shown.apply((shown.pool(), 5)) == Applied()
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
                while isinstance(outcome := await shown.apply((pool, 4)), Unknown):
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
