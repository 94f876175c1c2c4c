"""What keeps no ceiling: several who each list, add up, and patch if there is room, as one would write it first.

Each patch tests the resourceVersion of the object that it changes, so none of them overwrites another's change. Two of
them still find the same room and fill it with different objects.
"""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.cluster import ApiError, Client, Json, components_of, graphs
from tests.cluster.objects import replicas_pointer

_MOST = 8


@contextmanager
def naive_planners(client: Client, namespace: str, *, ceiling: int, count: int, seed: int) -> Iterator[None]:
    """Let *count* of them change the deployments of *namespace* at random while the body runs."""
    ended = threading.Event()

    def plan(number: int) -> None:
        chance = random.Random(f"{seed} {number}")  # noqa: S311 - what they want is the same on every run
        while not ended.is_set():
            _change(client, namespace, ceiling=ceiling, chance=chance)

    with ThreadPoolExecutor(count) as threads:
        planning = [threads.submit(plan, number) for number in range(count)]
        try:
            yield
        finally:
            ended.set()
        for one in planning:
            one.result()


def _change(client: Client, namespace: str, *, ceiling: int, chance: random.Random) -> None:
    listed = client.items(graphs(namespace))
    graph = chance.choice(listed)
    worker = chance.choice([one for one in components_of(graph) if one.gpus_per_replica])
    wanted = chance.randint(0, _MOST)
    more = (wanted - worker.wanted) * (worker.gpus_per_replica or 0)
    if more <= 0 or sum(map(_asked, listed)) + more <= ceiling:
        _patch(client, graph, worker.name, wanted)


def _asked(graph: Json) -> int:
    return sum(one.wanted * (one.gpus_per_replica or 0) for one in components_of(graph))


def _patch(client: Client, graph: Json, component: str, replicas: int) -> None:
    metadata = graph["metadata"]
    operations = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
        {"op": "replace", "path": replicas_pointer(graph, component), "value": replicas},
    ]
    try:
        client.patch(graphs(metadata["namespace"], metadata["name"]), operations)
    except ApiError as error:
        if error.status not in {409, 422}:  # somebody else was faster
            raise
