"""What an answer of the API server means for an object that is changed by compare-and-swap, and how a lease is read."""

import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gpadapters.kubernetes.lease import KubernetesLease, lease_of
from gpadapters.kubernetes.ledger import KubernetesLedger
from gpadapters.kubernetes.session import Answer, Session, load_configuration
from gpadapters.kubernetes.slot import Found, Place, Slot
from gpcore.errors import MissingError, PortError
from gpcore.leases import Lease
from gpcore.ports import Conflicted, Refused, Saved, Unknown
from tests.adapters.kubernetes.scripted import QUICK, Said, Scripted, refused

PLACE = Place("gpcore.dev/v1alpha1", "GPULedger", "gpuledgers", "ns", "main")
NOT_FOUND = refused(404, "gone", reason="NotFound")
UNSERVED = Said(b"404 page not found", 404)


def obj(version: str = "7", **more: object) -> Said:
    return Said(json.dumps({"metadata": {"name": "main", "uid": "u", "resourceVersion": version}, **more}).encode())


@contextlib.asynccontextmanager
async def serving(script: Scripted, folder: Path) -> AsyncIterator[Session]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.answer)
    async with TestServer(app, host="127.0.0.1") as server:
        script.url = str(server.make_url("")).rstrip("/")
        async with Session(partial(load_configuration, script.kubeconfig(folder))) as session:
            yield session


@contextlib.asynccontextmanager
async def slot(script: Scripted, folder: Path) -> AsyncIterator[Slot]:
    async with serving(script, folder) as session:
        yield Slot(session, PLACE, pace=QUICK, timeout_s=0.5)


class TestWhatIsSent:
    async def test_a_change_replaces_the_spec_and_names_the_version_that_it_rests_on(self, tmp_path: Path) -> None:
        script = Scripted()
        script.writes.append(obj("8"))
        async with slot(script, tmp_path) as one:
            assert await one.save({"a": [1]}, expected="7") == Saved("8", len(obj("8").body))
        assert script.patches == [
            [
                {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "replace", "path": "/spec", "value": {"a": [1]}},
            ]
        ]
        (request,) = script.asked
        assert request.path == "/apis/gpcore.dev/v1alpha1/namespaces/ns/gpuledgers/main"
        assert request.headers["Content-Type"] == "application/json-patch+json"
        assert request.query["fieldManager"] == "gp-planner"

    async def test_annotations_are_put_beside_those_that_are_there(self, tmp_path: Path) -> None:
        script = Scripted()
        script.writes.append(obj("8"))
        async with slot(script, tmp_path) as one:
            await one.save({"a": 1}, expected="7", annotations={"x": "y"})
        assert script.patches == [{"metadata": {"annotations": {"x": "y"}, "resourceVersion": "7"}, "spec": {"a": 1}}]
        assert script.asked[0].headers["Content-Type"] == "application/merge-patch+json"

    async def test_what_is_created_says_what_it_is_and_whose(self, tmp_path: Path) -> None:
        script = Scripted()
        script.reviews.append(attrs.evolve(obj("1"), status=201))
        async with slot(script, tmp_path) as one:
            assert isinstance(await one.save({"a": 1}, expected=None), Saved)
        (request,) = script.asked
        assert (request.method, request.path) == ("POST", "/apis/gpcore.dev/v1alpha1/namespaces/ns/gpuledgers")


OUTCOMES = [
    (refused(409, "modified"), Conflicted()),
    (NOT_FOUND, Conflicted()),
    (UNSERVED, Refused("404: 404 page not found")),
    (refused(400), Refused("400 Because: no")),
    (refused(403), Refused("403 Because: no")),
    (refused(413), Refused("413 Because: no")),
    (refused(422), Refused("422 Because: no")),
    (refused(500, "etcdserver: request is too large"), Refused("500 Because: etcdserver: request is too large")),
    (refused(401), Unknown("401 Because: no")),
    (refused(429), Unknown("429 Because: no")),
    (refused(500), Unknown("500 Because: no")),
    (refused(502), Unknown("502 Because: no")),
    (refused(503), Unknown("503 Because: no")),
    (refused(504), Unknown("504 Because: no")),
    (Said(b"<html>"), Unknown("the answer is not an object: JSON is malformed: invalid character (byte 0)")),
    (Said(b"{}"), Unknown("the answer is not an object: 'metadata'")),
    (Said(b'{"metadata": {"resourceVersion": "1"}}'), Unknown("the answer is not an object: 'uid'")),
    (
        Said(b'{"metadata": []}'),
        Unknown("the answer is not an object: list indices must be integers or slices, not str"),
    ),
    (obj(spec=[1]), Unknown("the answer is not an object with a spec")),
]


