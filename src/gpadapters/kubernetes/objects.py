"""What the planner knows of one object: DynamoGraphDeployments and their scaling adapters, of either version.

Rules of this file: pure, bytes in and values out, nothing raised but ValueError for bytes that name no object. Which
version an object has is told by its fields, not by its apiVersion. What is not understood is a problem in words and
an unknown shape; it never makes the fleet look smaller.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import attrs
import msgspec

from gpadapters.kubernetes.gpus import asked, nodes_of, told, whole
from gpadapters.kubernetes.schema import (
    AdapterObject,
    AnyObject,
    GraphObject,
    GraphSpec,
    GraphStatus,
    Metadata,
    Part,
    PartStatus,
    decode,
)
from gpcore.errors import InvalidError
from gpcore.pools import ParticipantId, Role

MAX_COUNT = 2**31 - 1
"""The largest count that Kubernetes has a type for."""

_ENGINES = frozenset({"worker", "prefill", "decode"})
_FENCE = re.compile(r"[!-9;-~]{1,128}")
_DOMAIN = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}/[a-z0-9][a-z0-9.-]{0,252}")


@attrs.frozen
class Identity:
    """Tell an object, and its state, from every other: *version* is compared for equality only.

    *claim* is the annotation that holds its fence, as it is written (None: absent); *annotated* says whether it has
    any annotations at all.
    """

    uid: str
    version: str
    generation: int
    deleting: bool = False
    claim: str | None = None
    annotated: bool = False

    def fence(self, domain: str) -> str | None:
        """Return the fence that stands on the object, "" where none does, and None where it is not of *domain*.

        *domain* names a ledger: `namespace/name`.
        """
        if not self.claim:
            return ""
        owner, _, fence = self.claim.partition(":")
        return fence if owner == domain and _FENCE.fullmatch(fence) else None

    def stranger(self, domain: str) -> str | None:
        """Return what is wrong with the claim on the object, in words, where it is not of *domain*."""
        if self.fence(domain) is not None:
            return None
        owner, _, fence = (self.claim or "").partition(":")
        if owner != domain and _DOMAIN.fullmatch(owner) and _FENCE.fullmatch(fence):
            return f"belongs to another ledger, {owner}"
        return f"has a fence that is not understood: {_shown(self.claim)}"


def claim_of(domain: str, fence: str) -> str:
    """Return the annotation that says that *fence* stands in the ledger *domain*; "" for no fence."""
    return f"{domain}:{fence}" if fence else ""


@attrs.frozen
class Component:
    """One component of a graph. *place* is the last part of its JSON pointer.

    *role* None: nobody scales it through us. *written* is the count that stands in the object, None where none does.
    *asked* and *told* are the GPUs per replica by its spec and by its status. *adapted*: the operator makes an adapter
    for it, and takes its replicas from there. *flaw* says what cannot be counted with. *nodes*: on how many nodes one
    replica runs.
    """

    name: str
    place: str
    role: Role | None
    replicas: int
    written: int | None
    asked: int | None
    told: int | None = None
    present: int = 0
    ready: int = 0
    adapted: bool = False
    flaw: str | None = None
    nodes: int = 1


@attrs.frozen
class Graph:
    """A DynamoGraphDeployment.

    *field* is the one that holds its components; *current* says whether its status tells about its spec as it is
    now; *understood* whether the components are all there are.
    """

    participant: ParticipantId
    identity: Identity
    field: str = "components"
    components: tuple[Component, ...] = ()
    current: bool = False
    understood: bool = True
    problems: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Return the namespace and the name of the object."""
        return (self.participant.namespace, self.participant.name)


@attrs.frozen
class Adapter:
    """A DynamoGraphDeploymentScalingAdapter: the replicas of *component* of the graph *participant*.

    *reference* is the field that names the component; *component* None: it scales something else.
    """

    key: tuple[str, str]
    identity: Identity
    participant: ParticipantId
    component: str | None
    reference: str
    replicas: int
    flaw: str | None = None

    @property
    def name(self) -> str:
        """Return the name of the object."""
        return self.key[1]


def read_graph(raw: bytes | msgspec.Raw) -> Graph:
    """Return the graph that *raw* tells about; one that is not understood is all problem and no component."""
    try:
        read = decode(GraphObject, raw)
    except ValueError as fault:
        metadata = decode(AnyObject, raw).metadata
        return Graph(_participant(metadata), _identity(metadata), understood=False, problems=(f"it is {fault}",))
    return _graph(read)


