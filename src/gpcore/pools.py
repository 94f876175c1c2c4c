"""What is deployed: participants, their pools, and the whole fleet at one moment.

Rules of this file: values only. A number that is not known is None, never 0. Whatever the fleet's totals need is kept
as a running sum, so a change costs its own size and not the fleet's.
"""

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Self

import attrs

from gpcore.errors import InvalidError
from gpcore.indexes import Index

MAX_REPLICAS = 10_000
"""The most replicas that a request may ask of one pool."""

MAX_GPUS_PER_REPLICA = 1_000_000
"""The most GPUs that one replica may be said to use; beyond it, a number is a mistake."""

_SHOWN = 80

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class Role(enum.StrEnum):
    """What the replicas of a pool do.

    A request names PREFILL or DECODE. WORKER is a pool whose deployment does not say which of the two it is: it
    answers to either, as Dynamo's planner of an aggregated deployment asks for `decode`.
    """

    PREFILL = "prefill"
    DECODE = "decode"
    WORKER = "worker"

    __hash__ = str.__hash__


class _Named(NamedTuple):
    namespace: str
    name: str


class ParticipantId(_Named):
    """Name one deployment that shares the budget: its Kubernetes namespace and its name there.

    A tuple, as is `PoolKey`: a decision looks names up some thirty times, and tuples hash and compare in C.
    """

    __slots__ = ()

    def __new__(cls, namespace: str, name: str) -> Self:
        """Refuse what cannot be the name of a Kubernetes object."""
        problems = []
        if not _NAMESPACE.fullmatch(namespace):
            problems.append(f"namespace must be an RFC 1123 label of at most 63 characters: {_shown(namespace)}")
        if not _NAME.fullmatch(name):
            problems.append(f"name must be an RFC 1123 name of at most 253 characters: {_shown(name)}")
        if problems:
            raise InvalidError(problems)
        return super().__new__(cls, namespace, name)

    @classmethod
    def parse(cls, text: str) -> "ParticipantId":
        """Read the form `namespace/name`."""
        namespace, slash, name = text.partition("/")
        if not slash:
            raise InvalidError([f"a participant is written namespace/name: {_shown(text)}"])
        return cls(namespace, name)

    @property
    def dynamo_namespace(self) -> str:
        """Return the Dynamo namespace by the operator's convention, `{namespace}-{name}`."""
        return f"{self.namespace}-{self.name}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PoolKey(NamedTuple):
    """Name one pool: a participant's workers of one role."""

    participant: ParticipantId
    role: Role

    @property
    def order(self) -> tuple[str, str]:
        """Return what pools are sorted by: the participant as written, then the role."""
        return (str(self.participant), self.role.value)

    def __str__(self) -> str:
        return f"{self.participant}/{self.role.value}"


class Authority(NamedTuple):
    """Name the object that the operator takes replicas from: a scaling adapter, or else the deployment itself.

    *uid* tells an object from a later one of the same name: a step made for one is never applied to the other.
    """

    name: str = ""
    uid: str = ""


@attrs.frozen
class Pool:
    """Hold what is asked for, promised and seen of one pool.

    *replicas* is what is asked for at the *authority*; *relayed* what the deployment asks for, where an adapter is
    the authority and relays to it; *present* the most replicas that the status shows; *ready* those that serve;
    *reserved* what an approved plan will write and the cache does not show yet. *gpus_per_replica* None means that
    the shape was never known. *fence* is the mark of the last write that the authority took from us: "" where it
    never took one, None where another ledger claims it.
    """

    key: PoolKey
    replicas: int
    gpus_per_replica: int | None
    present: int = attrs.field(default=0, kw_only=True)
    ready: int = attrs.field(default=0, kw_only=True)
    relayed: int | None = attrs.field(default=None, kw_only=True)
    reserved: int | None = attrs.field(default=None, kw_only=True)
    component: str = attrs.field(default="", kw_only=True)
    authority: Authority = attrs.field(factory=Authority, kw_only=True)
    fence: str | None = attrs.field(default="", kw_only=True)

    def __attrs_post_init__(self) -> None:
        gpus = self.gpus_per_replica
        for count in (self.replicas, self.present, self.ready, self.relayed, self.reserved, gpus):
            if count is not None and (type(count) is not int or count < 0):
                raise InvalidError(_problems_of(self))
        if gpus is not None and gpus > MAX_GPUS_PER_REPLICA:
            raise InvalidError(_problems_of(self))

    @property
    def most(self) -> int:
        """Return the most replicas that may hold GPUs: asked for anywhere, promised, or seen."""
        return max(self.replicas, self.present, self.relayed or 0, self.reserved or 0)

    @property
    def least(self) -> int:
        """Return the fewest replicas that are asked for anywhere or promised."""
        relayed = self.replicas if self.relayed is None else self.relayed
        reserved = self.replicas if self.reserved is None else self.reserved
        return min(self.replicas, relayed, reserved)

    @property
    def charged_gpus(self) -> int | None:
        """Return the GPUs that count against a ceiling, or None where the shape is unknown."""
        return None if self.gpus_per_replica is None else self.most * self.gpus_per_replica

    def seen_at_most(self, replicas: int) -> bool:
        """Say whether nothing of this pool beyond *replicas* is asked for or seen any more."""
        return max(self.replicas, self.present, self.relayed or 0) <= replicas

    def reserving(self, replicas: int | None) -> "Pool":
        """Return this pool with *replicas* promised (None: nothing)."""
        return Pool(
            self.key,
            self.replicas,
            self.gpus_per_replica,
            present=self.present,
            ready=self.ready,
            relayed=self.relayed,
            reserved=replicas,
            component=self.component,
            authority=self.authority,
            fence=self.fence,
        )

    @property
    def totals(self) -> "Totals":
        """Return what this pool adds to the totals; one of unknown shape adds nothing and is refused elsewhere."""
        gpus = self.gpus_per_replica or 0
        return Totals(self.most * gpus, self.least * gpus)

    def shift(self, replicas: int) -> "Totals":
        """Return what the totals change by when a change to *replicas* is done.

        A release is done when its GPUs are seen free; an acquisition does not take away what is still seen.
        """
        gpus = self.gpus_per_replica or 0
        kept = 0 if replicas < self.replicas else max(self.present, self.relayed or 0)
        return Totals((max(replicas, kept) - self.most) * gpus, (replicas - self.least) * gpus)


