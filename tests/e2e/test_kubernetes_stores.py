"""The ledger and the lease as objects of a real API server: one wins, others' notes stay, ten thousand pools fit."""

import contextlib
import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import count
from pathlib import Path

import attrs
import msgspec
import pytest

from gpadapters.kubernetes.crd import API_VERSION, PLURAL, definition
from gpadapters.kubernetes.lease import KubernetesLease
from gpadapters.kubernetes.ledger import KubernetesLedger
from gpadapters.kubernetes.session import Session, load_configuration
from gpcore.errors import PortError
from gpcore.leases import Lease
from gpcore.ledger import Ledger
from gpcore.ports import Conflicted, Refused, Saved
from gpcore.testing.ledger_checks import LEASE_CHECKS, LEDGER_CHECKS, LeaseCheck, LedgerCheck
from tests.cluster import Access, ApiError, ApiServer, Client, Json, eventually, existing_is_fine, path_of
from tests.core.wire.fleets import Naming, adapters, deployments, fleet

NAMES = count()


def ledgers(namespace: str, name: str | None = None) -> str:
    return path_of(API_VERSION, PLURAL, namespace=namespace, name=name)


@pytest.fixture(scope="module")
def server(api_server: ApiServer) -> ApiServer:
    """Give the API server with the definition of ledgers."""
    with existing_is_fine():
        api_server.client.create(definition())
    eventually(lambda: served(api_server.client))
    return api_server


def served(client: Client) -> bool:
    try:
        return client.get(ledgers("default"))["items"] is not None
    except ApiError:
        return False


def as_table(client: Client, path: str) -> Json:
    """Give a list as kubectl asks for it."""
    request = urllib.request.Request(  # noqa: S310 - the server of this test
        client.access.url + path,
        headers={
            "Authorization": f"Bearer {client.access.token}",
            "Accept": "application/json;as=Table;v=v1;g=meta.k8s.io",
        },
    )
    context = ssl.create_default_context(cadata=client.access.ca)
    with urllib.request.urlopen(request, context=context) as answer:  # noqa: S310
        table: Json = msgspec.json.decode(answer.read())
        return table


@pytest.fixture
def namespace(server: ApiServer) -> str:
    return server.namespace()


@contextlib.asynccontextmanager
async def connected(access: Access, folder: Path) -> AsyncIterator[Session]:
    kubeconfig = access.write_kubeconfig(folder / f"kubeconfig-{next(NAMES)}")
    async with Session(partial(load_configuration, kubeconfig)) as session:
        yield session


@pytest.fixture
async def session(server: ApiServer, tmp_path: Path) -> AsyncIterator[Session]:
    async with connected(server.admin, tmp_path) as session:
        yield session


@pytest.mark.parametrize("check", LEDGER_CHECKS, ids=lambda check: check.__name__)
async def test_the_ledger_in_the_cluster_keeps_its_promises(
    check: LedgerCheck, session: Session, namespace: str
) -> None:
    @contextlib.asynccontextmanager
    async def made() -> AsyncIterator[Callable[[], KubernetesLedger]]:
        yield lambda: KubernetesLedger(session, namespace=namespace, name="main")

    await check(made)


@pytest.mark.parametrize("check", LEASE_CHECKS, ids=lambda check: check.__name__)
async def test_the_lease_in_the_cluster_keeps_its_promises(check: LeaseCheck, session: Session, namespace: str) -> None:
    @contextlib.asynccontextmanager
    async def made() -> AsyncIterator[Callable[[], KubernetesLease]]:
        yield lambda: KubernetesLease(session, namespace=namespace, name="main")

    await check(made)


