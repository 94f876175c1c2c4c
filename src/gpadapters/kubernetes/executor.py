"""Write replicas: one JSON patch for each step, that lands as a whole or not at all.

Rules of this file: what is sent (`written`) is pure, and sent once. A write that the server did not accept is judged by
what the object says now; when nobody answers, nobody knows.
"""

import http
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import msgspec

from gpadapters.kubernetes.cache import Cache
from gpadapters.kubernetes.catalogue import ADAPTERS, GRAPHS, NOT_FOUND, OK, Catalogue, refusal
from gpadapters.kubernetes.fleet import authority_of
from gpadapters.kubernetes.following import Pace
from gpadapters.kubernetes.objects import Adapter, Component, Graph, read_adapter, read_graph
from gpadapters.kubernetes.session import Answer, LostError, Session, path_of
from gpadapters.kubernetes.tracks import Track
from gpcore.errors import PortError
from gpcore.plans import Change, Step
from gpcore.pools import Role
from gpcore.ports import Applied, Applying, Refused, Unknown

MANAGER = "gp-planner"
"""The field manager under which the API server records our writes."""

_TIMEOUT_S = 5.0
_LONGEST_WAIT_S = 10.0
_DIGITS = 10  # more of them is no number of seconds
_UNDECIDED = {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.TOO_MANY_REQUESTS}
_SERVER_ERROR = http.HTTPStatus.INTERNAL_SERVER_ERROR
_CHANGED = {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.CONFLICT, http.HTTPStatus.UNPROCESSABLE_ENTITY}

Operation = dict[str, Any]


@attrs.frozen
class Write:
    """A step as it is sent: a JSON *patch* of one object.

    *adapted* names a component that is written in the graph only where the server knows of no adapters.
    """

    plural: str
    key: tuple[str, str]
    uid: str
    patch: tuple[Operation, ...]
    adapted: str | None = None


def written(step: Step, graph: Graph | None, adapters: tuple[Adapter, ...]) -> Write | str:
    """Return *step* as a patch of its authority object, or why there is no such object any more.

    The patch tests all that the decision rests on: the very object, not being deleted, its components by name, and
    their replicas.
    """
    participant = step.changes[0].pool.participant
    if graph is None:
        return f"{participant} does not exist"
    components = {change.pool.role: _component(graph, change.pool.role) for change in step.changes}
    missing = [role for role, component in components.items() if component is None]
    if missing:
        return f"{participant} has no component for the role {missing[0].value} any more"
    changes = [(change, component) for change in step.changes if (component := components[change.pool.role])]
    for adapter in adapters:
        if authority_of(graph, (adapter,)) == step.authority and len(changes) == 1:
            return Write(ADAPTERS, adapter.key, adapter.identity.uid, _of_adapter(*changes[0], adapter))
    if authority_of(graph, ()) != step.authority:
        return f"{step.authority.name} of {participant} is not the object that it was"
    for why in _changed(changes, adapters):
        return why
    adapted = next((component.name for _, component in changes if component.adapted), None)
    return Write(GRAPHS, graph.key, graph.identity.uid, _of_graph(changes, graph), adapted)


