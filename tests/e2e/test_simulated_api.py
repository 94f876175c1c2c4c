"""The simulated API server is worth what this proves: the same scripts do the same on a real one."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from random import Random

import attrs
import pytest

from tests.cluster import ApiError, ApiServer, Client, adapters, graphs
from tests.simulation.api import ADAPTERS, GRAPHS, Answer, GoneError, Json, Key, ModelApi
from tests.simulation.scripts import run, script, timeless

PATHS = {GRAPHS: graphs, ADAPTERS: adapters}
KINDS = {GRAPHS: "DynamoGraphDeployment", ADAPTERS: "DynamoGraphDeploymentScalingAdapter"}
LENGTH = 60


@attrs.frozen
class RealServer:
    """A real API server in the words of the simulated one."""

    client: Client

    def get(self, key: Key) -> Answer:
        return self._asked("GET", key)

    def create(self, key: Key, obj: Json) -> Answer:
        kind, namespace, name = key
        head = {"apiVersion": "nvidia.com/v1beta1", "kind": KINDS[kind]}
        metadata = {**obj.get("metadata", {}), "name": name}
        return self._answer(lambda: self.client.create({**obj, **head, "metadata": metadata}, namespace=namespace), 201)

    def replace(self, key: Key, obj: Json) -> Answer:
        head = {"apiVersion": "nvidia.com/v1beta1", "kind": KINDS[key[0]]}
        metadata = {"name": key[2], **obj.get("metadata", {})}
        return self._asked("PUT", key, {**obj, **head, "metadata": metadata})

    def patch(self, key: Key, operations: Sequence[Json], *, status: bool = False) -> Answer:
        path = PATHS[key[0]](key[1], key[2], sub="status" if status else None)
        return self._answer(lambda: self.client.patch(path, list(operations)))

    def delete(self, key: Key, *, uid: str | None = None) -> Answer:
        return self._answer(lambda: self.client.delete(PATHS[key[0]](key[1], key[2]), uid=uid))

    def _asked(self, method: str, key: Key, body: Json | None = None) -> Answer:
        return self._answer(lambda: self.client.request(method, PATHS[key[0]](key[1], key[2]), body))

    def _answer(self, ask: Callable[[], Json], status: int = 200) -> Answer:
        try:
            return Answer(status, ask())
        except ApiError as error:
            return Answer(error.status, error.body)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_script_does_the_same_on_a_real_server(cluster: ApiServer, namespace: str, seed: int) -> None:
    rng = Random(seed)  # noqa: S311 - no secret
    model, requests = ModelApi(), script(rng, LENGTH)
    since = {kind: cluster.client.get(PATHS[kind](namespace))["metadata"]["resourceVersion"] for kind in KINDS}
    expected = run(RealServer(cluster.client), requests, namespace=namespace)
    found = run(model, requests, namespace=namespace)
    for request, theirs, ours in zip(requests, expected, found, strict=True):
        assert (request, ours) == (request, theirs)
    for kind in KINDS:
        log = [(change.kind, timeless(change.obj)) for change in model.changes(kind, since=0)]
        assert log == _watched(cluster.client, kind, namespace, since[kind], len(log))


def _watched(client: Client, kind: str, namespace: str, since: str, count: int) -> list[tuple[str, Json]]:
    """Return the first *count* changes that a watch shows."""
    if not count:
        return []
    seen: list[tuple[str, Json]] = []
    with client.watch(PATHS[kind](namespace), resourceVersion=since, timeoutSeconds=5) as watch:
        for event in watch:
            seen.append((event["type"], timeless(event["object"])))
            if len(seen) == count:
                break
    return seen


def test_a_watch_from_before_what_is_kept_is_told_that_it_is_gone(client: Client, namespace: str) -> None:
    with client.watch(graphs(namespace), resourceVersion=1, timeoutSeconds=5) as watch:
        told = next(iter(watch))
    assert (told["type"], told["object"]["code"]) == ("ERROR", HTTPStatus.GONE)
    model = ModelApi()
    model.create((GRAPHS, namespace, "a"), {"spec": {}})
    model.compact(model.revision)
    with pytest.raises(GoneError):
        model.changes(GRAPHS, since=1)
