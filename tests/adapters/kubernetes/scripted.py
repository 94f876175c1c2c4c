"""An API server that answers what a test tells it, for what no real one can be made to say."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
from aiohttp import web
from aiohttp.test_utils import TestServer

from gpadapters.kubernetes.catalogue import ADAPTERS, GRAPHS
from gpadapters.kubernetes.cluster import Cluster, Pace, connect
from gpadapters.kubernetes.schema import FENCE

Json = dict[str, Any]

DOMAIN = "gp/main"
"""The ledger that the fences of the tests are of."""

QUICK = Pace(backoff_s=0.01, backoff_max_s=0.05)


def graph(
    name: str = "a",
    *,
    version: str = "1",
    generation: int = 1,
    replicas: object = 2,
    uid: str = "u",
    fence: str = "old",
    **more: object,
) -> Json:
    metadata: Json = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": version, "generation": generation}
    metadata["annotations"] = {FENCE: f"{DOMAIN}:{fence}"}
    pod = {"containers": [{"name": "main", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]}
    component = {"name": "w", "type": "prefill", "replicas": replicas, "podTemplate": {"spec": pod}, **more}
    return {"metadata": metadata, "spec": {"components": [component]}}


def page(*items: object, version: str = "10", more: str = "") -> bytes:
    return json.dumps({"metadata": {"resourceVersion": version, "continue": more}, "items": items}).encode()


def event(kind: str, obj: Json) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def refused(status: int, message: str = "no", **more: object) -> "Said":
    body = {"kind": "Status", "status": "Failure", "reason": "Because", "message": message, "code": status, **more}
    return Said(json.dumps(body).encode(), status)


@attrs.frozen
class Said:
    """An answer; *hold* keeps a stream open after it."""

    body: bytes = b""
    status: int = 200
    hold: bool = False
    headers: dict[str, str] = attrs.field(factory=dict)


@attrs.define
class Scripted:
    """What is answered next, and what was asked. What is asked beyond the script gets an empty, quiet cluster."""

    lists: deque[Said | bytes] = attrs.field(factory=deque)
    others: deque[Said | bytes] = attrs.field(factory=deque)  # lists of adapters
    watches: deque[Said] = attrs.field(factory=deque)
    writes: deque[Said] = attrs.field(factory=deque)
    reads: deque[Said] = attrs.field(factory=deque)
    reviews: deque[Said] = attrs.field(factory=deque)
    discovery: deque[Said] = attrs.field(factory=deque)
    asked: list[web.Request] = attrs.field(factory=list)
    patches: list[Any] = attrs.field(factory=list)
    kinds: list[str] = attrs.field(factory=lambda: [GRAPHS, ADAPTERS])  # those that are served
    forbidden: set[tuple[str, str]] = attrs.field(factory=set)  # verbs and kinds, as the reviews tell
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        if request.method != "GET":
            return await self._review(request) if request.method == "POST" else await self._write(request)
        if request.path.endswith(("/v1beta1", "/v1alpha1")):
            if self.discovery:
                return await self._say(request, self.discovery.popleft())
            return web.json_response({"resources": [{"name": kind} for kind in self.kinds]})
        if "watch" in request.query:
            mine = request.path.endswith(GRAPHS) and self.watches
            return await self._say(request, self.watches.popleft() if mine else Said(hold=True))
        if request.path.endswith((GRAPHS, ADAPTERS)):
            script = self.lists if request.path.endswith(GRAPHS) else self.others
            said = script.popleft() if script else page()
            return await self._say(request, Said(said) if isinstance(said, bytes) else said)
        return await self._say(request, self.reads.popleft())

    async def _review(self, request: web.Request) -> web.StreamResponse:
        if self.reviews:
            return await self._say(request, self.reviews.popleft())
        attributes = (await request.json())["spec"]["resourceAttributes"]
        granted = (attributes["verb"], attributes["resource"]) not in self.forbidden
        return web.json_response({"status": {"allowed": granted}}, status=201)

    async def _write(self, request: web.Request) -> web.StreamResponse:
        self.patches.append(await request.json())
        return await self._say(request, self.writes.popleft())

    async def _say(self, request: web.Request, said: Said) -> web.StreamResponse:
        response = web.StreamResponse(status=said.status, headers=said.headers)
        await response.prepare(request)
        await response.write(said.body)
        if said.hold:
            await asyncio.sleep(60)
        return response

    def kubeconfig(self, folder: Path, *, server: str | None = None, **cluster: object) -> Path:
        """Write the kubeconfig of this server."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server or self.url, **cluster}}],
            "users": [{"name": "u", "user": {"token": "the-token"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return path


@contextlib.asynccontextmanager
async def connected(script: Scripted, folder: Path, pace: Pace = QUICK) -> AsyncIterator[Cluster]:
    """Serve *script* and connect to it."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.answer)
    async with TestServer(app, host="127.0.0.1") as server:
        script.url = str(server.make_url("")).rstrip("/")
        async with connect(["ns"], domain=DOMAIN, kubeconfig=script.kubeconfig(folder), pace=pace) as cluster:
            yield cluster