async def test_what_others_note_on_the_objects_stays(session: Session, namespace: str, server: ApiServer) -> None:
    client, notes = server.client, {"labels": {"team": "a"}, "annotations": {"x": "y"}, "finalizers": ["gpcore.dev/x"]}
    ledger = KubernetesLedger(session, namespace=namespace, name="main")
    lease = KubernetesLease(session, namespace=namespace, name="main")
    await ledger.save(Ledger(), expected=None)
    await lease.save(Lease("a", "http://a"), expected=None)
    for path in (
        ledgers(namespace, "main"),
        path_of("coordination.k8s.io/v1", "leases", namespace=namespace, name="main"),
    ):
        client.merge(path, {"metadata": notes})
    found, held = await ledger.load(), await lease.load()
    assert found is not None
    assert held is not None
    assert isinstance(await ledger.save(Ledger(epoch=1), expected=found.version), Saved)
    assert isinstance(await lease.save(Lease("b", "http://b"), expected=held.version), Saved)
    for path in (
        ledgers(namespace, "main"),
        path_of("coordination.k8s.io/v1", "leases", namespace=namespace, name="main"),
    ):
        metadata = client.get(path)["metadata"]
        assert metadata["labels"]["team"] == "a"
        assert metadata["annotations"]["x"] == "y"
        assert metadata["finalizers"] == ["gpcore.dev/x"]
        client.merge(path, {"metadata": {"finalizers": None}})


async def test_the_leaders_address_is_where_people_and_programs_find_it(
    session: Session, namespace: str, server: ApiServer
) -> None:
    lease = Lease("planner-1", "http://10.0.0.1:8080", 15.0, 2, 1_700_000_000.0, 1_700_000_009.5)
    await KubernetesLease(session, namespace=namespace, name="main").save(lease, expected=None)
    stored = server.client.get(path_of("coordination.k8s.io/v1", "leases", namespace=namespace, name="main"))
    assert stored["metadata"]["annotations"] == {"gpcore.dev/leader-address": "http://10.0.0.1:8080"}
    assert stored["spec"] == {
        "holderIdentity": "planner-1",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 2,
        "acquireTime": "2023-11-14T22:13:20.000000Z",
        "renewTime": "2023-11-14T22:13:29.500000Z",
    }


async def test_a_ledger_that_is_deleted_conflicts_and_its_successor_may_begin_anew(
    session: Session, namespace: str, server: ApiServer
) -> None:
    store = KubernetesLedger(session, namespace=namespace, name="main")
    saved = await store.save(Ledger(epoch=17), expected=None)
    assert isinstance(saved, Saved)
    assert await store.load() is not None
    server.client.delete(ledgers(namespace, "main"))
    assert await store.save(Ledger(epoch=18), expected=saved.version) == Conflicted()
    assert await store.load() is None
    again = await KubernetesLedger(session, namespace=namespace, name="main").save(Ledger(epoch=1), expected=None)
    assert isinstance(again, Saved)
    found = await store.load()
    assert found is not None
    assert found.ledger.epoch == 1


async def test_a_ledger_that_goes_back_in_time_is_not_believed(
    session: Session, namespace: str, server: ApiServer
) -> None:
    store = KubernetesLedger(session, namespace=namespace, name="main")
    await store.save(Ledger(epoch=17), expected=None)
    assert await store.load() is not None
    server.client.merge(ledgers(namespace, "main"), {"spec": {"epoch": 12}})
    with pytest.raises(PortError, match=r"epoch: must be at least 17, which was seen before: 12"):
        await store.load()
    assert await KubernetesLedger(session, namespace=namespace, name="main").load() is not None


async def test_a_ledger_that_nobody_has_changed_is_not_decoded_again(session: Session, namespace: str) -> None:
    store, other = (KubernetesLedger(session, namespace=namespace, name="main") for _ in range(2))
    await other.save(Ledger(epoch=1), expected=None)
    first, second = await store.load(), await store.load()
    assert first is not None
    assert second is first
    await other.save(Ledger(epoch=2), expected=first.version)
    third = await store.load()
    assert third is not None
    assert third.ledger.epoch == 2


async def test_a_ledger_that_was_edited_by_hand_is_not_believed(
    session: Session, namespace: str, server: ApiServer
) -> None:
    store = KubernetesLedger(session, namespace=namespace, name="main")
    await store.save(fleet(10, deployments), expected=None)
    server.client.merge(ledgers(namespace, "main"), {"spec": {"entries": []}})
    with pytest.raises(PortError, match=r"cannot be read: \$\.gpus: must be 0, which is what"):
        await store.load()


