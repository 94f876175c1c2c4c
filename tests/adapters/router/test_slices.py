"""Endpoints from Kubernetes: what a list means, and following it on a server that answers as the API server does."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from gpadapters.router.fleet import Address
from gpadapters.router.slices import Access, FromSlices, Service, addresses
from gpcore.errors import ConfigError


def _slice(*endpoints: tuple[str, dict[str, bool | None]], ports: object = None) -> dict[str, object]:
    found = [{"addresses": [address], "conditions": conditions} for address, conditions in endpoints]
    return {"endpoints": found, "ports": ports or [{"name": "http", "port": 8000}]}


def _list(*slices: dict[str, object]) -> bytes:
    return json.dumps({"kind": "EndpointSliceList", "items": slices}).encode()


def test_ready_endpoints_of_all_slices_serve_and_those_that_end_do_not() -> None:
    data = _list(
        _slice(("10.0.0.2", {"ready": True}), ("10.0.0.3", {"ready": False}), ("10.0.0.4", {})),
        _slice(("10.0.0.1", {"ready": None}), ("10.0.0.5", {"ready": True, "terminating": True})),
        {"endpoints": None, "ports": None},
    )
    assert addresses(data, None) == tuple(Address(f"10.0.0.{last}", 8000) for last in (1, 2, 4))


def test_one_of_several_ports_is_chosen_by_its_name() -> None:
    ports = [{"name": "metrics", "port": 9090}, {"name": "http", "port": 8000}]
    data = _list(_slice(("10.0.0.1", {}), ports=ports))
    assert addresses(data, "http") == (Address("10.0.0.1", 8000),)
    assert addresses(data, "none") == ()


def test_a_service_is_named_with_its_namespace() -> None:
    assert Service.parse("prod/pool-0") == Service("prod", "pool-0")
    assert Service.parse("prod/pool-0:http") == Service("prod", "pool-0", "http")
    for text in ("pool", "prod/", "/pool", "prod/../x", "prod/pool?x=1", "Prod/pool"):
        with pytest.raises(ConfigError):
            Service.parse(text)


def test_outside_a_cluster_there_is_no_access() -> None:
    with pytest.raises(ConfigError, match="inside a cluster only"):
        Access.inside({})
    assert Access.inside({"KUBERNETES_SERVICE_HOST": "fd00::1"}).url == "https://[fd00::1]:443"


class _ApiServer:
    """Answer lists, of an old version only."""

    def __init__(self) -> None:
        self.answer: bytes | int = _list(_slice(("10.0.0.1", {})))
        self.asked: list[web.Request] = []
        self.tokens: list[str] = []

    async def list_slices(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        self.tokens.append(request.headers.get("authorization", ""))
        if request.match_info["version"] == "v1":
            return web.Response(status=404)
        if isinstance(self.answer, int):
            return web.Response(status=self.answer)
        return web.Response(body=self.answer)


@pytest.fixture
async def api() -> AsyncIterator[tuple[_ApiServer, str]]:
    server, app = _ApiServer(), web.Application()
    app.add_routes([web.get("/apis/discovery.k8s.io/{version}/namespaces/prod/endpointslices", server.list_slices)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield server, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_endpoints_follow_their_slices_and_stay_while_these_cannot_be_read(
    api: tuple[_ApiServer, str], tmp_path: Path
) -> None:
    server, url = api
    token = tmp_path / "token"
    token.write_text("one\n")
    source = FromSlices({"p": Service("prod", "pool-0")}, Access(url, token), every_s=0.01)
    following = source.endpoints()
    assert await anext(following) == {"p": (Address("10.0.0.1", 8000),)}
    assert server.asked[-1].query == {"labelSelector": "kubernetes.io/service-name=pool-0", "resourceVersion": "0"}
    token.write_text("two\n")
    for broken in (500, b"{", b'{"items": [{"endpoints": 1}]}'):
        server.answer = broken
        before, changed = len(server.asked), asyncio.ensure_future(anext(following))
        while len(server.asked) < before + 3:  # noqa: ASYNC110 - what is waited for is that nothing happens
            await asyncio.sleep(0.01)
        assert not changed.done(), "the last ones stay"
        server.answer = _list(_slice(("10.0.0.2", {})))
        assert await changed == {"p": (Address("10.0.0.2", 8000),)}
        server.answer = _list(_slice(("10.0.0.1", {})))
        assert await anext(following) == {"p": (Address("10.0.0.1", 8000),)}
    assert {"Bearer one", "Bearer two"} <= set(server.tokens)
    await following.aclose()
