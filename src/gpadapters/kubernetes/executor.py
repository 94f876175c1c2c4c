"""Write replicas and fences: one JSON patch for each step or mark, that lands as a whole or not at all.

Rules of this file: what is sent (`written`, `marked`) is pure; it tests the fence that it needs and sets the next, so
that of all writes for one fence one lands. No patch is sent twice. A write that the server did not accept is judged by
the fence on the object as it is now; when nobody answers, nobody knows.
"""

import http
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import attrs
import msgspec

from gpadapters.kubernetes.cache import Cache
from gpadapters.kubernetes.catalogue import ADAPTERS, GRAPHS, NOT_FOUND, OK, Catalogue, refusal
from gpadapters.kubernetes.fleet import authority_of
from gpadapters.kubernetes.following import Pace
from gpadapters.kubernetes.objects import Adapter, Component, Graph, Identity, claim_of, read_adapter, read_graph
from gpadapters.kubernetes.schema import FENCE
from gpadapters.kubernetes.session import Answer, LostError, Session, path_of
from gpadapters.kubernetes.tracks import Track
from gpcore.errors import InvalidError, PortError
from gpcore.events import Mark
from gpcore.plans import Change, Step
from gpcore.pools import Authority, ParticipantId, Role
from gpcore.ports import Absent, Applied, Applying, Refused, Unknown

MANAGER = "gp-planner"
"""The field manager under which the API server records our writes."""

_TIMEOUT_S = 5.0
_TRIES = 3
_UNDECIDED = {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.TOO_MANY_REQUESTS}
_SERVER_ERROR = http.HTTPStatus.INTERNAL_SERVER_ERROR
_CHANGED = {http.HTTPStatus.NOT_FOUND, http.HTTPStatus.CONFLICT, http.HTTPStatus.UNPROCESSABLE_ENTITY}
_KINDS = {"deployment": GRAPHS, "adapter": ADAPTERS}
_ANNOTATIONS = "/metadata/annotations"
_POINTER = f"{_ANNOTATIONS}/{FENCE.replace('/', '~1')}"

Operation = dict[str, Any]


@attrs.frozen
class Target:
    """One object of *participant*, and the claims that a write takes it from and to; *uid* "": whatever it is."""

    participant: ParticipantId
    name: str
    uid: str
    old: str
    new: str

    @classmethod
    def of(cls, participant: ParticipantId, authority: Authority, *, old: str, new: str, domain: str) -> "Target":
        """Return the object *authority*, which is to go from one fence to the other; InvalidError for no such name."""
        kind, _, name = authority.name.partition("/")
        if kind not in _KINDS:
            raise InvalidError([f"no object of {participant} holds replicas under the name {authority.name[:80]!a}"])
        ParticipantId(participant.namespace, name)  # it becomes part of a path
        return cls(participant, authority.name, authority.uid, claim_of(domain, old), claim_of(domain, new))

    @property
    def plural(self) -> str:
        """Return the kind of the object."""
        return _KINDS[self.name.partition("/")[0]]

    @property
    def key(self) -> tuple[str, str]:
        """Return the namespace and the name of the object."""
        return (self.participant.namespace, self.name.partition("/")[2])

    def __str__(self) -> str:
        return f"{self.name} of {self.participant}"


@attrs.frozen
class Write:
    """What is sent: a JSON *patch* of one object.

    *adapted* names a component that is written in the graph only where the server knows of no adapters.
    """

    patch: tuple[Operation, ...]
    adapted: str | None = None


def target_of(write: Step | Mark, domain: str) -> Target:
    """Return what *write* is for, by the fences of the ledger *domain*.

    ValueError: for a step that nobody has promised a fence, and for a name that no object can have.
    """
    if isinstance(write, Mark):
        return Target.of(write.key.participant, write.authority, old=write.old, new=write.new, domain=domain)
    if write.fence is None:
        raise ValueError(f"a step without a fence is never written: {write.authority.name} of {write.participant}")
    return Target.of(write.participant, write.authority, old=write.fence.old, new=write.fence.new, domain=domain)


def written(step: Step, graph: Graph | None, adapters: tuple[Adapter, ...], *, domain: str) -> Write | str:
    """Return *step* as a patch of its authority object, or why there is no such object any more.

    The patch tests all that the decision rests on: the very object, not being deleted, its fence, its components by
    name, and their replicas. ValueError for a step without a fence.
    """
    target, participant = target_of(step, domain), step.participant
    if graph is None:
        return f"{participant} does not exist"
    components = {change.pool.role: _component(graph, change.pool.role) for change in step.changes}
    missing = [role for role, component in components.items() if component is None]
    if missing:
        return f"{participant} has no component for the role {missing[0].value} any more"
    changes = [(change, component) for change in step.changes if (component := components[change.pool.role])]
    for adapter in adapters:
        if authority_of(graph, (adapter,)) == step.authority and len(changes) == 1:
            return _guarded(target, adapter.identity, _of_adapter(*changes[0], adapter))
    if authority_of(graph, ()) != step.authority:
        return f"{target} is not the object that it was"
    for why in _changed(changes, adapters):
        return why
    adapted = next((component.name for _, component in changes if component.adapted), None)
    return _guarded(target, graph.identity, _of_graph(changes, graph), adapted=adapted)


