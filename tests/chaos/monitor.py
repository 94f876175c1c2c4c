"""Whether the ceiling held at every revision: what the API server's watches tell, replayed from one revision on.

A component asks for its GPUs per replica times its replicas. Where a scaling adapter stands for it, these are the more
of what the adapter and what the deployment says: the operator relays the one to the other a little later, so until
then both are asked for. Of a deployment that is gone, nothing is asked for. All that is in the namespace counts,
whoever manages it.

Rules of this file: a planner is never asked. A revision that cannot be had, or that cannot be counted, is an error,
never a revision under the ceiling.
"""

import http.client
import json
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Self

import attrs

from tests.cluster import ApiError, Client, Json, Watch, adapters, components_of, converted, eventually, graphs

_RETRY_S = 0.05
_CAUGHT_UP_WITHIN_S = 60.0


class GapError(Exception):
    """A part of the history cannot be had."""


@attrs.frozen
class Ledgers:
    """Where ledgers are, and how many GPUs one promises in *total*."""

    path: str
    total: Callable[[Json], int]


@attrs.frozen
class Sums:
    """The totals of a history: how many *revisions*, how many of them *over* the ceiling, the *highest* total."""

    revisions: int = 0
    over: int = 0
    highest: int = 0
    first_over: int | None = None

    def and_then(self, revision: int, total: int, *, ceiling: int) -> "Sums":
        """Return the sums with one more revision."""
        over = total > ceiling
        first = revision if over and self.first_over is None else self.first_over
        return Sums(self.revisions + 1, self.over + over, max(self.highest, total), first)

    def __str__(self) -> str:
        first = "" if self.first_over is None else f", the first {self.first_over}"
        return f"{self.over} of {self.revisions} revisions over{first}; at most {self.highest} GPUs"


@attrs.frozen
class Found:
    """What was *asked* for in the cluster, and what its ledgers *promised*, at every revision."""

    asked: Sums = attrs.field(factory=Sums)
    promised: Sums = attrs.field(factory=Sums)


class Monitor:
    """Records the history of one namespace; use it as a context manager, and ask what it `found`.

    The history begins with the revision at which the context is entered.
    """

    def __init__(self, client: Client, namespace: str, *, ceiling: int, ledgers: Ledgers | None = None) -> None:
        """Prepare to hold the totals of *namespace* against *ceiling*."""
        self._ceiling = ceiling
        self._tracks = [_Track(client, graphs(namespace), _graph), _Track(client, adapters(namespace), _adapter)]
        if ledgers is not None:
            self._tracks.append(_Track(client, ledgers.path, lambda one: _Ledger(ledgers.total(one))))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Begin."""
        revision = None
        for track in self._tracks:
            track.warm()
        for track in self._tracks:
            revision = track.begin(revision)
            self._stack.callback(track.end)
        return self

    def __exit__(self, *_: object) -> None:
        """End; what was recorded stays."""
        self._stack.close()

    def found(self) -> Found:
        """Return what the history tells, when all has come that there is now."""
        for track in self._tracks:
            eventually(track.caught_up(), within_s=_CAUGHT_UP_WITHIN_S)
        return self.so_far()

    def so_far(self) -> Found:
        """Return what the history tells as far as it has come."""
        recorded = [track.recorded() for track in self._tracks]
        history = _History()
        for track in self._tracks:
            for event in track.there:
                history.take(event)
        asked = Sums().and_then(self._tracks[0].began, history.asked, ceiling=self._ceiling)
        promised = Sums()
        for event in sorted((one for events in recorded for one in events), key=lambda one: one.revision):
            history.take(event)
            if event.of_ledger:
                promised = promised.and_then(event.revision, history.promised, ceiling=self._ceiling)
            else:
                asked = asked.and_then(event.revision, history.asked, ceiling=self._ceiling)
        return Found(asked, promised)


@attrs.frozen
class _Graph:
    """The GPUs per replica and the replicas of each component."""

    name: str
    components: tuple[tuple[str, int, int], ...]


@attrs.frozen
class _Adapter:
    graph: str
    component: str
    replicas: int


@attrs.frozen
class _Ledger:
    total: int


_Object = _Graph | _Adapter | _Ledger


@attrs.frozen
class _Event:
    """One revision of an object: what it says *now*, and what it said *before*; None where it is not there."""

    revision: int
    before: _Object | None
    now: _Object | None

    @property
    def of_ledger(self) -> bool:
        return isinstance(self.now or self.before, _Ledger)


class _Track(threading.Thread):
    """The history of one collection: what was *there* when it *began*, and all that followed."""

    began: int

    def __init__(self, client: Client, path: str, read: Callable[[Json], _Object]) -> None:
        super().__init__(name=f"monitor-{path}", daemon=True)
        self.there: list[_Event] = []
        self._client = client
        self._path = path
        self._read = read
        self._events: list[_Event] = []
        self._objects: dict[str, _Object] = {}
        self._versions: dict[str, int] = {}
        self._ended = threading.Event()
        self._watch: Watch | None = None
        self._fault: Exception | None = None

    def warm(self) -> None:
        """Wait until the server's cache, which is made when a kind is first served, remembers what follows."""
        self._client.get(self._path, resourceVersion="0")

    def begin(self, revision: int | None) -> int:
        """Record what there is at *revision*, None: now, and all from then on; return the revision."""
        exact: dict[str, Any] = {"resourceVersion": revision, "resourceVersionMatch": "Exact"}
        listed = self._client.get(self._path, **({} if revision is None else exact))
        self.began = self._latest = int(listed["metadata"]["resourceVersion"]) if revision is None else revision
        for one in listed["items"]:
            self._take("ADDED", one, self.there)
        self.start()
        return self.began

    def run(self) -> None:
        """Follow, whatever happens to the connection, until `end`."""
        while not self._ended.is_set() and self._fault is None:
            try:
                self._follow()
            except (OSError, http.client.HTTPException, ApiError):
                self._ended.wait(_RETRY_S)  # the server may be down; what it does meanwhile comes later
            except Exception as fault:  # noqa: BLE001 - raised to whoever asks for the history
                self._fault = fault

    def end(self) -> None:
        """Follow no longer."""
        self._ended.set()
        if self._watch is not None:
            self._watch.end()
        self.join(timeout=10)

    def recorded(self) -> list[_Event]:
        """Return what has followed, or raise what keeps the rest from coming."""
        if self._fault is not None:
            raise self._fault
        return list(self._events)

    def caught_up(self) -> Callable[[], bool]:
        """Return what says whether all has come that there is now."""
        listed = self._client.get(self._path)
        revision = int(listed["metadata"]["resourceVersion"])
        versions = {one["metadata"]["name"]: int(one["metadata"]["resourceVersion"]) for one in listed["items"]}

        def caught_up() -> bool:
            self.recorded()
            come = dict(self._versions)
            newer = all(come.get(name, revision) >= version for name, version in versions.items())
            return newer and all(name in versions or version > revision for name, version in come.items())

        return caught_up

    def _follow(self) -> None:
        with (
            self._client.watch(self._path, resourceVersion=self._latest) as self._watch,
            suppress(json.JSONDecodeError),
        ):
            for event in () if self._ended.is_set() else self._watch:
                if event["type"] == "ERROR":
                    raise GapError(f"{self._path} after {self._latest}: {event['object']}")
                self._take(event["type"], event["object"], self._events)

    def _take(self, kind: str, obj: Json, into: list[_Event]) -> None:
        name, revision = obj["metadata"]["name"], int(obj["metadata"]["resourceVersion"])
        before, now = self._objects.pop(name, None), None if kind == "DELETED" else self._read(obj)
        now = before if now == before else now  # the same one again, as most revisions change a status alone
        into.append(_Event(revision, before, now))
        if now is None:
            self._versions.pop(name, None)
        else:
            self._objects[name], self._versions[name] = now, revision
        self._latest = max(self._latest, revision)


