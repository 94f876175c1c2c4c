"""A stand-in for Dynamo's operator: relays adapters to graphs, and follows specs with statuses as slowly as wanted.

It does what the real one does where the planner can see it. Each opted-in component has an adapter, named
`{graph}-{component in lower case}`, whose replicas are copied to the graph; a write from an old copy is refused and
tried again. The adapter's own status repeats its spec as soon as it is copied, whether or not a pod has moved: only
the graph's status tells about pods. There are no Pod objects.

Rules of this file: graphs are spread over shards, each a thread with its own state, so there is no lock; what a shard
remembers is rebuilt from the server when it starts, so an operator can be stopped and another one started.

For benchmarks, `OperatorProcess` runs it in a process of its own.
"""

import contextlib
import heapq
import http.client
import itertools
import json
import queue
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

import attrs

from tests.cluster.client import Access, ApiError, Client, Json, Watch, path_of
from tests.cluster.conversion import converted
from tests.cluster.crds import ADAPTERS, GRAPHS, GROUP
from tests.cluster.objects import Component, components_of, replicas_pointer
from tests.cluster.pods import Pods, pods_of, status_of, told
from tests.cluster.processes import Leashed

_FAULTS = (ApiError, OSError, http.client.HTTPException)
_POINTLESS = {
    http.HTTPStatus.NOT_FOUND,
    http.HTTPStatus.FORBIDDEN,
    http.HTTPStatus.CONFLICT,
}  # gone; going; there already
_RETRY_S = 0.1

Key = tuple[str, str]  # namespace, graph


@attrs.frozen
class Behaviour:
    """How slow the operator and its pods are."""

    relay_s: float = 0.0  # from a change of an adapter to the write on its graph
    status_s: float = 0.0  # from a change of a graph's spec to a status that has observed it
    startup_s: float = 0.0  # from then until new replicas are ready
    termination_s: float = 0.0  # from then until removed replicas are gone from `status.*.replicas`
    gpu_status: bool = True  # state gpusPerReplica and gpusPerEngine, as operators from 1.6 on do


class FakeOperator:
    """Runs in threads of this process; use it as a context manager."""

    def __init__(
        self, access: Access, behaviour: Behaviour | None = None, *, version: str = "v1beta1", shards: int = 4
    ) -> None:
        """Prepare to serve every namespace with *access*, seeing objects in *version*."""
        self._client = client = Client(access)
        self._running = threading.Event()  # cleared while paused
        self._running.set()
        self._stopped = threading.Event()
        self._shards = [_Shard(client, version, self._running, behaviour or Behaviour()) for _ in range(shards)]
        self._sources = [
            _Source(client, path_of(f"{GROUP}/{version}", plural), self._dispatch) for plural in (GRAPHS, ADAPTERS)
        ]

    def __enter__(self) -> Self:
        """Start."""
        for thread in (*self._shards, *self._sources):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; the objects stay."""
        self._running.set()
        for source in self._sources:
            source.stop()
        for shard in self._shards:
            shard.inbox.put(None)
        for thread in (*self._sources, *self._shards):
            thread.join(timeout=10)
        self._client.close()

    def pause(self) -> None:
        """Stop acting; changes pile up unseen."""
        self._running.clear()

    def resume(self) -> None:
        """Act on everything that piled up."""
        self._running.set()

    def behave(self, behaviour: Behaviour) -> None:
        """Be as slow as this from the next change on."""
        for shard in self._shards:
            shard.behaviour = behaviour

    def _dispatch(self, event: "_Event") -> None:
        namespace, name = event.key
        self._shards[zlib.crc32(f"{namespace}/{name}".encode()) % len(self._shards)].inbox.put(event)


class OperatorProcess:
    """The same operator in a process of its own, so that a benchmark does not share its interpreter with it."""

    def __init__(
        self, access: Access, folder: Path, behaviour: Behaviour | None = None, *, version: str = "v1beta1"
    ) -> None:
        """Prepare; *folder* gets the kubeconfig and the log."""
        kubeconfig = access.write_kubeconfig(folder / "operator.json")
        command = (sys.executable, "-m", "tests.cluster", str(kubeconfig), version)
        self._leashed = Leashed("operator", command, log=folder / "operator.log", cwd=Path(__file__).parents[2])
        self._behaviour = behaviour or Behaviour()

    def __enter__(self) -> Self:
        """Start."""
        self._leashed.start()
        self.behave(self._behaviour)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill."""
        self._leashed.kill()

    def pause(self) -> None:
        """Stop acting; changes pile up unseen."""
        self._leashed.tell(json.dumps("pause"))

    def resume(self) -> None:
        """Act on everything that piled up."""
        self._leashed.tell(json.dumps("resume"))

    def behave(self, behaviour: Behaviour) -> None:
        """Be as slow as this from the next change on."""
        self._leashed.tell(json.dumps(attrs.asdict(behaviour)))


