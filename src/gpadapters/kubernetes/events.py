"""What the planner did, and what holds it back, as Events of the cluster: `kubectl describe` and dashboards show them.

Rules of this file: an Event is for people, and the record is elsewhere; so nothing waits for one long, and an account
that may not write any is told so as a condition. The Event of an operation has a name that follows from the
operation, so that it is made once, whoever makes it.
"""

import asyncio
import contextlib
import hashlib
import http
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from gpadapters.kubernetes.catalogue import FORBIDDEN, NOT_FOUND, VERSIONS, refusal
from gpadapters.kubernetes.crd import API_VERSION, KIND, PLURAL
from gpadapters.kubernetes.executor import MANAGER
from gpadapters.kubernetes.following import Pace
from gpadapters.kubernetes.objects import Graph
from gpadapters.kubernetes.rights import CREATE, EVENTS, Right, Rights
from gpadapters.kubernetes.session import JSON, Answer, LostError, Session, path_of
from gpadapters.kubernetes.slot import Place, Slot
from gpadapters.kubernetes.tracks import Track
from gpcore.conditions import Condition
from gpcore.errors import InvalidError, PortError
from gpcore.ledger import Ended
from gpcore.pools import ParticipantId

log = logging.getLogger(__name__)

Json = dict[str, Any]

OPERATION = "gpcore.dev/operation"
"""The annotation of an Event that says which operation it is about."""

_CONTROLLER = "gpcore.dev/planner"
_API = "events.k8s.io/v1"
_TIMEOUT_S = 5.0
_TRIES = 3
_WAITING = 64  # notices that are not sent yet; beyond them the newest is dropped
_NOTE_BYTES = 1024  # what the API server takes
_INSTANCE = 128
_PREFIX = 200
_DIGEST = 16
_DONE = {http.HTTPStatus.CREATED, http.HTTPStatus.CONFLICT}
_GOING = "being terminated"  # how it reads that a namespace is
_UNDECIDED = {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.TOO_MANY_REQUESTS}
_SERVER_ERROR = http.HTTPStatus.INTERNAL_SERVER_ERROR


@attrs.frozen
class Told:
    """One Event to be: *reason* and *note* of *action* on the object *regarding*, at *at* (wall-clock seconds)."""

    name: str
    regarding: Json
    action: str
    reason: str
    note: str
    at: float
    normal: bool = True
    annotations: Json = attrs.field(factory=dict)


class KubernetesEvents:
    """Implements `gpcore.ports.Auditor` with an Event on the deployment of each operation that ended.

    *domain* names the ledger, `namespace/name`.
    """

    def __init__(
        self,
        session: Session,
        graphs: Track[Graph],
        *,
        rights: Rights,
        domain: str,
        pace: Pace,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._session, self._graphs, self._rights, self._pace, self._wall = session, graphs, rights, pace, wall
        self._domain = domain
        self._instance = f"{socket.gethostname()}-{os.getpid()}"[-_INSTANCE:]

    async def tell(self, ended: Ended) -> None:
        """Make the Event of *ended*, unless it was made; see the port."""
        try:
            participant = ParticipantId.parse(ended.participant)
        except InvalidError:
            return  # no object, and nothing that an Event could be about
        graph = self._graphs.get(participant)
        await self._post(operation_event(ended, participant, "" if graph is None else graph.identity.uid, self._domain))

    @contextlib.asynccontextmanager
    async def noticing(self, namespace: str) -> AsyncIterator[Callable[[Condition, bool], None]]:
        """Give what makes an Event of a condition that begins, or is over, while the body runs.

        It is about the ledger in *namespace*, even where the ledger is kept elsewhere and there is no such object.
        """
        ledger = ParticipantId(namespace, self._domain.partition("/")[2])
        waiting: asyncio.Queue[Told] = asyncio.Queue(_WAITING)

        def notice(condition: Condition, over: bool) -> None:  # noqa: FBT001 - one of two things happened
            with contextlib.suppress(asyncio.QueueFull):
                waiting.put_nowait(condition_event(condition, ledger, self._wall(), over=over))

        posting = asyncio.create_task(self._notices(waiting, ledger))
        try:
            yield notice
        finally:
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)

    async def _notices(self, waiting: "asyncio.Queue[Told]", ledger: ParticipantId) -> None:
        while True:
            told = await waiting.get()
            try:
                uid = await self._uid_of(ledger)
                await self._post(attrs.evolve(told, regarding=told.regarding | uid))
            except PortError as fault:
                log.warning("an Event was not made: %s", fault)

    async def _uid_of(self, ledger: ParticipantId) -> Json:
        """Return the uid of *ledger*, by which `kubectl describe` looks for its Events, where there is one."""
        place = Place(API_VERSION, KIND, PLURAL, ledger.namespace, ledger.name)
        try:
            found = await Slot(self._session, place, pace=self._pace).load()
        except PortError:
            return {}
        return {} if found is None else {"uid": found.uid}

    async def _post(self, told: Told) -> None:
        namespace = told.regarding["namespace"]
        path = path_of(f"/apis/{_API}/namespaces/{namespace}/{EVENTS}", fieldManager=MANAGER)
        body, why = msgspec.json.encode(event(told, self._instance)), ""
        for _ in range(_TRIES):
            try:
                answer = await self._session.request("POST", path, body=body, content_type=JSON, timeout_s=_TIMEOUT_S)
            except LostError as fault:
                why = str(fault)  # it may have been made; then the next try finds it
            else:
                if self._judged(answer, namespace):
                    return
                why = refusal(answer).message
            await self._pace.sleep(self._pace.pause_s(1))
        raise PortError(f"the Event {namespace}/{told.name} was not made: {why}")

    def _judged(self, answer: Answer, namespace: str) -> bool:
        """Say whether *answer* ends it: the Event is there, or it will never be."""
        said, right = refusal(answer), Right(CREATE, EVENTS, namespace, "events.k8s.io")
        if answer.status in _DONE:
            self._rights.learn(right, granted=True)
            return True
        if answer.status == FORBIDDEN and _GOING not in said.message:
            self._rights.learn(right, granted=False)
        elif answer.status in _UNDECIDED or answer.status >= _SERVER_ERROR:
            return False
        elif answer.status not in (FORBIDDEN, NOT_FOUND):
            log.error("an Event was refused: %s", said.message)
        return True


