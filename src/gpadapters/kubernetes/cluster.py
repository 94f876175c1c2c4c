"""A Kubernetes cluster that runs Dynamo: observe its deployments, and write their replicas.

Rules of this file: the one way in; it makes the parts and says what they share.

>>> async with connect(["inference"], domain="inference/main") as cluster:  # doctest: +SKIP
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
from gpadapters.kubernetes.crd import lease_name
from gpadapters.kubernetes.events import KubernetesEvents
from gpadapters.kubernetes.executor import KubernetesExecutor
from gpadapters.kubernetes.following import Pace
from gpadapters.kubernetes.lease import KubernetesLease
from gpadapters.kubernetes.ledger import KubernetesLedger
from gpadapters.kubernetes.observer import KubernetesObserver
from gpadapters.kubernetes.pods import Release
from gpadapters.kubernetes.rights import Rights
from gpadapters.kubernetes.session import Session, load_configuration
from gpcore.errors import MissingError, PortError

__all__ = ["Cluster", "KubernetesExecutor", "KubernetesObserver", "Pace", "Release", "connect"]


@attrs.frozen
class Cluster:
    """The ports of one cluster; all share its connections and what is known of it."""

    observer: KubernetesObserver
    executor: KubernetesExecutor
    events: KubernetesEvents
    session: Session

    def ledger(self, namespace: str, name: str) -> KubernetesLedger:
        """Return the store of the ledger *name* in *namespace*."""
        return KubernetesLedger(self.session, namespace=namespace, name=name)

    def lease(self, namespace: str, name: str) -> KubernetesLease:
        """Return the store of the lease that goes with the ledger *name* in *namespace*."""
        return KubernetesLease(self.session, namespace=namespace, name=lease_name(name))

    async def ledger_refused(self, namespace: str, name: str) -> str | None:
        """Return why there can be no ledger in *namespace*, or None where there can be, or where nobody knows now."""
        try:
            await self.ledger(namespace, name).load()
        except MissingError as fault:
            return str(fault)
        except PortError:
            return None
        return None


@asynccontextmanager
async def connect(
    namespaces: Sequence[str],
    *,
    domain: str,
    kubeconfig: Path | None = None,
    context: str | None = None,
    pace: Pace | None = None,
    release: Release = Release.STATUS,
) -> AsyncIterator[Cluster]:
    """Give the cluster of *kubeconfig* and *context*, or else the one that this process runs in, or else the default's.

    The deployments of these Kubernetes *namespaces* are all there are. *domain* names the ledger of the fences on them,
    as `namespace/name`. *release* says what confirms that GPUs have come free. A configuration that is not usable, or
    that would not verify whom it talks to, raises ConfigError. Nothing is connected before the first observation.
    """
    pace = pace or Pace()
    async with Session(partial(load_configuration, kubeconfig, context)) as session:
        rights, catalogue = Rights(), Catalogue(session)
        cache = Cache(domain=domain, rights=rights, release=release)
        observer = KubernetesObserver(
            session, cache, catalogue=catalogue, rights=rights, namespaces=namespaces, pace=pace
        )
        executor = KubernetesExecutor(session, cache, catalogue=catalogue, pace=pace)
        events = KubernetesEvents(session, cache.graphs, rights=rights, domain=domain, pace=pace)
        yield Cluster(observer, executor, events, session)