class KubernetesExecutor:
    """Implements `gpcore.ports.Executor` for the API server of *session*."""

    def __init__(self, session: Session, cache: Cache, *, catalogue: Catalogue, pace: Pace) -> None:
        self._session, self._cache, self._catalogue, self._pace = session, cache, catalogue, pace

    async def apply(self, step: Step) -> Applying:
        """Write *step*; see the port."""
        participant = step.changes[0].pool.participant
        graph = next(iter(self._cache.graphs.of(participant)), None)
        write = written(step, graph, self._cache.adapters.of(participant))
        if isinstance(write, str):
            return await self._shown(Refused(write))
        try:
            if write.adapted is not None and await self._adapters_served(participant.namespace):
                waits = f"component {write.adapted} of {participant} waits for its scaling adapter"
                return await self._shown(Refused(waits))
        except (PortError, ValueError) as fault:
            return Refused(f"whether there are scaling adapters is not known: {fault}")
        return await self._sent(step, write)

    async def _adapters_served(self, namespace: str) -> bool:
        """Say whether there can be adapters, by what the server says now: they may have come since it was followed."""
        return namespace in self._cache.adapters.served or await self._catalogue.find(ADAPTERS)

    async def _sent(self, step: Step, write: Write) -> Applying:
        path = path_of(self._catalogue.path(write.plural, *write.key), fieldManager=MANAGER)
        since = self._track(write).moment
        try:
            answer = await self._session.request(
                "PATCH", path, body=msgspec.json.encode(write.patch), timeout_s=_TIMEOUT_S
            )
            return await self._judged(step, write, answer, since)
        except LostError as fault:
            await self._pace.sleep(self._pace.pause_s(1))
            return Unknown(str(fault))
        except ValueError as fault:
            return Unknown(f"the answer is {fault}")  # of something between us and the API server

    async def _judged(self, step: Step, write: Write, answer: Answer, since: int) -> Applying:
        """Return what *answer* means."""
        if answer.status == OK:
            self._learn(write, answer, since)
            return await self._shown(Applied())
        message = refusal(answer).message
        if answer.status in _CHANGED:
            return await self._compared(step, write, message)
        if answer.status in _UNDECIDED or answer.status >= _SERVER_ERROR:
            await self._pace.sleep(self._wait_s(answer))
            return Unknown(message)
        return await self._shown(Refused(message))

    async def _compared(self, step: Step, write: Write, message: str) -> Applying:
        """Return what it means that the server refused, by what the object says now."""
        since = self._track(write).moment
        answer = await self._session.request(
            "GET", self._catalogue.path(write.plural, *write.key), timeout_s=_TIMEOUT_S
        )
        said = None if answer.status == OK else refusal(answer)
        if said is None:
            self._learn(write, answer, since)
        elif answer.status == NOT_FOUND and said.details is not None and said.details.name == write.key[1]:
            self._cache.changed(self._track(write).missing(write.key, write.uid))
        else:
            return Unknown(f"{message}; and then: {said.message}")
        return await self._shown(_verdict(step, self._cache, message))

    def _learn(self, write: Write, answer: Answer, since: int) -> None:
        cache = self._cache
        if write.plural == GRAPHS:
            cache.changed(cache.graphs.answered(read_graph(answer.body), since=since))
        else:
            cache.changed(cache.adapters.answered(read_adapter(answer.body), since=since))

    def _track(self, write: Write) -> Track[Graph] | Track[Adapter]:
        return self._cache.graphs if write.plural == GRAPHS else self._cache.adapters

    def _wait_s(self, answer: Answer) -> float:
        asked = answer.retry_after or ""
        seconds = int(asked) if asked.isdecimal() and len(asked) < _DIGITS else 0
        return min(seconds, _LONGEST_WAIT_S) + self._pace.pause_s(1)

    async def _shown(self, outcome: Applying) -> Applying:
        """Return *outcome* when the observer has shown all that it rests on."""
        await self._cache.feed.shown()
        return outcome


def _verdict(step: Step, cache: Cache, message: str) -> Applying:
    """Return what became of *step*, which the server refused with *message*, by what is known now."""
    deployment = cache.deployment(step.changes[0].pool.participant)
    pools = [None if deployment is None else deployment.pool(change.pool.role) for change in step.changes]
    for change, pool in zip(step.changes, pools, strict=True):
        if pool is None or pool.authority != change.authority:
            return Refused(f"{change.authority.name} for {change.pool} is gone: {message}")
        if pool.replicas not in (change.before, change.after):
            return Refused(f"{change.pool} was changed to {pool.replicas} replicas meanwhile, from {change.before}")
    if all(
        pool is not None and pool.replicas == change.after for change, pool in zip(step.changes, pools, strict=True)
    ):
        return Applied()  # an earlier try of the same step landed, or somebody else did the same
    return Refused(message)


def _component(graph: Graph, role: Role) -> Component | None:
    """Return the one component of *role*."""
    found = [component for component in graph.components if component.role is role]
    return found[0] if len(found) == 1 else None


def _changed(changes: Iterable[tuple[Change, Component]], adapters: Iterable[Adapter]) -> Iterable[str]:
    """Yield why these *changes* of a graph are of yesterday, as far as no test in a patch would tell."""
    adapted = {adapter.component for adapter in adapters}
    for change, component in changes:
        if component.name in adapted:
            yield f"component {component.name} of {change.pool.participant} has a scaling adapter now"
        if component.written is None and component.replicas != change.before:  # a test of null would not tell
            yield f"{change.pool} was changed to {component.replicas} replicas meanwhile, from {change.before}"


def _of_adapter(change: Change, component: Component, adapter: Adapter) -> tuple[Operation, ...]:
    return (
        *_alive(adapter.identity.uid),
        _test(f"/spec/dgdRef/{adapter.reference}", component.name),
        _test("/spec/replicas", change.before),
        {"op": "replace", "path": "/spec/replicas", "value": change.after},
    )


def _of_graph(changes: Sequence[tuple[Change, Component]], graph: Graph) -> tuple[Operation, ...]:
    patch = _alive(graph.identity.uid)
    for change, component in changes:
        pointer = f"/spec/{graph.field}/{component.place}"
        if graph.field == "components":
            patch.append(_test(f"{pointer}/name", component.name))
        # An absent count is 1 to the operator, and null to a test.
        patch.append(_test(f"{pointer}/replicas", None if component.written is None else change.before))
        patch.append({"op": "add", "path": f"{pointer}/replicas", "value": change.after})
    return tuple(patch)


def _alive(uid: str) -> list[Operation]:
    return [_test("/metadata/uid", uid), _test("/metadata/deletionTimestamp", None)]


def _test(path: str, value: object) -> Operation:
    return {"op": "test", "path": path, "value": value}
