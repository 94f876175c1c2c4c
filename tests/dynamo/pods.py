"""The pods of a deployment, as processes: as many workers of one component as its object asks for.

Rules of this file: it reads the object as a controller does and never writes it. A worker is Dynamo's own mocker.
"""

import contextlib
import http.client
import threading
from collections.abc import Callable
from typing import Self

from tests.cluster import ApiError, Client, components_of
from tests.cluster.processes import Leashed

_LOOK_EVERY_S = 0.1


class Pods:
    """Keeps the pods of *component* at its replicas; use it as a context manager."""

    def __init__(self, client: Client, path: str, component: str, pod: Callable[[int], Leashed]) -> None:
        """Prepare to run what *pod* gives for the number of each pod, as the object at *path* asks for."""
        self.counts: list[int] = []  # the replicas that were asked for, one after the other
        self._client, self._path, self._component, self._pod = client, path, component, pod
        self._running: list[Leashed] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"pods of {component}", daemon=True)

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill every pod."""
        self._stopped.set()
        self._thread.join(timeout=10)
        for pod in self._running:
            pod.kill()

    def _follow(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            with contextlib.suppress(ApiError, OSError, http.client.HTTPException):
                graph = self._client.get(self._path)
                self._scale(next(one.wanted for one in components_of(graph) if one.name == self._component))

    def _scale(self, wanted: int) -> None:
        if self.counts[-1:] != [wanted]:
            self.counts.append(wanted)
        while len(self._running) > wanted:
            self._running.pop().kill()
        while len(self._running) < wanted:
            pod = self._pod(len(self._running))
            pod.start()
            self._running.append(pod)