async def test_other_objects_of_its_name_are_no_ledger(session: Session, namespace: str, server: ApiServer) -> None:
    store = KubernetesLedger(session, namespace=namespace, name="main")
    for kind, field in (("ConfigMap", "data"), ("Secret", "stringData")):
        obj = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "main"}, field: {"spec": "{}"}}
        server.client.create(obj, namespace=namespace)
    assert await store.load() is None
    assert isinstance(await store.save(Ledger(), expected=None), Saved)


class TestDefinition:
    async def test_a_list_shows_how_things_stand(self, session: Session, namespace: str, server: ApiServer) -> None:
        await KubernetesLedger(session, namespace=namespace, name="main").save(fleet(10, deployments), expected=None)
        table = as_table(server.client, ledgers(namespace))
        names = [column["name"] for column in table["columnDefinitions"]]
        assert names == ["Name", "State", "Epoch", "GPUs", "Ceiling", "Floor", "Age"]
        assert table["rows"][0]["cells"][:6] == ["main", "Active", 12, 351, 1_000_000, 0]

    @pytest.mark.parametrize(
        "spec", [{"state": "Fine"}, {"epoch": -1}, {"entries": [5]}, {"gpus": "7"}, {"schema": "one"}, {"floor": None}]
    )
    async def test_what_no_ledger_says_is_refused_by_the_server(
        self, spec: Json, session: Session, namespace: str, server: ApiServer
    ) -> None:
        await KubernetesLedger(session, namespace=namespace, name="main").save(Ledger(), expected=None)
        with pytest.raises(ApiError) as refused:
            server.client.merge(ledgers(namespace, "main"), {"spec": spec})
        assert refused.value.status == 422

    async def test_fields_of_a_later_version_are_kept(
        self, session: Session, namespace: str, server: ApiServer
    ) -> None:
        store = KubernetesLedger(session, namespace=namespace, name="main")
        await store.save(Ledger(), expected=None)
        server.client.merge(ledgers(namespace, "main"), {"spec": {"schema": "1.7", "surge": {"a": [1]}}})
        found = await store.load()
        assert found is not None
        await store.save(attrs.evolve(found.ledger, epoch=1), expected=found.version)
        spec = server.client.get(ledgers(namespace, "main"))["spec"]
        assert (spec["schema"], spec["surge"], spec["epoch"]) == ("1.7", {"a": [1]}, 1)


class TestSize:
    @pytest.mark.parametrize("naming", [deployments, adapters], ids=["deployments", "adapters"])
    async def test_ten_thousand_pools_fit_into_one_object(
        self, naming: Naming, session: Session, namespace: str, server: ApiServer
    ) -> None:
        store, ledger = KubernetesLedger(session, namespace=namespace, name="main"), fleet(10_000, naming)
        saved = await store.save(ledger, expected=None)
        for epoch in range(13, 16):  # the notes of the API server on who wrote what do not add up
            assert isinstance(saved, Saved)
            saved = await store.save(attrs.evolve(ledger, epoch=epoch), expected=saved.version)
        stored = server.client.get(ledgers(namespace, "main"))
        whole, notes = len(msgspec.json.encode(stored)), len(msgspec.json.encode(stored["metadata"]))
        assert whole < 60 * 10_000 < 2**20
        assert notes < 2_000
        found = await store.load()
        assert found is not None
        assert found.ledger == attrs.evolve(ledger, epoch=15)
        assert found.size == pytest.approx(whole, rel=0.01)

    async def test_a_ledger_that_is_too_large_is_refused_and_not_retried(
        self, session: Session, namespace: str
    ) -> None:
        store = KubernetesLedger(session, namespace=namespace, name="main")
        text = "x" * 1_600_000
        for ledger in (attrs.evolve(Ledger(), extra={"note": text}), attrs.evolve(Ledger(), extra={"note": 3 * text})):
            answer = await store.save(ledger, expected=None)
            assert isinstance(answer, Refused)
            assert "too large" in answer.detail
        assert await store.load() is None