@attrs.frozen
class Totals:
    """Hold the GPUs that count against the ceiling (*charged*) and toward the floor (*least*).

    They differ while something is on its way: a pool that grows is charged at once and counts for the floor when it
    is written; a pool that shrinks counts the smaller number for the floor at once.
    """

    charged: int = 0
    least: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.charged + other.charged, self.least + other.least)

    def __sub__(self, other: "Totals") -> "Totals":
        return Totals(self.charged - other.charged, self.least - other.least)


@attrs.frozen
class Deployment:
    """Hold one participant: its pools and what else of it uses GPUs.

    *fixed_gpus* are the GPUs of components that nobody scales through us (None: not known). *problems* say what of
    it could not be understood, for people. *unscaled* are the roles that some component has and no pool, with why.
    """

    id: ParticipantId
    pools: tuple[Pool, ...] = ()
    fixed_gpus: int | None = attrs.field(default=0, kw_only=True)
    problems: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    unscaled: tuple[tuple[Role, str], ...] = attrs.field(default=(), kw_only=True)

    def __attrs_post_init__(self) -> None:
        roles = set()
        problems = [] if (self.fixed_gpus or 0) >= 0 else [f"fixed GPUs must be at least 0: {self.fixed_gpus}"]
        for pool in self.pools:
            if pool.key.participant is not self.id and pool.key.participant != self.id:
                problems.append(f"{self.id} cannot hold the pool {pool.key}")
            if pool.key.role in roles:
                problems.append(f"{self.id} has two pools of role {pool.key.role.value}")
            roles.add(pool.key.role)
        if problems:
            raise InvalidError(problems)

    def pool(self, role: Role) -> Pool | None:
        """Return the pool of exactly this role."""
        for pool in self.pools:
            if pool.key.role is role:
                return pool
        return None

    def unscaled_because(self, role: Role) -> str | None:
        """Return what keeps the workers that a request for *role* means from being scaled, or None: there are none."""
        reasons = dict(self.unscaled)
        return reasons.get(role) or reasons.get(Role.WORKER)

    @property
    def shape_known(self) -> bool:
        """Say whether the GPUs of every part are known."""
        return self.fixed_gpus is not None and all(pool.gpus_per_replica is not None for pool in self.pools)

    @property
    def totals(self) -> Totals:
        """Return what this deployment adds to the fleet's totals."""
        fixed = self.fixed_gpus or 0
        return sum((pool.totals for pool in self.pools), Totals(fixed, fixed))

    def with_pool(self, pool: Pool) -> "Deployment":
        """Return this deployment with *pool* in the place of the one of its key."""
        pools = tuple(pool if one.key.role is pool.key.role else one for one in self.pools)
        return Deployment(self.id, pools, fixed_gpus=self.fixed_gpus, problems=self.problems, unscaled=self.unscaled)