def marked(mark: Mark, found: Graph | Adapter | None, *, domain: str) -> Write | str:
    """Return *mark* as a patch of the object *found*, or why there is none.

    An object that is being deleted takes a mark too: a finalizer may keep it, and what it holds, for ever.
    """
    target = target_of(mark, domain)
    return f"{target} is not known" if found is None else Write(_fenced(target, found.identity, ()))


class KubernetesExecutor:
    """Implements `gpcore.ports.Executor` for the API server of *session*."""

    def __init__(self, session: Session, cache: Cache, *, catalogue: Catalogue, pace: Pace) -> None:
        self._session, self._cache, self._catalogue, self._pace = session, cache, catalogue, pace

    async def apply(self, step: Step) -> Applying:
        """Write *step*; see the port. ValueError, and nothing written, for one without a fence."""
        target = target_of(step, self._cache.domain)
        return await self._carried_out(target, partial(self._written, step), partial(self._differing, step))

    async def mark(self, mark: Mark) -> Applying:
        """Write *mark*; see the port."""
        target = target_of(mark, self._cache.domain)
        return await self._carried_out(target, partial(self._marked, mark, target), lambda: None)

    def _written(self, step: Step) -> Write | str:
        graph = next(iter(self._cache.graphs.of(step.participant)), None)
        return written(step, graph, self._cache.adapters.of(step.participant), domain=self._cache.domain)

    def _marked(self, mark: Mark, target: Target) -> Write | str:
        return marked(mark, self._track(target).get(target.key), domain=self._cache.domain)

    async def _carried_out(
        self, target: Target, compose: Callable[[], Write | str], differing: Callable[[], str | None]
    ) -> Applying:
        """Send what *compose* makes of what is known, and again where it makes something else of what is then read.

        *differing* says how the object, as it is known, is not as it was decided on.
        """
        write, why = compose(), ""
        try:
            for _ in range(_TRIES):
                sent = await self._sent(target, write) if isinstance(write, Write) else write
                if not isinstance(sent, str):
                    return await self._shown(sent)
                outcome = await self._looked(target, sent)
                if outcome is not None:
                    return await self._shown(outcome)
                before, write, why = write, compose(), sent
                if isinstance(write, str):
                    return await self._shown(Refused(differing() or write))
                if write == before:
                    break
        except LostError as fault:
            await self._pace.sleep(self._pace.pause_s(1))
            return Unknown(str(fault))
        return await self._shown(Refused(differing() or why))

    async def _sent(self, target: Target, write: Write) -> Applying | str:
        """Send *write* and return what came of it, or why it fits no object that is there."""
        try:
            if write.adapted is not None and await self._adapters_served(target.participant.namespace):
                return f"component {write.adapted} of {target.participant} waits for its scaling adapter"
        except (PortError, ValueError) as fault:
            return Refused(f"whether there are scaling adapters is not known: {fault}")
        path = path_of(self._catalogue.path(target.plural, *target.key), fieldManager=MANAGER)
        since = self._track(target).moment
        answer = await self._session.request("PATCH", path, body=msgspec.json.encode(write.patch), timeout_s=_TIMEOUT_S)
        return await self._judged(target, answer, since)

    async def _adapters_served(self, namespace: str) -> bool:
        """Say whether there can be adapters, by what the server says now: they may have come since it was followed."""
        return namespace in self._cache.adapters.served or await self._catalogue.find(ADAPTERS)

    async def _judged(self, target: Target, answer: Answer, since: int) -> Applying | str:
        """Return what *answer* means."""
        if answer.status == OK:
            return await self._landed(target, answer, since)
        message = refusal(answer).message
        if answer.status in _CHANGED:
            return message
        if answer.status in _UNDECIDED or answer.status >= _SERVER_ERROR:
            await self._pace.sleep(answer.wait_s + self._pace.pause_s(1))
            return Unknown(message)
        return Refused(message)

    async def _landed(self, target: Target, answer: Answer, since: int) -> Applying:
        """Return what it means that the server has taken the write, when all that it answered is known."""
        found = _read(target, answer)
        looked = None if self._learn(found, since) else await self._looked(target, "it was written")
        if isinstance(looked, Unknown):
            return looked
        if found.identity.claim != target.new:
            return Unknown(f"{target} was written, but does not show the fence of the write")
        return Applied()

    async def _looked(self, target: Target, message: str) -> Applying | None:
        """Return what became of a write that did not land, because of *message*, by what the object shows now.

        None: it shows the old fence, so the write can land still.
        """
        track = self._track(target)
        for _ in range(_TRIES):
            known, since = track.get(target.key), track.moment
            answer = await self._session.request(
                "GET", self._catalogue.path(target.plural, *target.key), timeout_s=_TIMEOUT_S
            )
            if answer.status != OK:
                return self._missed(target, answer, message, known=known)
            found = _read(target, answer)
            if self._learn(found, since):
                return _verdict(target, found.identity, message, domain=self._cache.domain)
        return Unknown(f"{message}; and then: {target} changed whenever it was read")

    def _missed(self, target: Target, answer: Answer, message: str, *, known: Graph | Adapter | None) -> Applying:
        """Return what an *answer* without the object means, of which *known* was known when it was asked for."""
        said = refusal(answer)
        if answer.status != NOT_FOUND or said.details is None or said.details.name != target.key[1]:
            return Unknown(f"{message}; and then: {said.message}")
        for uid in {target.uid, known.identity.uid if known is not None else ""} - {""}:
            self._cache.changed(self._track(target).missing(target.key, uid))
        return Absent(f"{target} does not exist")

    def _learn(self, found: Graph | Adapter, since: int) -> bool:
        """Take in an object, read by a request that was sent at *since*; say whether it, or a later state, is known."""
        graphs, adapters = self._cache.graphs, self._cache.adapters
        if isinstance(found, Graph):
            self._cache.changed(graphs.answered(found, since=since))
            return graphs.has_taken(found)
        self._cache.changed(adapters.answered(found, since=since))
        return adapters.has_taken(found)

    def _track(self, target: Target) -> Track[Graph] | Track[Adapter]:
        return self._cache.graphs if target.plural == GRAPHS else self._cache.adapters

    def _differing(self, step: Step) -> str | None:
        """Return how a pool of *step*, as it is known, differs from what was decided on."""
        deployment = self._cache.deployment(step.participant)
        for change in step.changes:
            pool = None if deployment is None else deployment.pool(change.pool.role)
            if pool is None or pool.authority != change.authority:
                return f"{change.authority.name} for {change.pool} is gone"
            if pool.replicas != change.before:
                return f"{change.pool} was changed to {pool.replicas} replicas meanwhile, from {change.before}"
        return None

    async def _shown(self, outcome: Applying) -> Applying:
        """Return *outcome* when the observer has shown all that it rests on."""
        await self._cache.feed.shown()
        return outcome


