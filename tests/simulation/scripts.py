"""Random scripts of requests, and what two API servers make of them."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from random import Random
from typing import Any, Protocol

import attrs

from tests.simulation.api import ADAPTERS, GRAPHS, Answer, Json, Key, apply

FENCE = "/metadata/annotations/example.com~1fence"
NAMES = ("a", "b")
FENCES = ("f0", "f1", "f2")
COUNTS: tuple[Any, ...] = (0, 1, 2, 3, 3, 2, 1, -1, "2", 2.5, None, 2**31)
"""Replicas that somebody may send."""


class Server(Protocol):
    """Something that takes requests."""

    def get(self, key: Key) -> Answer: ...
    def create(self, key: Key, obj: Json) -> Answer: ...
    def replace(self, key: Key, obj: Json) -> Answer: ...
    def patch(self, key: Key, operations: Sequence[Json], *, status: bool = False) -> Answer: ...
    def delete(self, key: Key, *, uid: str | None = None) -> Answer: ...


@attrs.frozen
class Request:
    """One request of a script. *age* says how old the object is that it rests on: 0, the newest; None, on none."""

    verb: str
    kind: str
    name: str
    body: Any = None
    status: bool = False
    age: int | None = None


@attrs.frozen
class Told:
    """What a request did: the *status* of its answer, what the object *became* and how it is now."""

    status: int
    became: str
    obj: Json | None


def script(rng: Random, length: int) -> list[Request]:
    """Return *length* requests; most of them make sense after those before."""
    return [_request(rng) for _ in range(length)]


def _request(rng: Random) -> Request:
    kind, name = rng.choice((GRAPHS, GRAPHS, ADAPTERS)), rng.choice(NAMES)
    verb = rng.choices(("create", "patch", "replace", "delete", "status"), (3, 12, 5, 1, 3))[0]
    age = rng.choices((None, 0, 1), (1, 6, 3))[0]
    match verb:
        case "create":
            return Request(verb, kind, name, _object(rng, kind))
        case "replace":
            return Request(verb, kind, name, [_put(rng, kind)], age=age)
        case "delete":
            return Request(verb, kind, name, age=age)
        case "status":
            value = {"observedGeneration": rng.randrange(3)}
            operations = [{"op": "add", "path": "/status", "value": value}]
            return Request("patch", kind, name, operations, status=True)
        case _:
            return Request(verb, kind, name, list(_operations(rng, kind)), age=age)


def _object(rng: Random, kind: str) -> Json:
    metadata: Json = {}
    if rng.random() < 0.7:
        metadata["annotations"] = {"other": "x"}
        if rng.random() < 0.7:
            metadata["annotations"]["example.com/fence"] = rng.choice(FENCES)
    if rng.random() < 0.3:
        metadata["finalizers"] = ["example.com/wait"]
    if kind == ADAPTERS:
        return {"metadata": metadata, "spec": {"replicas": rng.randrange(4), "dgdRef": {"name": "a"}}}
    components: list[Json] = [{"name": "P", "replicas": rng.randrange(4)}, {"name": "D"}]
    if rng.random() < 0.5:
        components[1]["replicas"] = rng.randrange(4)
    return {"metadata": metadata, "spec": {"components": components}}


def _operations(rng: Random, kind: str) -> Iterator[Json]:
    """Yield a patch as the planner sends it, or one that others might send."""
    where = "/spec/replicas" if kind == ADAPTERS else f"/spec/components/{rng.randrange(3)}/replicas"
    if rng.random() < 0.5:
        yield {"op": "test", "path": "/metadata/deletionTimestamp", "value": None}
    if rng.random() < 0.5:
        yield {"op": "test", "path": "/metadata/uid", "value": "$uid"}
    if rng.random() < 0.5:
        yield {"op": "test", "path": FENCE, "value": rng.choice((*FENCES, None))}
    if rng.random() < 0.3:
        yield {"op": "test", "path": where, "value": rng.choice((0, 1, 2, 3, None))}
    yield rng.choice(
        [
            {"op": "add", "path": where, "value": rng.choice(COUNTS)},
            {"op": "replace", "path": where, "value": rng.choice(COUNTS)},
            {"op": "remove", "path": "/metadata/finalizers"},
            {"op": "remove", "path": FENCE},
            {"op": "add", "path": "/metadata/annotations", "value": {"example.com/fence": rng.choice(FENCES)}},
            {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
        ]
    )
    if rng.random() < 0.6:
        yield {"op": rng.choice(("add", "replace")), "path": FENCE, "value": rng.choice(FENCES)}


def _put(rng: Random, kind: str) -> Json:
    """Return what a PUT changes of the object that was read."""
    where = "/spec/replicas" if kind == ADAPTERS else "/spec/components/0/replicas"
    return rng.choice(
        [
            {"op": "add", "path": where, "value": rng.choice(COUNTS)},
            {"op": "add", "path": "/metadata/annotations", "value": {"example.com/fence": rng.choice(FENCES)}},
        ]
    )


def run(server: Server, requests: Sequence[Request], *, namespace: str) -> list[Told]:
    """Send *requests* one after the other and return what each of them did."""
    known: dict[tuple[str, str], list[Json]] = {}
    return [_sent(server, one, (one.kind, namespace, one.name), known) for one in requests]


def _sent(server: Server, request: Request, key: Key, known: dict[tuple[str, str], list[Json]]) -> Told:
    before = server.get(key)
    read = known.setdefault((request.kind, request.name), [])
    if before.status == HTTPStatus.OK and before.body not in read:
        read.append(before.body)
    basis = read[-1 - request.age] if request.age is not None and request.age < len(read) else None
    answer = _asked(server, request, key, basis)
    after = server.get(key)
    return Told(
        answer.status, _compared(before, after), timeless(after.body) if after.status == HTTPStatus.OK else None
    )


def _asked(server: Server, request: Request, key: Key, basis: Json | None) -> Answer:
    match request.verb:
        case "create":
            return server.create(key, request.body)
        case "delete":
            return server.delete(key, uid=None if basis is None else basis["metadata"]["uid"])
        case "replace":
            obj = apply(basis or {"metadata": {}, "spec": {"components": [{"name": "P"}]}}, request.body)
            return server.replace(key, obj)
        case _:
            uid = "nothing" if basis is None else basis["metadata"]["uid"]
            operations = [{**one, "value": uid} if one.get("value") == "$uid" else one for one in request.body]
            return server.patch(key, operations, status=request.status)


def _compared(before: Answer, after: Answer) -> str:
    """Return what became of the object, in one word."""
    if before.status != HTTPStatus.OK or after.status != HTTPStatus.OK:
        return f"{before.status} to {after.status}"
    was, now = before.body["metadata"], after.body["metadata"]
    if was["uid"] != now["uid"]:
        return "another"
    return "unchanged" if was["resourceVersion"] == now["resourceVersion"] else "changed"


def timeless(obj: Json) -> Json:
    """Return *obj* without what no two servers have in common."""
    own = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "deletionGracePeriodSeconds", "namespace")
    metadata = {name: value for name, value in obj["metadata"].items() if name not in own}
    if "deletionTimestamp" in metadata:
        metadata["deletionTimestamp"] = "then"
    return {"metadata": metadata} | {name: obj[name] for name in ("spec", "status") if name in obj}