@attrs.frozen
class _Event:
    """An object of the API server as last seen; *gone* when deleted."""

    key: Key  # of the graph, also for an adapter
    obj: Json
    gone: bool


@attrs.define
class _Graph:
    """What a shard remembers about one deployment."""

    obj: Json | None = None
    adapters: dict[str, Json] = attrs.field(factory=dict)  # by name
    pods: dict[str, Pods] = attrs.field(factory=dict)  # by component
    scheduled: int = 0  # the newest generation for which a status is scheduled
    observed: Json | None = None  # the object that the status tells about


class _Source(threading.Thread):
    """Lists and watches one collection for ever; what vanished while no watch was open is reported as gone."""

    def __init__(self, client: Client, path: str, report: Callable[[_Event], None]) -> None:
        super().__init__(name=f"operator-watch-{path}", daemon=True)
        self._client = client
        self._path = path
        self._report = report
        self._known: dict[str, _Event] = {}
        self._watch: Watch | None = None
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(*_FAULTS, ValueError):
                self._follow(self._relist())
            self._stopping.wait(_RETRY_S)

    def stop(self) -> None:
        self._stopping.set()
        if self._watch is not None:
            self._watch.end()

    def _relist(self) -> str:
        listed = self._client.get(self._path, resourceVersion="0")
        present = {obj["metadata"]["uid"]: obj for obj in listed["items"]}
        for uid in self._known.keys() - present.keys():
            self._seen(self._known[uid].obj, gone=True)
        for obj in present.values():
            self._seen(obj, gone=False)
        version: str = listed["metadata"]["resourceVersion"]
        return version

    def _follow(self, resource_version: str) -> None:
        with self._client.watch(self._path, resourceVersion=resource_version) as self._watch:
            for event in self._watch:
                if self._stopping.is_set() or event["type"] == "ERROR":
                    return
                self._seen(event["object"], gone=event["type"] == "DELETED")

    def _seen(self, obj: Json, *, gone: bool) -> None:
        metadata = obj["metadata"]
        reference = obj.get("spec", {}).get("dgdRef", metadata)
        event = _Event((metadata["namespace"], reference["name"]), obj, gone)
        if gone:
            self._known.pop(metadata["uid"], None)
        else:
            self._known[metadata["uid"]] = event
        self._report(event)


