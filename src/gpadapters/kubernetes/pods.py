"""The pods that the operator runs, where a release is to be confirmed by them.

Rules of this file: pure. A pod holds its GPUs until it is finished or gone, so one that is terminating counts. Which
deployment and component it is for is told by the operator's labels.
"""

import enum
from collections import Counter
from collections.abc import Iterable, Mapping

import attrs
import msgspec

from gpadapters.kubernetes.objects import Identity
from gpadapters.kubernetes.schema import PodObject, decode
from gpcore.errors import InvalidError
from gpcore.pools import ParticipantId

PODS = "pods"
GRAPH_LABEL = "nvidia.com/dynamo-graph-deployment-name"
COMPONENT_LABEL = "nvidia.com/dynamo-component"

_FINISHED = frozenset({"Succeeded", "Failed"})


class Release(enum.Enum):
    """What says that the GPUs of replicas that nobody asks for any more are free.

    SPEC: that nobody asks for them. STATUS: that the operator shows them no more. PODS: that their pods are gone too.
    """

    SPEC = "spec"
    STATUS = "status"
    PODS = "pods"


@attrs.frozen
class Worker:
    """A pod of *component* of the graph *participant*; *holding*: it is not finished, so it has its GPUs."""

    key: tuple[str, str]
    identity: Identity
    participant: ParticipantId
    component: str
    holding: bool


def read_pod(raw: bytes | msgspec.Raw) -> Worker:
    """Return the pod that *raw* tells about."""
    read = decode(PodObject, raw)
    metadata, labels = read.metadata, read.metadata.labels or {}
    identity = Identity(
        metadata.uid, metadata.resource_version, metadata.generation, metadata.deletion_timestamp is not None
    )
    return Worker(
        (metadata.namespace, metadata.name),
        identity,
        _participant(metadata.namespace, labels.get(GRAPH_LABEL, ""), metadata.name),
        labels.get(COMPONENT_LABEL, ""),
        (read.status.phase if read.status else "") not in _FINISHED,
    )


def _participant(namespace: str, graph: str, name: str) -> ParticipantId:
    """Return the deployment *graph*; a label that can be no deployment's name makes the pod its own."""
    try:
        return ParticipantId(namespace, graph)
    except InvalidError:
        return ParticipantId(namespace, name)


def holding(workers: Iterable[Worker]) -> Mapping[str, int]:
    """Return how many of *workers* hold GPUs, by component."""
    return Counter(one.component for one in workers if one.holding)


def replicas_holding(pods: int, nodes: int) -> int:
    """Return how many replicas, each of so many *nodes* and a pod on each, the *pods* may be of; rounded up."""
    return -(-pods // nodes)


class Core:
    """Say where the API server serves the kinds that are Kubernetes' own."""

    async def find(self, plural: str) -> bool:
        """Say whether there is such a kind."""
        return plural == PODS

    def path(self, plural: str, namespace: str) -> str:
        """Return the path of a collection."""
        return f"/api/v1/namespaces/{namespace}/{plural}"