def operation_event(ended: Ended, participant: ParticipantId, uid: str, domain: str) -> Told:
    """Return the Event of an operation on *participant*, whose object is *uid* ("": not known)."""
    done = ended.status == "success"
    sentence = ended.message or f"the fleet went from {ended.before} to {ended.after} GPUs"
    regarding = {"apiVersion": f"nvidia.com/{VERSIONS[0]}", "kind": "DynamoGraphDeployment", **participant._asdict()}
    return Told(
        _name(participant.name, domain, ended.id),
        regarding | ({"uid": uid} if uid else {}),
        "Scale",
        "Scaled" if done else "ScalingFailed",
        f"for {ended.caller or 'somebody'}: {ended.changes or 'nothing was written'}; {sentence}",
        ended.ended_at,
        normal=done,
        annotations={OPERATION: _plain(ended.id)},
    )


def condition_event(condition: Condition, ledger: ParticipantId, at: float, *, over: bool) -> Told:
    """Return the Event that says that *condition* begins, or is *over*, on the object *ledger*."""
    regarding = {"apiVersion": API_VERSION, "kind": KIND, **ledger._asdict()}
    reason = "".join(part.capitalize() for part in condition.kind.split("_"))
    note = f"over: {condition.detail}" if over else condition.detail
    named = _name(ledger.name, str(ledger), f"{condition.kind} {at!r} {over}")
    return Told(named, regarding, "Plan", f"{reason}Over" if over else reason, note, at, normal=over)


def event(told: Told, instance: str) -> Json:
    """Return *told* as the object to create."""
    metadata: Json = {"name": told.name, "namespace": told.regarding["namespace"]}
    if told.annotations:
        metadata["annotations"] = told.annotations
    return {
        "apiVersion": _API,
        "kind": "Event",
        "metadata": metadata,
        "eventTime": _time(told.at),
        "reportingController": _CONTROLLER,
        "reportingInstance": instance,
        "action": told.action,
        "reason": told.reason,
        "type": "Normal" if told.normal else "Warning",
        "regarding": told.regarding,
        "note": _short(_plain(told.note)),
    }


def _time(wall: float) -> str:
    """Return a time as the API server takes it, whatever somebody wrote into the ledger."""
    try:
        moment = datetime.fromtimestamp(wall, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _name(of: str, *parts: str) -> str:
    """Return a name for an Event about the object *of* that follows from *parts*."""
    digest = hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:_DIGEST]
    return f"{of[:_PREFIX].rstrip('-.')}.{digest}"


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _short(text: str) -> str:
    """Return the beginning of *text* that fits."""
    return text.encode(errors="replace")[:_NOTE_BYTES].decode(errors="ignore")