def read_adapter(raw: bytes | msgspec.Raw) -> Adapter:
    """Return the adapter that *raw* tells about."""
    read = decode(AdapterObject, raw)
    metadata, target = read.metadata, read.spec.dgd_ref
    replicas = _count(read.spec.replicas)
    new = target.component_name is not None
    return Adapter(
        (metadata.namespace, metadata.name),
        _identity(metadata),
        _participant_of(metadata.namespace, target.name),
        target.component_name if new else target.service_name,
        "componentName" if new else "serviceName",
        0 if replicas is None else replicas,
        None if replicas is not None else f"its replicas are {_shown(read.spec.replicas)}",
    )


def _graph(read: GraphObject) -> Graph:
    metadata, spec, status = read.metadata, read.spec or GraphSpec(), read.status or GraphStatus()
    field = "services" if spec.services is not None else "components"
    statuses = {**(status.components or {}), **(status.services or {})}
    components = tuple(
        _component(name, place, part, statuses, adapted=adapted) for name, place, part, adapted in _parts(spec)
    )
    problems = tuple(_misunderstood(spec, components))
    return Graph(
        _participant(metadata),
        _identity(metadata),
        field,
        components if not problems else (),
        current=metadata.generation > 0 and status.observed_generation == metadata.generation,
        understood=not problems,
        problems=problems,
    )


def _parts(spec: GraphSpec) -> Iterable[tuple[str, str, Part, bool]]:
    """Yield the name of each component, its place in the object, what it says, and whether it wants an adapter."""
    for index, part in enumerate(spec.components or ()):
        yield part.name or "", str(index), part, part.scaling_adapter is not None
    for name, service in (spec.services or {}).items():
        part = service or Part()
        adapter = part.scaling_adapter
        adapted = isinstance(adapter, dict) and adapter.get("enabled") is True
        yield name, name.replace("~", "~0").replace("/", "~1"), part, adapted


def _misunderstood(spec: GraphSpec, components: Iterable[Component]) -> Iterable[str]:
    """Yield why nobody can say what the whole of *spec* is."""
    if spec.components is None and spec.services is None:
        yield "it has neither spec.components nor spec.services"
    if spec.components is not None and spec.services is not None:
        yield "it has both spec.components and spec.services"
    if spec.experimental is not None and spec.experimental.component_groups:
        yield "it has component groups, whose replicas multiply those of their members"
    names = Counter(component.name for component in components)
    yield from (f"{n} components are named {_shown(name)}" for name, n in names.items() if n > 1)
    if "" in names:
        yield "a component has no name"


def _component(
    name: str, place: str, part: Part, statuses: Mapping[str, PartStatus | None], *, adapted: bool
) -> Component:
    status = statuses.get(name) or PartStatus()
    kind, role = _kind(part), _role(part)
    counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas]
    counts = [count for count in (*counts, status.scheduled_replicas) if count is not None]
    serving = status.ready_replicas if status.available_replicas is None else status.available_replicas
    replicas = 1 if part.replicas is None else _count(part.replicas)
    flaws = [] if replicas is not None else [f"its replicas are {_shown(part.replicas)}"]
    flaws += [f"its status counts {_shown(count)}" for count in counts if _count(count) is None]
    return Component(
        name,
        place,
        role,
        replicas=0 if replicas is None else replicas,
        written=None if part.replicas is None else replicas,
        asked=asked(part, engine=kind in _ENGINES),
        told=told(status),
        present=max((_count(count) or 0 for count in counts), default=0),
        ready=_count(serving) or 0,
        adapted=adapted,
        flaw=flaws[0] if flaws else None,
        nodes=nodes_of(part.multinode) or 1,
    )


def _kind(part: Part) -> str | None:
    return part.type or part.component_type


def _role(part: Part) -> Role | None:
    """Return the role that scale requests know the component by.

    v1alpha1 has it beside the type; both of its examples, with and without `componentType: worker`, are in use.
    """
    kind = _kind(part)
    if part.sub_component_type and kind in (None, "", "default", "worker"):
        kind = part.sub_component_type
    return Role(kind) if kind in _ENGINES else None


def _count(value: object) -> int | None:
    count = whole(value)
    return count if count is not None and count <= MAX_COUNT else None


def _participant(metadata: Metadata) -> ParticipantId:
    return _participant_of(metadata.namespace, metadata.name)


def _participant_of(namespace: str, name: str) -> ParticipantId:
    try:
        return ParticipantId(namespace, name)
    except InvalidError as fault:
        raise ValueError(f"not an object of Kubernetes: {fault}") from fault


def _identity(metadata: Metadata) -> Identity:
    deleting, annotations = metadata.deletion_timestamp is not None, metadata.annotations
    return Identity(
        metadata.uid,
        metadata.resource_version,
        metadata.generation,
        deleting,
        None if annotations is None else annotations.fence,
        annotated=annotations is not None,
    )


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - one line
