"""What the budget counts: one deployment, made of a graph and its scaling adapters.

Rules of this file: pure. Whatever makes a component unfit to be scaled through us (helpers, doubles, contradictions, an
adapter that is still to come) leaves it a fixed charge, so it is never forgotten; `problems` says why, for people.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import attrs

from gpadapters.kubernetes.gpus import Shape, settled
from gpadapters.kubernetes.objects import Adapter, Component, Graph
from gpadapters.kubernetes.pods import Release, replicas_holding
from gpcore.pools import Authority, Deployment, Pool, PoolKey, Role

Shapes = Mapping[str, Shape]
"""The accepted shapes of one object's components, by name."""


@attrs.frozen
class Joined:
    """A deployment, and the shapes to remember for the next time."""

    deployment: Deployment
    shapes: Shapes


@attrs.frozen(kw_only=True)
class Reach:
    """How far we reach in one namespace.

    *served* says whether there can be adapters at all: where not, nobody reads them, and the graph is written instead.
    *readable* says whether we may list them. *release* says what confirms that GPUs have come free.
    """

    served: bool = True
    readable: bool = True
    adapters_writable: bool = True
    graphs_writable: bool = True
    release: Release = Release.STATUS


@attrs.frozen
class _Part:
    """A component with all that concerns it."""

    component: Component
    gpus: int | None
    adapters: tuple[Adapter, ...]
    held: str | None  # what keeps it from being scaled although it has a role

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


def joined(
    graph: Graph,
    adapters: Sequence[Adapter],
    remembered: Shapes,
    *,
    reach: Reach,
    domain: str,
    pods: Mapping[str, int] | None = None,
) -> Joined:
    """Return the deployment that *graph* and its *adapters* are; *remembered* are the shapes of the same object.

    *domain* names the ledger whose fences are ours. *pods* are those that hold GPUs, by component, where they matter.
    """
    shapes = {one.name: _shape(one, remembered.get(one.name), current=graph.current) for one in graph.components}
    counted = [_counted(one, remembered.get(one.name), current=graph.current) for one in graph.components]
    counted = [_confirmed(one, reach.release, (pods or {}).get(one.name, 0)) for one in counted]
    parts = [_part(one, shapes[one.name].gpus, adapters, reach) for one in counted]
    roles = Counter(one.role for one in graph.components)
    scaled = [part for part in parts if roles[part.component.role] == 1 and part.held is None]
    pools = tuple(_pool(graph, part, role, domain) for part in scaled if (role := part.component.role) is not None)
    taken = {pool.component for pool in pools}
    deployment = Deployment(
        graph.participant,
        pools,
        fixed_gpus=_fixed(graph, (part for part in parts if part.component.name not in taken)),
        problems=(*_problems(graph, parts, adapters, roles), *_strangers(graph, adapters, pools, domain)),
        unscaled=tuple(_unscaled(parts, roles)),
    )
    return Joined(deployment, shapes)


def _shape(component: Component, before: Shape | None, *, current: bool) -> Shape:
    """Return what to remember of *component*, of which *before* was remembered."""
    shape = settled(asked=component.asked, told=component.told, current=current, before=before)
    earlier = 0 if current or before is None else before.most
    return attrs.evolve(shape, most=max(component.replicas, earlier))


def _counted(component: Component, before: Shape | None, *, current: bool) -> Component:
    """Return *component* with as many replicas present as there may be.

    A status that is older than the spec says nothing of what was asked for in between, whose replicas may run.
    """
    if current or before is None or before.most <= component.present:
        return component
    return attrs.evolve(component, present=before.most)


def _confirmed(component: Component, release: Release, pods: int) -> Component:
    """Return *component* with as many replicas present as count, by what is to confirm a *release*."""
    match release:
        case Release.SPEC:
            return attrs.evolve(component, present=min(component.present, component.replicas))
        case Release.STATUS:
            return component
        case Release.PODS:
            held = replicas_holding(pods, component.nodes)
            return component if held <= component.present else attrs.evolve(component, present=held)
        case _:
            assert_never(release)


def authority_of(graph: Graph, adapters: Iterable[Adapter]) -> Authority:
    """Return the object that replicas are written to: the one adapter, or else the graph."""
    for adapter in adapters:
        return Authority(f"adapter/{adapter.name}", adapter.identity.uid)
    return Authority(f"deployment/{graph.participant.name}", graph.identity.uid)


def _part(component: Component, gpus: int | None, adapters: Iterable[Adapter], reach: Reach) -> _Part:
    own = tuple(adapter for adapter in adapters if adapter.component == component.name)
    held = None if component.role is None else _held(component, own, reach)
    return _Part(component, gpus, own, held)


def _held(component: Component, own: Sequence[Adapter], reach: Reach) -> str | None:
    """Return what keeps *component*, whose adapters are *own*, from being scaled."""
    if len(own) > 1:
        return f"component {component.name} has {len(own)} adapters: {', '.join(adapter.name for adapter in own)}"
    if reach.served and component.adapted and not own:  # whatever is written to the graph would be undone
        waits = "waits for its scaling adapter" if reach.readable else "has a scaling adapter, which we may not read"
        return f"component {component.name} {waits}"
    if own and not reach.adapters_writable:
        return f"component {component.name} has a scaling adapter, which we may not write"
    if not own and not reach.graphs_writable:
        return f"component {component.name} is written in its deployment, which we may not"
    return None


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
    for why in _doubles(parts, roles).values():
        yield f"{why}; none of them is scaled"
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
    yield from part.flaws
    if not part.flaws and part.gpus is None:
        yield f"component {part.component.name}: the GPUs per replica are not known"
    if part.held is not None:
        yield f"{part.held}; it is not scaled"


def _unscaled(parts: Sequence[_Part], roles: Counter[Role | None]) -> Iterable[tuple[Role, str]]:
    """Yield each role that has components and no pool, with why."""
    yield from _doubles(parts, roles).items()
    for part in parts:
        role = part.component.role
        if role is not None and roles[role] == 1 and part.held is not None:
            yield role, part.held


def _doubles(parts: Sequence[_Part], roles: Counter[Role | None]) -> dict[Role, str]:
    """Return the roles of several components, each with the sentence that says so."""
    named = {role: [part.component.name for part in parts if part.component.role is role] for role in roles if role}
    return {
        role: f"{len(names)} components are of the role {role.value}: {', '.join(names)}"
        for role, names in named.items()
        if len(names) > 1
    }
