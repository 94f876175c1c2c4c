"""A Kubernetes cluster that runs Dynamo: observe its deployments, and write their replicas.

Rules of this file: the one way in; it makes the parts and says what they share.

>>> async with connect(["inference"]) as cluster:  # doctest: +SKIP
...     async for observation in cluster.observer.observe():
...         print(observation)
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs

from gpadapters.kubernetes.cache import Cache
from gpadapters.kubernetes.catalogue import Catalogue
from gpadapters.kubernetes.executor import KubernetesExecutor
from gpadapters.kubernetes.following import Pace
from gpadapters.kubernetes.observer import KubernetesObserver
from gpadapters.kubernetes.rights import Rights
from gpadapters.kubernetes.session import Session, load_configuration

__all__ = ["Cluster", "KubernetesExecutor", "KubernetesObserver", "Pace", "connect"]


@attrs.frozen
class Cluster:
    """The ports of one cluster; both share its connections and what is known of it."""

    observer: KubernetesObserver
    executor: KubernetesExecutor


@asynccontextmanager
async def connect(
    namespaces: Sequence[str], *, kubeconfig: Path | None = None, context: str | None = None, pace: Pace | None = None
) -> AsyncIterator[Cluster]:
    """Give the cluster of *kubeconfig* and *context*, or else the one that this process runs in, or else the default's.

    The deployments of these Kubernetes *namespaces* are all there are. A configuration that is not usable, or that
    would not verify whom it talks to, raises ConfigError. Nothing is connected before the first observation.
    """
    pace = pace or Pace()
    async with Session(partial(load_configuration, kubeconfig, context)) as session:
        rights, catalogue = Rights(), Catalogue(session)
        cache = Cache(rights)
        observer = KubernetesObserver(
            session, cache, catalogue=catalogue, rights=rights, namespaces=namespaces, pace=pace
        )
        yield Cluster(observer, KubernetesExecutor(session, cache, catalogue=catalogue, pace=pace))