class TestOutcomes:
    @pytest.mark.parametrize(("said", "meaning"), OUTCOMES, ids=lambda one: str(getattr(one, "status", "")))
    async def test_an_answer_to_a_change_means(self, said: Said, meaning: object, tmp_path: Path) -> None:
        script = Scripted()
        script.writes.extend([said, said])  # a request that is refused for its credentials is made once more
        async with slot(script, tmp_path) as one:
            assert await one.save({}, expected="7") == meaning

    async def test_creating_where_there_is_one_is_a_conflict_and_where_there_can_be_none_is_refused(
        self, tmp_path: Path
    ) -> None:
        script = Scripted()
        script.reviews.extend([refused(409, "exists"), refused(404, "namespaces not found", reason="NotFound")])
        async with slot(script, tmp_path) as one:
            assert await one.save({}, expected=None) == Conflicted()
            assert await one.save({}, expected=None) == Refused("404 NotFound: namespaces not found")

    async def test_no_answer_in_time_is_unknown(self, tmp_path: Path) -> None:
        script = Scripted()
        script.writes.append(Said(hold=True))
        async with slot(script, tmp_path) as one:
            assert isinstance(await one.save({}, expected="7"), Unknown)

    async def test_nobody_there_is_unknown(self, tmp_path: Path) -> None:
        path = Scripted().kubeconfig(tmp_path, server="http://127.0.0.1:1")
        async with Session(partial(load_configuration, path)) as session:
            assert isinstance(await Slot(session, PLACE, pace=QUICK).save({}, expected="7"), Unknown)


class TestLoading:
    async def test_no_object_is_none(self, tmp_path: Path) -> None:
        script = Scripted()
        script.reads.append(NOT_FOUND)
        async with slot(script, tmp_path) as one:
            assert await one.load() is None

    async def test_a_kind_that_is_not_served_or_may_not_be_read_is_missing_for_good(self, tmp_path: Path) -> None:
        script = Scripted()
        script.reads.extend([UNSERVED, refused(403)])
        async with slot(script, tmp_path) as one:
            with pytest.raises(MissingError, match=r"serves no gpuledgers of gpcore\.dev/v1alpha1"):
                await one.load()
            with pytest.raises(MissingError, match=r"GPULedger ns/main cannot be read: 403 Because: no"):
                await one.load()

    @pytest.mark.parametrize("said", [refused(500), refused(503), refused(429), Said(b"<html>"), Said(hold=True)])
    async def test_anything_else_is_not_known_and_not_none(self, said: Said, tmp_path: Path) -> None:
        script = Scripted()
        script.reads.append(said)
        async with slot(script, tmp_path) as one:
            with pytest.raises(PortError) as failed:
                await one.load()
            assert not isinstance(failed.value, MissingError)

    async def test_an_object_that_says_nothing_is_no_ledger(self, tmp_path: Path) -> None:
        script = Scripted()
        script.reads.append(obj())
        async with serving(script, tmp_path) as session:
            with pytest.raises(PortError, match=r"GPULedger ns/main cannot be read: \$: schema is missing"):
                await KubernetesLedger(session, namespace="ns", name="main").load()


class TestLeases:
    def test_a_lease_of_another_program_is_read_as_far_as_it_goes(self) -> None:
        spec = {"holderIdentity": "x", "leaseDurationSeconds": 30, "renewTime": "2026-01-01T00:00:00.5Z"}
        lease = lease_of(Found("1", "u", {}, spec, 0))
        assert lease == Lease("x", "", 30.0, 0, 0.0, 1767225600.5)

    def test_an_empty_lease_is_one_that_nobody_holds(self) -> None:
        assert lease_of(Found("1", "u", {}, {}, 0)).holder == ""

    @pytest.mark.parametrize(
        "spec",
        [
            {"holderIdentity": "a\nb"},
            {"leaseDurationSeconds": 86_400},
            {"leaseTransitions": -1},
            {"renewTime": "yesterday"},
            {"renewTime": 5},
        ],
    )
    async def test_a_lease_that_cannot_be_is_told(self, spec: dict[str, object], tmp_path: Path) -> None:
        script = Scripted()
        script.reads.append(obj(spec=spec))
        async with serving(script, tmp_path) as session:
            with pytest.raises(PortError, match="Lease ns/main cannot be read: "):
                await KubernetesLease(session, namespace="ns", name="main").load()


@pytest.mark.parametrize(
    ("said", "wait_s"), [(None, 0), ("3", 3), ("600", 10), ("-1", 0), ("soon", 0), ("9" * 30, 0), ("\u0663", 3)]
)
def test_a_server_may_ask_to_wait_for_ten_seconds_at_most(said: str | None, wait_s: float) -> None:
    assert Answer(429, b"", said).wait_s == wait_s
