"""The cluster as last seen, and the observations that follow from each change of it.

Rules of this file: no I/O. Whoever learns something tells the cache, and the cache tells the one consumer of its feed
what changed for a participant, never what is the same.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator

from gpadapters.kubernetes.catalogue import ADAPTERS, GRAPHS
from gpadapters.kubernetes.fleet import Reach, Shapes, joined
from gpadapters.kubernetes.objects import Adapter, Graph
from gpadapters.kubernetes.pods import Release, Worker, holding
from gpadapters.kubernetes.rights import LIST, PATCH, Right, Rights
from gpadapters.kubernetes.tracks import Track
from gpcore.events import Gone, Listed, Seen, Stale
from gpcore.pools import Deployment, ParticipantId
from gpcore.ports import Observation


class Feed:
    """Hand observations to one consumer, and know which of them it has taken."""

    def __init__(self) -> None:
        self._waiting: deque[Observation] = deque()
        self._wake = asyncio.Event()
        self._put = self._taken = 0
        self._watchers: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._open = False
        self._fault: BaseException | None = None

    def put(self, observation: Observation) -> None:
        """Append *observation*, if anybody listens."""
        if self._open:
            self._waiting.append(observation)
            self._put += 1
            self._wake.set()

    def fail(self, fault: BaseException) -> None:
        """Let the consumer raise *fault* when it has taken everything."""
        self._fault = fault
        self._wake.set()

    def open(self) -> None:
        """Begin to keep what is put; there is one consumer at a time."""
        if self._open:
            raise RuntimeError("the cluster is being observed already")
        self._open, self._fault = True, None

    def close(self) -> None:
        """Forget what nobody will take."""
        self._open = False
        self._waiting.clear()
        self._took(self._put)

    async def taken(self) -> AsyncIterator[Observation]:
        """Yield each observation; one counts as shown when the next is asked for."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
                self._took(self._taken + 1)
            if self._fault is not None:
                raise self._fault
            self._wake.clear()
            await self._wake.wait()

    async def shown(self) -> None:
        """Wait until everything that was put before now is shown."""
        if self._taken < self._put:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.append((self._put, future))
            await future

    def _took(self, count: int) -> None:
        self._taken = count
        while self._watchers and self._watchers[0][0] <= count:
            _, future = self._watchers.popleft()
            if not future.done():
                future.set_result(None)


class Cache:
    """Join graphs and adapters to deployments, whose fences are those of the ledger *domain*.

    *release* says what confirms that GPUs have come free; where that is pods, somebody follows them.
    """

    def __init__(self, *, domain: str, rights: Rights | None = None, release: Release = Release.STATUS) -> None:
        self.domain = domain
        self.release = release
        self._rights = rights or Rights()
        self.graphs: Track[Graph] = Track()
        self.adapters: Track[Adapter] = Track()
        self.pods: Track[Worker] = Track()
        self.feed = Feed()
        self._shapes: dict[ParticipantId, tuple[str, Shapes]] = {}
        self._shown: dict[ParticipantId, Deployment] | None = None  # None: nothing is shown before a whole list is

    def changed(self, participants: Iterable[ParticipantId]) -> None:
        """Show how these *participants* are now."""
        for participant in participants:
            deployment = self.deployment(participant)
            if self._shown is None or self._shown.get(participant) == deployment:
                continue
            if deployment is None:
                del self._shown[participant]
                self.feed.put(Gone(participant))
            else:
                self._shown[participant] = deployment
                self.feed.put(Seen(deployment))

    def whole(self) -> None:
        """Show that everything is known."""
        self._shown = {one.id: one for one in self._deployments()}
        self.feed.put(Listed(tuple(self._shown.values())))

    def uncertain(self) -> None:
        """Show that changes may be missed."""
        if self._shown is not None:
            self.feed.put(Stale())

    def forget_shown(self) -> None:
        """Begin anew with a new consumer."""
        self._shown = None

    def deployment(self, participant: ParticipantId) -> Deployment | None:
        """Return what is known of *participant*, and remember the shapes that it was counted with."""
        for graph in self.graphs.of(participant):
            uid, shapes = self._shapes.get(participant, ("", {}))
            same = uid == graph.identity.uid
            adapters, reach = self.adapters.of(participant), self._reach(participant.namespace)
            pods = holding(self.pods.of(participant))
            result = joined(graph, adapters, shapes if same else {}, reach=reach, domain=self.domain, pods=pods)
            self._shapes[participant] = (graph.identity.uid, result.shapes)
            return result.deployment
        self._shapes.pop(participant, None)
        return None

    def _reach(self, namespace: str) -> Reach:
        return Reach(
            served=namespace in self.adapters.served,
            readable=Right(LIST, ADAPTERS, namespace) in self._rights,
            adapters_writable=Right(PATCH, ADAPTERS, namespace) in self._rights,
            graphs_writable=Right(PATCH, GRAPHS, namespace) in self._rights,
            release=self.release,
        )

    def _deployments(self) -> Iterator[Deployment]:
        for participant in list(self.graphs.participants()):
            deployment = self.deployment(participant)
            if deployment is not None:
                yield deployment
