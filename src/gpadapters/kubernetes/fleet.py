"""What the budget counts: one deployment, made of a graph and its scaling adapters.

Rules of this file: pure. Whatever makes a component unfit to be scaled through us (helpers, doubles, contradictions, an
adapter that is still to come) leaves it a fixed charge, so it is never forgotten; `problems` says why, for people.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs

from gpadapters.kubernetes.gpus import Shape, settled
from gpadapters.kubernetes.objects import Adapter, Component, Graph
from gpcore.pools import Authority, Deployment, Pool, PoolKey, Role

Shapes = Mapping[str, Shape]
"""The accepted shapes of one object's components, by name."""


@attrs.frozen
class Joined:
    """A deployment, and the shapes to remember for the next time."""

    deployment: Deployment
    shapes: Shapes


@attrs.frozen
class _Part:
    """A component with all that concerns it."""

    component: Component
    gpus: int | None
    adapters: tuple[Adapter, ...]
    waits: bool  # for its adapter: whatever is written to the graph until then would be undone

    @property
    def flaws(self) -> tuple[str, ...]:
        named = [(f"component {self.component.name}", self.component.flaw)]
        named += [(f"adapter {adapter.name}", adapter.flaw) for adapter in self.adapters]
        return tuple(f"{name}: {flaw}" for name, flaw in named if flaw is not None)

    @property
    def shape(self) -> int | None:
        """The GPUs per replica, or None where they, or the replicas, are not known."""
        return None if self.flaws else self.gpus

    @property
    def fixed_gpus(self) -> int | None:
        """The GPUs that the component may hold, as nobody scales it through us."""
        most = max(self.component.replicas, self.component.present, *(a.replicas for a in self.adapters), 0)
        if self.shape is not None:
            return most * self.shape
        return None if most or self.flaws else 0


def joined(graph: Graph, adapters: Sequence[Adapter], remembered: Shapes, *, served: bool, domain: str) -> Joined:
    """Return the deployment that *graph* and its *adapters* are; *remembered* are the shapes of the same object.

    *served* says whether there can be adapters at all. Where not, nobody reads them, and the graph is written instead.
    *domain* names the ledger whose fences are ours.
    """
    shapes = {
        one.name: settled(asked=one.asked, told=one.told, current=graph.current, before=remembered.get(one.name))
        for one in graph.components
    }
    parts = [_part(one, shapes[one.name].gpus, adapters, served=served) for one in graph.components]
    roles = Counter(one.role for one in graph.components)
    scaled = [part for part in parts if roles[part.component.role] == 1 and len(part.adapters) <= 1 and not part.waits]
    pools = tuple(_pool(graph, part, role, domain) for part in scaled if (role := part.component.role) is not None)
    taken = {pool.component for pool in pools}
    deployment = Deployment(
        graph.participant,
        pools,
        fixed_gpus=_fixed(graph, (part for part in parts if part.component.name not in taken)),
        problems=(*_problems(graph, parts, adapters, roles), *_strangers(graph, adapters, pools, domain)),
    )
    return Joined(deployment, shapes)


def authority_of(graph: Graph, adapters: Iterable[Adapter]) -> Authority:
    """Return the object that replicas are written to: the one adapter, or else the graph."""
    for adapter in adapters:
        return Authority(f"adapter/{adapter.name}", adapter.identity.uid)
    return Authority(f"deployment/{graph.participant.name}", graph.identity.uid)


def _part(component: Component, gpus: int | None, adapters: Iterable[Adapter], *, served: bool) -> _Part:
    own = tuple(adapter for adapter in adapters if adapter.component == component.name)
    return _Part(component, gpus, own, waits=served and component.adapted and component.role is not None and not own)


def _pool(graph: Graph, part: _Part, role: Role, domain: str) -> Pool:
    component = part.component
    identity = part.adapters[0].identity if part.adapters else graph.identity
    relayed = component.replicas if part.adapters else None
    return Pool(
        PoolKey(graph.participant, role),
        part.adapters[0].replicas if part.adapters else component.replicas,
        part.shape,
        present=component.present,
        ready=component.ready,
        relayed=relayed,
        component=component.name,
        authority=authority_of(graph, part.adapters),
        fence=identity.fence(domain),
    )


def _fixed(graph: Graph, parts: Iterable[_Part]) -> int | None:
    charges = [part.fixed_gpus for part in parts]
    return None if None in charges or not graph.understood else sum(charge or 0 for charge in charges)


def _problems(
    graph: Graph, parts: Sequence[_Part], adapters: Iterable[Adapter], roles: Counter[Role | None]
) -> Iterable[str]:
    yield from graph.problems
    if graph.identity.deleting:
        yield "it is being deleted; it counts until it is gone"
    for part in parts:
        yield from _doubts(part)
    for role, count in roles.items():
        if role is not None and count > 1:
            names = ", ".join(part.component.name for part in parts if part.component.role is role)
            yield f"{count} components are of the role {role.value}: {names}; none of them is scaled"
    known = {part.component.name for part in parts}
    for adapter in adapters:
        if adapter.component is None:
            yield f"adapter {adapter.name} names no component"
        elif adapter.component not in known:
            yield f"adapter {adapter.name} is for a component that does not exist: {adapter.component[:63]!a}"


def _strangers(graph: Graph, adapters: Iterable[Adapter], pools: Iterable[Pool], domain: str) -> Iterable[str]:
    """Yield each object that holds replicas of *pools* and is not ours to write."""
    identities = {identity.uid: identity for identity in (graph.identity, *[one.identity for one in adapters])}
    for authority in dict.fromkeys(pool.authority for pool in pools):
        why = identities[authority.uid].stranger(domain)
        if why is not None:
            yield f"{authority.name} {why}; it is not scaled"


def _doubts(part: _Part) -> Iterable[str]:
    name, many = part.component.name, part.adapters
    yield from part.flaws
    if not part.flaws and part.gpus is None:
        yield f"component {name}: the GPUs per replica are not known"
    if part.waits:
        yield f"component {name} waits for its scaling adapter; it is not scaled before that is there"
    if len(many) > 1:
        yield f"component {name} has {len(many)} adapters: {', '.join(a.name for a in many)}; it is not scaled"
