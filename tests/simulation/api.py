"""A model of the API server: objects with versions, conditional writes, and a log of every change.

It knows what the planner's safety rests on: a resource version of each object that changes with each change and only
then, a generation that counts changes of the spec, JSON patches that land as a whole or not at all, PUT as
compare-and-swap, deletion that waits for finalizers, watches that replay the log, and compaction, after which they
cannot. That it does what a real server does is tested by running the same scripts on both.

Rules of this file: no chance and no time; what is random is drawn by whoever calls. An object that was handed out is
never changed, so every revision can be looked at later.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

Json = dict[str, Any]
Key = tuple[str, str, str]
"""The kind, the namespace and the name of an object."""


class Answer(NamedTuple):
    """What the server says; *body* is the object, or why there is none."""

    status: int
    body: Json


class Change(NamedTuple):
    """One line of the log; *kind* is ADDED, MODIFIED or DELETED, *obj* the object after it, or the last there was."""

    revision: int
    kind: str
    key: Key
    obj: Json


class GoneError(Exception):
    """What was asked for lies before the oldest revision that is kept: 410."""


class PatchError(Exception):
    """A patch does not apply."""


def definitions(key: Key, obj: Json) -> tuple[Json, str | None]:
    """Return *obj* as the definition of its kind stores it, and why it refuses it: null is as good as absent."""
    spec = obj.get("spec", {})
    if key[0] == ADAPTERS:
        spec = _without_null(spec)
        problem = _problem(spec.get("replicas"), most=MOST_SCALED)
    elif key[0] == GRAPHS:
        parts = [_without_null(part) for part in spec.get("components", ())]
        spec = {**spec, "components": parts}
        problem = next((why for part in parts if "replicas" in part and (why := _problem(part["replicas"]))), None)
    else:
        return obj, None
    return {**obj, "spec": spec}, problem


def _without_null(part: Json) -> Json:
    return _without(part, "replicas") if part.get("replicas", 0) is None else part


def _problem(replicas: object, *, most: int | None = None) -> str | None:
    if type(replicas) is not int or replicas < 0 or (most is not None and replicas > most):
        return f"replicas must be a count: {replicas!r}"
    return None


GRAPHS = "graphs"
ADAPTERS = "adapters"

MOST_SCALED = 2**31 - 1
"""The most replicas of an object that has a scale; `format: int32` alone bounds nothing."""


class ModelApi:
    """The server. *listener* is told of every change the moment it is made."""

    def __init__(self, listener: Callable[[Change], None] | None = None) -> None:
        self.revision = 1
        self.oldest = 0
        self.log: list[Change] = []
        self._listener = listener
        self._objects: dict[Key, Json] = {}
        self._histories: dict[Key, list[tuple[int, Json | None]]] = {}
        self._minted = 0

    # what is asked of it ---------------------------------------------------------------------------------------------

    def get(self, key: Key) -> Answer:
        obj = self._objects.get(key)
        return _refused(HTTPStatus.NOT_FOUND, f"{key[2]} not found") if obj is None else Answer(HTTPStatus.OK, obj)

    def create(self, key: Key, obj: Json) -> Answer:
        if key in self._objects:
            return _refused(HTTPStatus.CONFLICT, f"{key[2]} already exists")
        obj, problem = definitions(key, obj)
        if problem is not None:
            return _refused(HTTPStatus.UNPROCESSABLE_ENTITY, problem)
        self._minted += 1
        given = obj.get("metadata", {})
        kept = {name: given[name] for name in ("annotations", "labels", "finalizers") if given.get(name)}
        metadata = {"namespace": key[1], "name": key[2], "uid": f"uid-{self._minted}", "generation": 1, **kept}
        made = {name: value for name, value in obj.items() if name != "status"} | {"metadata": metadata}
        return Answer(HTTPStatus.CREATED, self._commit("ADDED", key, made))

    def replace(self, key: Key, obj: Json) -> Answer:
        """PUT *obj*: compare-and-swap by its resource version, which must be given."""
        now = self._objects.get(key)
        if now is None and "uid" in obj.get("metadata", {}):
            return _refused(HTTPStatus.CONFLICT, "the uid in the precondition is that of no object")
        if now is None:
            return _refused(HTTPStatus.NOT_FOUND, f"{key[2]} not found")
        version = obj.get("metadata", {}).get("resourceVersion")
        if version is None:
            return _refused(HTTPStatus.UNPROCESSABLE_ENTITY, "a PUT must give the resource version")
        return self._update(key, now, obj, status=False)

    def patch(self, key: Key, operations: Sequence[Json], *, status: bool = False) -> Answer:
        """Apply a JSON patch to the object, or to its *status* alone."""
        now = self._objects.get(key)
        if now is None:
            return _refused(HTTPStatus.NOT_FOUND, f"{key[2]} not found")
        try:
            patched = apply(now, operations)
        except PatchError as fault:
            return _refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(fault))
        return self._update(key, now, patched, status=status)

    def delete(self, key: Key, *, uid: str | None = None) -> Answer:
        """DELETE the object, of just this *uid* where one is given; with finalizers it only begins to go."""
        now = self._objects.get(key)
        if now is None:
            return _refused(HTTPStatus.NOT_FOUND, f"{key[2]} not found")
        metadata = now["metadata"]
        if uid is not None and metadata["uid"] != uid:
            return _refused(HTTPStatus.CONFLICT, "the uid in the precondition is another")
        if not metadata.get("finalizers"):
            return Answer(HTTPStatus.OK, self._commit("DELETED", key, now))
        if "deletionTimestamp" in metadata:
            return Answer(HTTPStatus.OK, now)
        going = {**metadata, "deletionTimestamp": "then", "generation": metadata["generation"] + 1}
        return Answer(HTTPStatus.OK, self._commit("MODIFIED", key, {**now, "metadata": going}))

    def listed(self, kind: str, *, at: int | None = None) -> tuple[int, list[Json]]:
        """Return a revision and all objects of *kind* as they were then: now, or *at* an earlier revision."""
        if at is None:
            return self.revision, [obj for key, obj in self._objects.items() if key[0] == kind]
        found = [self.read(key, at=at) for key in self._histories if key[0] == kind]
        return at, [obj for obj in found if obj is not None]

    def read(self, key: Key, *, at: int) -> Json | None:
        """Return the object as it was at the revision *at*, or None where there was none."""
        if at < self.oldest:
            raise GoneError(at)
        history = self._histories.get(key, [])
        place = bisect_right(history, at, key=lambda one: one[0])
        return history[place - 1][1] if place else None

    def changes(self, kind: str, *, since: int, until: int | None = None) -> list[Change]:
        """Return what a watch shows that was opened at the revision *since*: each change after it, in order."""
        if since < self.oldest:
            raise GoneError(since)
        first = bisect_right(self.log, since, key=lambda change: change.revision)
        last = len(self.log) if until is None else bisect_right(self.log, until, key=lambda change: change.revision)
        return [change for change in self.log[first:last] if change.key[0] == kind]

    def compact(self, revision: int) -> None:
        """Forget what was before *revision*."""
        self.oldest = max(self.oldest, min(revision, self.revision))

    # what it makes of it ---------------------------------------------------------------------------------------------

    def _update(self, key: Key, now: Json, wanted: Json, *, status: bool) -> Answer:
        """Store *wanted* in the place of *now*, as far as this way of writing may change it, if that is a change."""
        before, given = now["metadata"], wanted.get("metadata", {})
        if given.get("uid", before["uid"]) != before["uid"]:
            return _refused(HTTPStatus.CONFLICT, "the uid is another")
        if given.get("resourceVersion", before["resourceVersion"]) != before["resourceVersion"]:
            return _refused(HTTPStatus.CONFLICT, "the object has been modified")
        wanted, problem = definitions(key, wanted)
        after = _status_only(now, wanted) if status else _all_but_status(now, wanted)
        if problem is not None:
            return _refused(HTTPStatus.UNPROCESSABLE_ENTITY, problem)
        if after == now:
            return Answer(HTTPStatus.OK, now)
        if "deletionTimestamp" in before and not after["metadata"].get("finalizers"):
            return Answer(HTTPStatus.OK, self._commit("DELETED", key, now))  # the last that was stored
        return Answer(HTTPStatus.OK, self._commit("MODIFIED", key, after))

    def _commit(self, kind: str, key: Key, obj: Json) -> Json:
        self.revision += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        gone = kind == "DELETED"
        if gone:
            del self._objects[key]
        else:
            self._objects[key] = obj
        self._histories.setdefault(key, []).append((self.revision, None if gone else obj))
        change = Change(self.revision, kind, key, obj)
        self.log.append(change)
        if self._listener is not None:
            self._listener(change)
        return obj


def _status_only(now: Json, wanted: Json) -> Json:
    return {**now, "status": wanted["status"]} if "status" in wanted else _without(now, "status")


def _all_but_status(now: Json, wanted: Json) -> Json:
    """Return what a write of the main resource makes: the server keeps what is its own, and counts the spec."""
    before, given = now["metadata"], wanted.get("metadata", {})
    own = ("namespace", "name", "uid", "resourceVersion", "generation", "deletionTimestamp")
    metadata = {name: before[name] for name in own if name in before}
    metadata |= {name: given[name] for name in ("annotations", "labels", "finalizers") if given.get(name)}
    after = {name: value for name, value in wanted.items() if name != "status"} | {"metadata": metadata}
    if "status" in now:
        after["status"] = now["status"]
    if _without(after, "metadata") != _without(now, "metadata"):
        metadata["generation"] += 1
    return after


def _without(obj: Json, name: str) -> Json:
    return {key: value for key, value in obj.items() if key != name}


def _refused(status: HTTPStatus, message: str) -> Answer:
    return Answer(status, {"kind": "Status", "code": int(status), "message": message})


# JSON patch ----------------------------------------------------------------------------------------------------------

_ABSENT = object()


def apply(obj: Json, operations: Sequence[Json]) -> Json:
    """Return *obj* with all *operations* of a JSON patch applied in order; what does not apply is a PatchError."""
    for one in operations:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in one["path"].split("/")[1:]]
        if one["op"] == "test":
            _test(obj, parts, one["value"])
        else:
            obj = _written(obj, parts, one["op"], one.get("value"))
    return obj


def _test(obj: Json, parts: list[str], value: object) -> None:
    parent: Any = obj
    for part in parts[:-1]:
        parent = _child(parent, part)
        if not isinstance(parent, dict | list):
            raise PatchError(f"there is no {'/'.join(parts)}")
    found = _child(parent, parts[-1])
    if isinstance(parent, list) and found is _ABSENT:
        raise PatchError(f"there is no {'/'.join(parts)}")
    if not _same(None if found is _ABSENT else found, value):
        raise PatchError(f"test of {'/'.join(parts)} failed: {found!r}, not {value!r}")


def _child(parent: Any, part: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(parent, dict):
        return parent.get(part, _ABSENT)
    if isinstance(parent, list):
        return parent[int(part)] if part.isdecimal() and int(part) < len(parent) else _ABSENT
    return _ABSENT


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _written(parent: Any, parts: list[str], op: str, value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return a copy of *parent* along the way of *parts*, with the operation done at its end."""
    if not isinstance(parent, dict | list):
        raise PatchError(f"there is nothing to hold {parts[0]}")
    part, rest = parts[0], parts[1:]
    child = _child(parent, part)
    if rest:
        return _with(parent, part, _written(child, rest, op, value))
    if child is _ABSENT and (op == "remove" or (op == "replace" and isinstance(parent, list))):
        raise PatchError(f"there is no {part} to {op}")
    if op == "remove":
        return _dropped(parent, part)
    if op == "add" and isinstance(parent, list):
        return _inserted(parent, part, value)
    return _with(parent, part, value)


def _with(parent: Any, part: str, value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(parent, dict):
        return {**parent, part: value}
    return [value if at == int(part) else one for at, one in enumerate(parent)]


def _dropped(parent: Any, part: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(parent, dict):
        return {key: value for key, value in parent.items() if key != part}
    return [one for at, one in enumerate(parent) if at != int(part)]


def _inserted(parent: list[Any], part: str, value: object) -> list[Any]:
    at = len(parent) if part == "-" else int(part) if part.isdecimal() else -1
    if not 0 <= at <= len(parent):
        raise PatchError(f"there is no place {part}")
    return [*parent[:at], value, *parent[at:]]
