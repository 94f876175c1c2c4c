"""One object of the API server that is read whole and changed by compare-and-swap.

Rules of this file: a write is sent once, and what nobody answered is unknown. So it is a PATCH, which no part of the
transport repeats by itself as it does a PUT, and which leaves alone what others put into the object's metadata.
"""

import http
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from gpadapters.kubernetes.catalogue import NOT_FOUND, OK, refusal
from gpadapters.kubernetes.executor import MANAGER
from gpadapters.kubernetes.following import Pace
from gpadapters.kubernetes.session import JSON_PATCH, Answer, LostError, Session, path_of
from gpcore.errors import MissingError, PortError
from gpcore.ports import Conflicted, Refused, Saved, Saving, Unknown

Json = dict[str, Any]

_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_CREATED = http.HTTPStatus.CREATED
_CONFLICT = http.HTTPStatus.CONFLICT
_FORBIDDEN = http.HTTPStatus.FORBIDDEN
_UNDECIDED = {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.TOO_MANY_REQUESTS}
_SERVER_ERROR = http.HTTPStatus.INTERNAL_SERVER_ERROR
_NO_OBJECT = "NotFound"  # the reason that is given when it is the object that is not there, and not its kind
_TOO_LARGE = "too large"  # how etcd's refusal reads, which the API server answers as an error of its own
_DECODER = msgspec.json.Decoder(type=dict[str, Any])
_LABELS = {"app.kubernetes.io/part-of": "gpcore", "app.kubernetes.io/managed-by": "gpctl"}


@attrs.frozen
class Place:
    """Where an object is: *api_version*, *kind* and *plural* say which sort, *namespace* and *name* which one."""

    api_version: str
    kind: str
    plural: str
    namespace: str
    name: str

    @property
    def collection(self) -> str:
        """Return the path under which objects of the kind are created."""
        return f"/apis/{self.api_version}/namespaces/{self.namespace}/{self.plural}"

    @property
    def path(self) -> str:
        """Return the path of the object."""
        return f"{self.collection}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@attrs.frozen
class Found:
    """An object as the API server has it, in *size* bytes."""

    version: str
    uid: str
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    size: int


class Slot:
    """The object at *place* of the API server of *session*."""

    def __init__(self, session: Session, place: Place, *, pace: Pace, timeout_s: float = 5.0) -> None:
        self.place = place
        self._session, self._pace, self._timeout_s = session, pace, timeout_s

    async def load(self) -> Found | None:
        """Return the object as it is now, from the server's store and not from a cache; None where there is none.

        PortError where that is not known, and MissingError where it cannot be.
        """
        answer = await self._session.request("GET", self.place.path, timeout_s=self._timeout_s)
        if answer.status == OK:
            try:
                return _found(answer)
            except ValueError as fault:
                raise PortError(f"{self.place} cannot be read: the answer is {fault}") from fault
        said = refusal(answer)
        if answer.status == NOT_FOUND and said.reason == _NO_OBJECT:
            return None
        if answer.status == NOT_FOUND:
            raise MissingError(f"the API server serves no {self.place.plural} of {self.place.api_version}")
        kind = MissingError if answer.status == _FORBIDDEN else PortError
        raise kind(f"{self.place} cannot be read: {said.message}")

    async def save(
        self, spec: Mapping[str, Any], *, expected: str | None, annotations: Mapping[str, str] | None = None
    ) -> Saving:
        """Write *spec* over the version *expected* (None: there must be no such object).

        With *annotations*, which are put beside those that are there, the spec is merged into what is there.
        """
        place = self.place
        if expected is None:
            metadata = {"name": place.name, "namespace": place.namespace, "labels": _LABELS}
            metadata |= {} if annotations is None else {"annotations": annotations}
            body = {"apiVersion": place.api_version, "kind": place.kind, "metadata": metadata, "spec": spec}
            return await self._sent("POST", place.collection, body, _JSON)
        if annotations is None:  # which is less work for the server, where the spec is large
            return await self._sent("PATCH", place.path, _replacing(spec, expected), JSON_PATCH)
        body = {"metadata": {"resourceVersion": expected, "annotations": annotations}, "spec": spec}
        return await self._sent("PATCH", place.path, body, _MERGE)

    async def _sent(self, method: str, path: str, body: object, content_type: str) -> Saving:
        data = msgspec.json.encode(body)
        try:
            answer = await self._session.request(
                method,
                path_of(path, fieldManager=MANAGER),
                body=data,
                content_type=content_type,
                timeout_s=self._timeout_s,
            )
            if answer.status in (OK, _CREATED):
                return Saved(_found(answer).version, len(answer.body))
        except LostError as fault:
            await self._pace.sleep(self._pace.pause_s(1))
            return Unknown(str(fault))
        except ValueError as fault:
            return Unknown(f"the answer is {fault}")  # of something between us and the API server
        return await self._judged(method, answer)

    async def _judged(self, method: str, answer: Answer) -> Saving:
        """Return what an *answer* means that is not a success."""
        said = refusal(answer)
        gone = method == "PATCH" and answer.status == NOT_FOUND and said.reason == _NO_OBJECT
        if answer.status == _CONFLICT or gone:
            return Conflicted()
        undecided = answer.status in _UNDECIDED or answer.status >= _SERVER_ERROR
        if undecided and _TOO_LARGE not in said.message:
            await self._pace.sleep(answer.wait_s + self._pace.pause_s(1))
            return Unknown(said.message)
        return Refused(said.message)


def _replacing(spec: Mapping[str, Any], expected: str) -> list[Json]:
    """Return the patch to *spec* of an object of the version *expected*; on another it is a conflict."""
    return [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": expected},
        {"op": "replace", "path": "/spec", "value": spec},
    ]


def _found(answer: Answer) -> Found:
    """Return the object of *answer*, or raise ValueError."""
    try:
        body = _DECODER.decode(answer.body)
        metadata, spec = body["metadata"], body.get("spec") or {}
        found = Found(
            metadata["resourceVersion"], metadata["uid"], metadata.get("annotations") or {}, spec, len(answer.body)
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as fault:
        raise ValueError(f"not an object: {fault}") from fault
    if not isinstance(spec, dict):
        raise ValueError("not an object with a spec")  # noqa: TRY004 - what is wrong with a message is a ValueError
    return found