@attrs.frozen
class Snapshot:
    """Hold every managed deployment at one moment, complete by construction.

    A successor shares what did not change. *unknown* names the deployments with a part whose GPUs are not known.
    """

    _deployments: Index[ParticipantId, Deployment] = attrs.field(factory=Index)
    _names: Index[str, frozenset[ParticipantId]] = attrs.field(factory=Index, repr=False, eq=False)
    totals: Totals = attrs.field(default=Totals(), eq=False)
    unknown: Index[ParticipantId, ParticipantId] = attrs.field(factory=Index, eq=False)

    @classmethod
    def of(cls, deployments: Iterable[Deployment]) -> "Snapshot":
        """Return the snapshot of exactly these *deployments*."""
        known = {deployment.id: deployment for deployment in deployments}
        names: dict[str, frozenset[ParticipantId]] = {}
        for participant in known:
            name = participant.dynamo_namespace
            names[name] = names.get(name, frozenset()) | {participant}
        return cls(
            Index(known.items()),
            Index(names.items()),
            sum((deployment.totals for deployment in known.values()), Totals()),
            Index((d.id, d.id) for d in known.values() if not d.shape_known),
        )

    @classmethod
    def of_pools(cls, pools: Iterable[Pool]) -> "Snapshot":
        """Return the snapshot of these *pools*, each participant with just what is given of it."""
        grouped: dict[ParticipantId, list[Pool]] = {}
        for pool in pools:
            grouped.setdefault(pool.key.participant, []).append(pool)
        return cls.of(Deployment(participant, tuple(members)) for participant, members in grouped.items())

    def __len__(self) -> int:
        return len(self._deployments)

    def deployments(self) -> Iterator[Deployment]:
        """Yield every deployment, in no meaningful order."""
        return self._deployments.values()

    def pools(self) -> Iterator[Pool]:
        """Yield every pool, in no meaningful order."""
        for deployment in self._deployments.values():
            yield from deployment.pools

    def deployment(self, participant: ParticipantId) -> Deployment | None:
        """Return the deployment of *participant*, or None where it is not managed or does not exist."""
        return self._deployments.get(participant)

    def named(self, dynamo_namespace: str) -> frozenset[ParticipantId]:
        """Return the participants whose Dynamo namespace is *dynamo_namespace*; two make the name ambiguous."""
        return self._names.get(dynamo_namespace) or frozenset()

    def pool(self, key: PoolKey) -> Pool | None:
        """Return the pool of exactly this key."""
        deployment = self._deployments.get(key.participant)
        return None if deployment is None else deployment.pool(key.role)

    def answering(self, participant: ParticipantId, role: Role) -> Pool | None:
        """Return the pool that a request for *role* means: the one of that role, or else the generic worker."""
        deployment = self._deployments.get(participant)
        return None if deployment is None else deployment.pool(role) or deployment.pool(Role.WORKER)

    def with_deployment(self, deployment: Deployment) -> "Snapshot":
        """Return this snapshot with *deployment* new or in the place of what was known of it."""
        before = self._deployments.get(deployment.id)
        totals = self.totals + deployment.totals
        names = self._names
        if before is None:
            name = deployment.id.dynamo_namespace
            names = names.put(name, self.named(name) | {deployment.id})
        else:
            totals = totals - before.totals
        unknown = self.unknown.drop(deployment.id)
        if not deployment.shape_known:
            unknown = unknown.put(deployment.id, deployment.id)
        return Snapshot(self._deployments.put(deployment.id, deployment), names, totals, unknown)

    def promising(self, afters: Mapping[PoolKey, int | None]) -> "Snapshot":
        """Return this snapshot with each pool of *afters* promised that many replicas (None: nothing any more).

        A pool that does not exist is promised nothing.
        """
        changed: dict[ParticipantId, Deployment] = {}
        charged, least = self.totals.charged, self.totals.least
        for key, replicas in afters.items():
            deployment = changed.get(key.participant) or self._deployments.get(key.participant)
            before = None if deployment is None else deployment.pool(key.role)
            if deployment is not None and before is not None:
                pool = before.reserving(replicas)
                gpus = pool.gpus_per_replica or 0
                charged += (pool.most - before.most) * gpus
                least += (pool.least - before.least) * gpus
                changed[deployment.id] = deployment.with_pool(pool)
        return Snapshot(self._deployments.replaced(changed), self._names, Totals(charged, least), self.unknown)

    def without(self, participant: ParticipantId) -> "Snapshot":
        """Return this snapshot without *participant*, which need not be there."""
        before = self._deployments.get(participant)
        if before is None:
            return self
        name = participant.dynamo_namespace
        others = self.named(name) - {participant}
        return Snapshot(
            self._deployments.drop(participant),
            self._names.put(name, others) if others else self._names.drop(name),
            self.totals - before.totals,
            self.unknown.drop(participant),
        )


def _problems_of(pool: Pool) -> list[str]:
    """Say which numbers of *pool* are none."""
    bounds = {"gpus_per_replica": MAX_GPUS_PER_REPLICA}
    problems = []
    for name in ("replicas", "present", "ready", "relayed", "reserved", "gpus_per_replica"):
        value, most = getattr(pool, name), bounds.get(name)
        if value is not None and (type(value) is not int or value < 0 or (most is not None and value > most)):
            bound = "an integer of at least 0" if most is None else f"an integer between 0 and {most}"
            problems.append(f"{name} of {pool.key} must be {bound}: {_shown(value)}")
    return problems


def _shown(value: object) -> str:
    """Return *value* as one short line of plain characters, whatever hostile text it holds."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