@attrs.define
class _History:
    """What is *asked* for and *promised* at one revision."""

    asked: int = 0
    promised: int = 0
    _graphs: dict[str, _Graph] = attrs.field(factory=dict)
    _relayed: dict[tuple[str, str], int] = attrs.field(factory=dict)

    def take(self, event: _Event) -> None:
        """Go on to the revision of *event*."""
        concerned = {
            one.graph if isinstance(one, _Adapter) else one.name
            for one in (event.before, event.now)
            if not isinstance(one, _Ledger) and one is not None
        }
        self.asked -= sum(map(self._charge, concerned))
        self._remove(event.before)
        self._add(event.now)
        self.asked += sum(map(self._charge, concerned))

    def _remove(self, one: _Object | None) -> None:
        match one:
            case _Graph(name):
                del self._graphs[name]
            case _Adapter(graph, component):
                del self._relayed[graph, component]
            case _Ledger(total):
                self.promised -= total
            case None:
                pass

    def _add(self, one: _Object | None) -> None:
        match one:
            case _Graph(name):
                self._graphs[name] = one
            case _Adapter(graph, component, replicas):
                self._relayed[graph, component] = replicas
            case _Ledger(total):
                self.promised += total
            case None:
                pass

    def _charge(self, graph: str) -> int:
        components = self._graphs[graph].components if graph in self._graphs else ()
        return sum(
            gpus * max(replicas, self._relayed.get((graph, component), 0)) for component, gpus, replicas in components
        )


def _graph(obj: Json) -> _Graph:
    components = []
    for one in components_of(obj):
        if one.gpus_per_replica is None:
            raise GapError(f"{obj['metadata']['name']}: nobody can say how many GPUs {one.name} takes")
        components.append((one.name, one.gpus_per_replica, one.wanted))
    return _Graph(obj["metadata"]["name"], tuple(components))


def _adapter(obj: Json) -> _Adapter:
    spec = converted(obj, "v1beta1")["spec"]
    return _Adapter(spec["dgdRef"]["name"], spec["dgdRef"]["componentName"], spec["replicas"])