def _read(target: Target, answer: Answer) -> Graph | Adapter:
    """Return the object that *answer* holds; LostError where something between us and the API server has answered."""
    try:
        found = read_graph(answer.body) if target.plural == GRAPHS else read_adapter(answer.body)
    except ValueError as fault:
        raise LostError(f"the answer is {fault}") from fault
    if found.key != target.key:
        raise LostError(f"the answer is not {target}")
    return found


def _verdict(target: Target, identity: Identity, message: str, *, domain: str) -> Applying | None:
    """Return what became of a write that was refused with *message*, or None where its object waits for it still."""
    if target.uid and identity.uid != target.uid:
        return Refused(f"{target} is not the object that it was: {message}")
    if (identity.claim or "") == target.new:
        return Applied()  # an earlier try landed
    if identity.stranger(domain) is not None:
        return Refused(f"{target} {identity.stranger(domain)}: {message}")
    if (identity.claim or "") != target.old:
        return Refused(f"{target} had another write meanwhile: {message}")
    return None


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
        _test(f"/spec/dgdRef/{adapter.reference}", component.name),
        _test("/spec/replicas", change.before),
        {"op": "replace", "path": "/spec/replicas", "value": change.after},
    )


def _of_graph(changes: Sequence[tuple[Change, Component]], graph: Graph) -> tuple[Operation, ...]:
    patch = []
    for change, component in changes:
        pointer = f"/spec/{graph.field}/{component.place}"
        if graph.field == "components":
            patch.append(_test(f"{pointer}/name", component.name))
        # An absent count is 1 to the operator, and null to a test.
        patch.append(_test(f"{pointer}/replicas", None if component.written is None else change.before))
        patch.append({"op": "add", "path": f"{pointer}/replicas", "value": change.after})
    return tuple(patch)


def _guarded(
    target: Target, identity: Identity, changes: Sequence[Operation], *, adapted: str | None = None
) -> Write | str:
    """Return the write of *changes* through the fences of *target*, or why it is for nothing."""
    if identity.deleting:
        return f"{target} is being deleted"
    return Write((_test("/metadata/deletionTimestamp", None), *_fenced(target, identity, changes)), adapted)


def _fenced(target: Target, identity: Identity, changes: Sequence[Operation]) -> tuple[Operation, ...]:
    """Return the patch of *changes* that needs the old fence of *target* on the object *identity*, and leaves the new.

    A test of null holds for what is absent, but for nothing in a map that is absent itself.
    """
    same = [_test("/metadata/uid", target.uid)] if target.uid else []
    if not identity.annotated and not target.old:
        first = {"op": "add", "path": _ANNOTATIONS, "value": {FENCE: target.new}}
        return (*same, _test(_ANNOTATIONS, None), *changes, first)
    absent = "" if identity.claim == "" else None  # both are no fence
    old = _test(_POINTER, target.old or absent)
    return (*same, old, *changes, {"op": "add", "path": _POINTER, "value": target.new})


def _test(path: str, value: object) -> Operation:
    return {"op": "test", "path": path, "value": value}
