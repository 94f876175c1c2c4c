"""Observe the deployments of some Kubernetes namespaces.

Rules of this file: the view is whole when every follower has listed, and certain until one of them has lost its
thread. What is shown, and in which words, is the cache's.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from gpadapters.kubernetes.cache import Cache
from gpadapters.kubernetes.catalogue import ADAPTERS, GRAPHS, VERSIONS, Catalogue
from gpadapters.kubernetes.following import Follower, Kind, Pace, Places
from gpadapters.kubernetes.objects import Adapter, Graph, read_adapter, read_graph
from gpadapters.kubernetes.pods import GRAPH_LABEL, PODS, Core, Release, Worker, read_pod
from gpadapters.kubernetes.rights import Rights
from gpadapters.kubernetes.session import Session
from gpadapters.kubernetes.tracks import Track
from gpcore.conditions import Condition
from gpcore.pools import ParticipantId
from gpcore.ports import Observation

log = logging.getLogger(__name__)

_ABSENT = f"the server has no {GRAPHS} of nvidia.com, neither {' nor '.join(VERSIONS)}; is Dynamo installed?"
_GRAPHS: Kind[Graph] = Kind(GRAPHS, read_graph, _ABSENT)
_ADAPTERS: Kind[Adapter] = Kind(ADAPTERS, read_adapter, _ABSENT, optional=True)
_PODS: Kind[Worker] = Kind(PODS, read_pod, "", written=False, selector=GRAPH_LABEL)


class KubernetesObserver:
    """Implements `gpcore.ports.Observer` for the API server of *session*."""

    def __init__(
        self,
        session: Session,
        cache: Cache,
        *,
        catalogue: Catalogue,
        rights: Rights,
        namespaces: Sequence[str],
        pace: Pace,
    ) -> None:
        self._cache = cache
        self._rights = rights
        self._pace = pace
        self._certain = False
        self._unseen = tuple(dict.fromkeys(namespaces))  # those of which nothing was shown yet
        self._followers: list[Follower[Any]] = []
        for namespace in self._unseen:
            kinds: list[tuple[Kind[Any], Track[Any], Places]]
            kinds = [(_GRAPHS, cache.graphs, catalogue), (_ADAPTERS, cache.adapters, catalogue)]
            kinds += [(_PODS, cache.pods, Core())] if cache.release is Release.PODS else []
            for kind, track, places in kinds:
                follower: Follower[Any] = Follower(
                    kind,
                    track,
                    namespace=namespace,
                    session=session,
                    catalogue=places,
                    rights=rights,
                    listener=self,
                    pace=pace,
                )
                self._followers.append(follower)

    @property
    def problem(self) -> str | None:
        """Return what keeps the cluster from being followed, or None where nothing does."""
        return next((f"{one.name}: {one.problem}" for one in self._followers if one.problem is not None), None)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Return which rights are missing, and what follows from each."""
        return self._rights.conditions

    @property
    def watch_age_s(self) -> float:
        """Return the seconds since the API server was last heard of, by the follower that waits longest.

        Where nothing changes it is heard of about once a minute.
        """
        now = self._pace.clock()
        return now - min((one.contact for one in self._followers), default=now)

    async def observe(self) -> AsyncGenerator[Observation, None]:
        """Yield a whole list, then each change; see the port."""
        self._cache.feed.open()
        self._begin()
        tasks = [asyncio.create_task(self._guarded(one), name=f"follow {one.name}") for one in self._followers]
        try:
            async for observation in self._cache.feed.taken():
                yield observation
        finally:
            self._cache.feed.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in self._followers:
                one.begin()  # nobody may wait for what nobody follows any more

    async def refresh(self) -> None:
        """List what may not be watched, and return when that is shown; see the port."""
        polling = [one for one in self._followers if one.polling]
        if polling:
            await asyncio.gather(*(one.refresh() for one in polling))
            await self._cache.feed.shown()

    def changed(self, participants: set[ParticipantId]) -> None:
        """Take note that a follower learned something of *participants*."""
        self._cache.changed(participants)

    def followed(self) -> None:
        """Take note that a follower has taken in a whole list."""
        if not self._certain and all(one.current for one in self._followers):
            self._certain = True
            self._cache.whole()
            self._tell_empty()

    def lost(self) -> None:
        """Take note that a follower may have missed something."""
        if self._certain:
            self._certain = False
            self._cache.uncertain()

    def limited(self, namespace: str) -> None:
        """Take note that a follower learned what we may do in *namespace*."""
        self._cache.changed([one for one in self._cache.graphs.participants() if one.namespace == namespace])

    def _begin(self) -> None:
        self._certain = False
        self._cache.forget_shown()
        for one in self._followers:
            one.begin()
        self.followed()  # of no namespace at all, everything is known

    def _tell_empty(self) -> None:
        """Say once which namespaces hold nothing: the server lists one that does not exist as it does an empty one."""
        held = {participant.namespace for participant in self._cache.graphs.participants()}
        for namespace in self._unseen:
            if namespace not in held:
                log.warning("namespace %s does not exist or holds no deployment; is it the right one?", namespace)
        self._unseen = ()

    async def _guarded(self, follower: Follower[Any]) -> None:
        try:
            await follower.run()
        except Exception as fault:
            self._cache.feed.fail(fault)  # a mistake of ours: nobody may believe that all is well
            raise
