"""The observer against a real API server: nothing missed, nothing invented, whatever happens to the connection."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from gpadapters.kubernetes.cluster import Pace, connect
from gpcore.events import Listed, Seen, Stale
from gpcore.pools import ParticipantId
from gpcore.ports import Applied, Refused
from tests.cluster import (
    BOTH,
    V1ALPHA1,
    V1BETA1,
    ApiServer,
    Client,
    FakeOperator,
    Options,
    Served,
    adapters,
    create_all,
    disaggregated,
    eventually,
    fleet,
    graphs,
    install,
    pool,
    webhook,
)
from tests.e2e.following import DOMAIN, QUICK, Follower, following, listed, rewrite


class TestEveryVersion:
    @pytest.fixture(params=[V1ALPHA1, V1BETA1, BOTH], ids=lambda served: "+".join(served.versions))
    def served(self, request: pytest.FixtureRequest) -> Served:
        given: Served = request.param
        return given

    @pytest.mark.parametrize("scaling_adapter", [False, True])
    async def test_a_life_is_followed(
        self,
        client: Client,
        served: Served,
        namespace: str,
        operator: FakeOperator,
        tmp_path: Path,
        *,
        scaling_adapter: bool,
    ) -> None:
        version = served.versions[-1]
        obj = pool("a", replicas=2, gpus=4, scaling_adapter=scaling_adapter, version=version)
        async with listed(client.access, tmp_path, namespace) as follower:
            assert follower.seen == [Listed(())]
            client.create(obj, namespace=namespace)
            await follower.until(lambda: follower.replicas("a") == 2)
            authority = "adapter/a-vllmprefillworker" if scaling_adapter else "deployment/a"
            await follower.until(lambda: follower.view["a"].pools[0].authority.name == authority)
            await follower.until(lambda: follower.view["a"].pools[0].ready == 2)
            assert follower.view["a"].totals.charged == 8
            assert not follower.view["a"].problems
            if scaling_adapter:
                client.merge(adapters(namespace, "a-vllmprefillworker", version=version), {"spec": {"replicas": 3}})
            else:
                rewrite(client, namespace, "a", 3, version=version)
            await follower.until(lambda: follower.view["a"].pools[0].ready == 3)
            assert follower.view["a"].pools[0].relayed == (3 if scaling_adapter else None)
            uid = follower.view["a"].pools[0].authority.uid
            client.delete(graphs(namespace, "a", version=version))
            await follower.until(lambda: "a" not in follower.view)
            eventually(lambda: not client.items(adapters(namespace, version=version)))  # else they scale its successor
            client.create(obj, namespace=namespace)
            await follower.until(lambda: follower.replicas("a") == 2)
            assert follower.view["a"].pools[0].authority.uid != uid
            assert not follower.stale
        assert operator is not None


class TestServing:
    async def test_a_server_with_conversion_is_read_in_the_newer_version(
        self, api_server: ApiServer, tmp_path: Path
    ) -> None:
        with webhook(certificate=api_server.ca_file, key=api_server.key_file) as conversion:
            install(api_server.client, BOTH, conversion=conversion)
            namespace = api_server.namespace()
            api_server.client.create(pool("old", replicas=2, version="v1alpha1"), namespace=namespace)
            api_server.client.create(pool("new", replicas=3), namespace=namespace)
            async with listed(api_server.admin, tmp_path, namespace) as follower:
                assert (follower.replicas("old"), follower.replicas("new")) == (2, 3)
                assert all(one.shape_known and not one.problems for one in follower.view.values())

    async def test_one_versions_fields_under_the_name_of_the_other_are_understood(
        self, api_server: ApiServer, tmp_path: Path
    ) -> None:
        install(api_server.client, BOTH)  # without a webhook only the apiVersion is changed
        namespace = api_server.namespace()
        api_server.client.create(pool("old", replicas=2, version="v1alpha1"), namespace=namespace)
        async with following(api_server.admin, tmp_path, namespace) as follower:
            await follower.until(lambda: follower.replicas("old") == 2)
            assert follower.view["old"].shape_known

    async def test_a_cluster_without_the_definition_is_never_listed_until_it_has_it(
        self, assets: Path, tmp_path: Path
    ) -> None:
        with ApiServer(assets) as server:
            namespace = server.namespace()
            async with following(server.admin, tmp_path, namespace) as follower:
                await follower.until(lambda: follower.cluster.observer.problem is not None)
                assert "the server has no dynamographdeployments of nvidia.com" in str(
                    follower.cluster.observer.problem
                )
                assert not follower.seen
                install(server.client, V1BETA1)
                await follower.until(lambda: not follower.stale)
                assert follower.cluster.observer.problem is None

    async def test_adapters_whose_definition_comes_after_the_planner_are_counted_and_written(
        self, assets: Path, tmp_path: Path
    ) -> None:
        with ApiServer(assets) as server:
            namespace, client = server.namespace(), server.client
            async with following(server.admin, tmp_path, namespace, pace=Pace()) as follower:
                await follower.until(lambda: follower.cluster.observer.problem is not None)
                await asyncio.to_thread(install, client, V1BETA1)
                client.create(pool("a", replicas=2, scaling_adapter=True), namespace=namespace)
                async with asyncio.timeout(5):
                    await follower.until(lambda: "a" in follower.view and not follower.view["a"].pools)
                await _takes_over(server, namespace, follower)

    async def test_a_component_that_wants_an_adapter_is_written_in_the_deployment_while_there_can_be_none(
        self, assets: Path, tmp_path: Path
    ) -> None:
        with ApiServer(assets) as server:
            install(server.client, V1BETA1, plurals=["dynamographdeployments"])
            namespace, client = server.namespace(), server.client
            client.create(pool("a", replicas=1, scaling_adapter=True), namespace=namespace)
            async with listed(server.admin, tmp_path, namespace, pace=Pace()) as follower:
                assert await follower.apply((follower.pool(), 2)) == Applied()
                before = follower.pool()
                await asyncio.to_thread(install, client, V1BETA1)
                assert isinstance(await follower.apply((before, 4)), Refused)  # at once, whatever was seen by then
                async with asyncio.timeout(5):
                    await follower.until(lambda: not follower.stale and not follower.view["a"].pools)
                assert Stale() in follower.seen
                await _takes_over(server, namespace, follower)

    async def test_without_a_right_to_read_nothing_is_listed(
        self, cluster: ApiServer, namespace: str, tmp_path: Path
    ) -> None:
        stranger = cluster.service_account(namespace, "stranger")
        async with following(stranger, tmp_path, namespace) as follower:
            await follower.until(lambda: follower.cluster.observer.problem is not None)
            assert "403 Forbidden" in str(follower.cluster.observer.problem)
            assert not follower.seen

    async def test_only_the_given_namespaces_count(self, cluster: ApiServer, tmp_path: Path) -> None:
        first, second, other = (cluster.namespace() for _ in range(3))
        for namespace in (first, second, other):
            cluster.client.create(pool(f"in-{namespace}"), namespace=namespace)
        async with listed(cluster.admin, tmp_path, first, second) as follower:
            assert set(follower.view) == {f"in-{first}", f"in-{second}"}


class TestFaults:
    @pytest.fixture
    def own(self, assets: Path) -> Iterator[ApiServer]:
        """Give a server that a test may do harm to."""
        with ApiServer(assets) as server:
            install(server.client, V1BETA1)
            yield server

    async def test_what_happens_while_the_server_is_down_is_found_afterwards(
        self, own: ApiServer, tmp_path: Path
    ) -> None:
        namespace = own.namespace()
        create_all(own.client, [pool(name, replicas=2) for name in ("a", "b")], namespace=namespace)
        async with listed(own.admin, tmp_path, namespace) as follower:
            own.kill()
            await follower.until(lambda: follower.stale)
            assert follower.cluster.observer.problem is not None
            await asyncio.to_thread(own.restart)
            rewrite(own.client, namespace, "a", 5)
            own.client.delete(graphs(namespace, "b"))
            own.client.create(pool("c"), namespace=namespace)
            await follower.until(lambda: not follower.stale and set(follower.view) == {"a", "c"})
            await follower.until(lambda: follower.replicas("a") == 5)
            own.client.create(pool("d"), namespace=namespace)
            await follower.until(lambda: "d" in follower.view)

    async def test_an_expired_version_is_listed_anew(self, assets: Path, tmp_path: Path) -> None:
        """Each second a watch begins where the last one stood: at a version that is soon compacted."""
        options = Options(apiserver_flags=("--watch-cache=false", "--etcd-compaction-interval=1s"))
        pace = attrs.evolve(QUICK, watch_s=1.0, relist_s=1000.0)
        with ApiServer(assets, options) as own:
            install(own.client, V1BETA1)
            namespace, elsewhere = own.namespace(), own.namespace()
            own.client.create(pool("a", replicas=2), namespace=namespace)
            async with listed(own.admin, tmp_path, namespace, pace=pace) as follower:
                for number in range(1000):
                    if Stale() in follower.seen:
                        break
                    own.client.create(pool(f"p{number}"), namespace=elsewhere)
                    await asyncio.sleep(0.02)
                await follower.until(lambda: not follower.stale)
                rewrite(own.client, namespace, "a", 6)
                await follower.until(lambda: follower.replicas("a") == 6)
                assert follower.kinds[:3] == ["Listed", "Stale", "Listed"]

    async def test_a_watch_that_the_server_ends_is_resumed_without_a_list(
        self, client: Client, namespace: str, tmp_path: Path
    ) -> None:
        client.create(pool("a", replicas=2), namespace=namespace)
        pace = attrs.evolve(QUICK, watch_s=1.0)
        async with listed(client.access, tmp_path, namespace, pace=pace) as follower:
            for replicas in range(3, 8):
                await asyncio.sleep(0.5)
                rewrite(client, namespace, "a", replicas)
            await follower.until(lambda: follower.replicas("a") == 7)
            assert follower.kinds == ["Listed", *["Seen"] * 5]

    async def test_a_server_that_says_nothing_is_not_waited_for_for_ever(self, own: ApiServer, tmp_path: Path) -> None:
        namespace = own.namespace()
        own.client.create(pool("a", replicas=2), namespace=namespace)
        pace = attrs.evolve(QUICK, watch_s=1.0, grace_s=0.5)
        async with listed(own.admin, tmp_path, namespace, pace=pace) as follower:
            own.apiserver.pause()
            try:
                await follower.until(lambda: follower.stale)
            finally:
                own.apiserver.resume()
            await follower.until(lambda: not follower.stale)
            assert follower.replicas("a") == 2


class TestNumbers:
    async def test_a_thousand_deployments_are_listed_and_their_changes_followed(
        self, cluster: ApiServer, namespace: str, tmp_path: Path
    ) -> None:
        create_all(cluster.client, fleet(1000), namespace=namespace)
        async with listed(cluster.admin, tmp_path, namespace) as follower:
            assert len(follower.view) == 1000
            assert sum(one.totals.charged for one in follower.view.values()) == sum(
                2 ** (n % 4) * (1 + n % 8 + 1 + n // 8 % 8) for n in range(1000)
            )
            cluster.client.create(disaggregated("one-more"), namespace=namespace)
            await follower.until(lambda: "one-more" in follower.view)
            cluster.client.delete(graphs(namespace, "model-0500"))
            await follower.until(lambda: "model-0500" not in follower.view)
            assert follower.kinds == ["Listed", "Seen", "Gone"]
        cluster.client.delete(graphs(namespace))  # the next test's operator would give each of them a status first

    async def test_lists_of_many_pages_and_at_every_moment_agree_with_the_watch(
        self, cluster: ApiServer, namespace: str, tmp_path: Path
    ) -> None:
        create_all(cluster.client, fleet(30), namespace=namespace)
        pace = attrs.evolve(QUICK, page=7, relist_s=0.2)
        async with following(cluster.admin, tmp_path, namespace, pace=pace) as follower:
            await follower.until(lambda: len(follower.view) == 30)
            for count in range(20):
                name = f"model-{count:04}"
                path = graphs(namespace, name)
                await asyncio.to_thread(
                    cluster.client.patch,
                    path,
                    [{"op": "add", "path": "/spec/components/1/replicas", "value": 40 + count}],
                )
            await follower.until(lambda: all(follower.replicas(f"model-{n:04}") == 40 + n for n in range(20)))
            assert not follower.stale
            shown = [one.deployment.id for one in follower.seen if isinstance(one, Seen)]
            assert sorted(map(str, shown)) == sorted(str(ParticipantId(namespace, f"model-{n:04}")) for n in range(20))


async def test_a_cluster_may_be_observed_again(client: Client, namespace: str, tmp_path: Path) -> None:
    client.create(pool("a"), namespace=namespace)
    kubeconfig = client.access.write_kubeconfig(tmp_path / "kubeconfig")
    async with connect([namespace], domain=DOMAIN, kubeconfig=kubeconfig) as cluster:
        for _ in range(2):
            observing = cluster.observer.observe()
            first = await anext(observing)
            assert isinstance(first, Listed)
            assert [one.id.name for one in first.deployments] == ["a"]
            await observing.aclose()


async def _takes_over(server: ApiServer, namespace: str, follower: Follower) -> None:
    """Let an operator make the adapter of deployment a, of 2 replicas, and see that it counts and is written."""
    assert follower.view["a"].totals.charged == 2
    assert "waits for its scaling adapter" in follower.view["a"].problems[0]
    path = adapters(namespace, "a-vllmprefillworker")
    with FakeOperator(server.admin) as operator:
        await follower.until(lambda: follower.replicas("a") == 2)
        assert follower.pool().authority.name == "adapter/a-vllmprefillworker"
        operator.pause()  # what is asked for counts before it is relayed
        server.client.merge(path, {"spec": {"replicas": 5}})
        await follower.until(lambda: follower.view["a"].totals.charged == 5)
        assert await follower.apply((follower.pool(), 3)) == Applied()
        assert server.client.get(path)["spec"]["replicas"] == 3