class _Shard(threading.Thread):
    """Reconciles its share of the graphs, one thing at a time."""

    def __init__(self, client: Client, version: str, running: threading.Event, behaviour: Behaviour) -> None:
        super().__init__(name="operator-shard", daemon=True)
        self.inbox: queue.Queue[_Event | None] = queue.Queue()
        self.behaviour = behaviour
        self._client = client
        self._version = version
        self._running = running
        self._graphs: dict[Key, _Graph] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self) -> None:
        for event in self._events():
            self._running.wait()
            if event is not None:
                self._see(event)
            self._act()

    def _events(self) -> Iterator[_Event | None]:
        """Give each event, and nothing whenever something is due, until told to stop."""
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            try:
                event = self.inbox.get(timeout=wait)
            except queue.Empty:
                yield None
            else:
                if event is None:
                    return
                yield event

    def _act(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, action = heapq.heappop(self._due)
            try:
                action()
            except ApiError as error:
                if error.status not in _POINTLESS:
                    self._later(_RETRY_S, action)
            except (OSError, http.client.HTTPException):
                self._later(_RETRY_S, action)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), action))

    def _see(self, event: _Event) -> None:
        graph = self._graphs.setdefault(event.key, _Graph())
        if event.obj["kind"] == "DynamoGraphDeployment":
            self._see_graph(event, graph)
        else:
            self._see_adapter(event, graph)

    def _see_graph(self, event: _Event, graph: _Graph) -> None:
        if event.gone:
            for adapter in graph.adapters.values():
                self._later(0, partial(self._delete_adapter, adapter))
            self._graphs[event.key] = _Graph(adapters=graph.adapters)
            return
        if graph.obj is None:
            graph.pods = pods_of(event.obj)
        graph.obj = event.obj
        generation = _generation(event.obj)
        if generation == graph.scheduled:
            return  # a status or metadata alone
        graph.scheduled = generation
        self._later(self.behaviour.relay_s, partial(self._relay, event.key))
        self._later(self.behaviour.status_s, partial(self._observe, event.key, event.obj))

    def _see_adapter(self, event: _Event, graph: _Graph) -> None:
        name = event.obj["metadata"]["name"]
        known = graph.adapters.pop(name, None)
        if not event.gone:
            graph.adapters[name] = event.obj
        if event.gone or known is None or _generation(known) != _generation(event.obj):
            self._later(self.behaviour.relay_s, partial(self._relay, event.key))

    def _relay(self, key: Key) -> None:
        graph = self._graphs[key]
        for component in components_of(graph.obj) if graph.obj else ():
            if component.scaling_adapter:
                self._relay_one(key, graph, component)

    def _relay_one(self, key: Key, graph: _Graph, component: Component) -> None:
        adapter = graph.adapters.get(f"{key[1]}-{component.name.lower()}")
        if graph.obj is None:
            return
        if adapter is None:
            self._client.create(_adapter(graph.obj, component, self._version), namespace=key[0])
            return  # the watch will bring it
        wanted = adapter["spec"]["replicas"]
        if wanted != component.wanted:
            graph.obj = self._write_replicas(graph.obj, component.name, wanted)
        if adapter.get("status", {}).get("replicas") != wanted:
            status = {"replicas": wanted, "selector": _selector(key[1], component.name), "lastScaleTime": _now()}
            self._client.merge(self._path(ADAPTERS, adapter, "status"), {"status": status})

    def _write_replicas(self, obj: Json, component: str, replicas: int) -> Json:
        # As the real one's Update: refused when our copy is old, tried again with a newer one.
        seen = {"op": "test", "path": "/metadata/resourceVersion", "value": obj["metadata"]["resourceVersion"]}
        write = {"op": "add", "path": replicas_pointer(obj, component), "value": replicas}
        return self._client.patch(self._path(GRAPHS, obj), [seen, write])

    def _delete_adapter(self, adapter: Json) -> None:
        # Nobody else collects garbage here. The uid keeps a successor's adapter of the same name alive.
        self._client.delete(self._path(ADAPTERS, adapter), uid=adapter["metadata"]["uid"])

    def _observe(self, key: Key, obj: Json) -> None:
        graph = self._graphs[key]
        if not _same(graph.obj, obj):
            return
        graph.observed = obj
        counts = {component.name: component.wanted for component in components_of(obj)}
        graph.pods = {name: graph.pods.get(name, Pods()).observed(count) for name, count in counts.items()}
        self._settle(self.behaviour.startup_s, partial(self._advance, key, obj, Pods.started, counts))
        self._settle(self.behaviour.termination_s, partial(self._advance, key, obj, Pods.terminated, counts))
        self._write_status(key)

    def _settle(self, seconds: float, advance: Callable[[], None]) -> None:
        """Advance the pods at once, or later and then with a status write of its own."""
        if seconds == 0:
            advance()
        else:
            self._later(seconds, advance)

    def _advance(self, key: Key, obj: Json, change: Callable[[Pods, int], Pods], counts: dict[str, int]) -> None:
        graph = self._graphs[key]
        if _same(graph.obj, obj):
            graph.pods = {name: change(pods, counts.get(name, pods.desired)) for name, pods in graph.pods.items()}
            self._later(0, partial(self._write_status, key))

    def _write_status(self, key: Key) -> None:
        graph = self._graphs[key]
        if graph.obj is None or graph.observed is None:
            return
        now = datetime.now(UTC)
        status = status_of(graph.observed, graph.pods, gpu_status=self.behaviour.gpu_status, now=now)
        if told(status) != told(graph.obj.get("status", {})):
            graph.obj = self._client.merge(self._path(GRAPHS, graph.obj, "status"), {"status": status})

    def _path(self, plural: str, obj: Json, sub: str | None = None) -> str:
        metadata = obj["metadata"]
        version = f"{GROUP}/{self._version}"
        return path_of(version, plural, namespace=metadata["namespace"], name=metadata["name"], sub=sub)


def _same(known: Json | None, obj: Json) -> bool:
    return known is not None and known["metadata"]["uid"] == obj["metadata"]["uid"]


def _generation(obj: Json) -> int:
    generation: int = obj["metadata"]["generation"]
    return generation


def _adapter(graph: Json, component: Component, version: str) -> Json:
    metadata = graph["metadata"]
    owner = {"apiVersion": graph["apiVersion"], "kind": graph["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    adapter = {
        "apiVersion": f"{GROUP}/v1beta1",
        "kind": "DynamoGraphDeploymentScalingAdapter",
        "metadata": {
            "name": f"{metadata['name']}-{component.name.lower()}",
            "labels": _labels(metadata["name"], component.name),
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "replicas": component.wanted,
            "dgdRef": {"name": metadata["name"], "componentName": component.name},
        },
    }
    return converted(adapter, version)


def _labels(graph: str, component: str) -> dict[str, str]:
    return {"nvidia.com/dynamo-graph-deployment-name": graph, "nvidia.com/dynamo-component": component}


def _selector(graph: str, component: str) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(_labels(graph, component).items()))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main(kubeconfig: Path, version: str) -> None:
    """Run until the end of standard input, doing what each of its lines says."""
    with FakeOperator(Access.of_kubeconfig(kubeconfig), version=version) as operator:
        for line in sys.stdin:
            match json.loads(line):
                case "pause":
                    operator.pause()
                case "resume":
                    operator.resume()
                case behaviour:
                    operator.behave(Behaviour(**behaviour))
