"""A short notation for fleets and wishes, so that a test reads like the sentence that it proves.

`"a/prefill 4x2"` is the pool of role prefill of the deployment ns/a with 4 replicas of 2 GPUs; `"a/prefill 4"` in a
request or a wish is what is asked of it.
"""

from collections.abc import Iterable

import attrs

from gpcore.budgets import Budget
from gpcore.decisions import Approved, Decision, Reason, Rejected
from gpcore.intents import Intent, Intents
from gpcore.policy import decide
from gpcore.pools import Authority, ParticipantId, Pool, PoolKey, Role, Snapshot
from gpcore.requests import Claimed, ScaleRequest, Target


def key(text: str) -> PoolKey:
    """Read `a/prefill`."""
    name, _, role = text.partition("/")
    return PoolKey(ParticipantId("ns", name), Role(role))


def pool(text: str) -> Pool:
    """Read `a/prefill 4x2`; all its replicas are there and serve, and the deployment itself is the authority."""
    name, _, shape = text.partition(" ")
    replicas, _, gpus = shape.partition("x")
    count = int(replicas)
    authority = Authority(name.partition("/")[0], "uid")
    return Pool(key(name), count, int(gpus), present=count, ready=count, authority=authority)


def fleet(*texts: str) -> Snapshot:
    """Return the snapshot of these pools and no other."""
    return Snapshot.of_pools(map(pool, texts))


def request(*texts: str) -> ScaleRequest:
    """Read `a/prefill 5`, as many of one deployment as are asked for at once."""
    asked = [(key(name), int(count)) for name, _, count in (text.partition(" ") for text in texts)]
    participant = asked[0][0].participant
    return ScaleRequest(
        Claimed(participant.dynamo_namespace), participant, tuple(Target(one.role, count) for one, count in asked)
    )


def wishes(*texts: str, now: float = 0.0) -> tuple[Intent, ...]:
    """Read `b/decode 2`, each a second younger than the one before."""
    told = [text.partition(" ") for text in texts]
    return tuple(Intent(key(name), int(count), now + at) for at, (name, _, count) in enumerate(told))


@attrs.frozen
class Scene:
    """Pools, what they wish (oldest first), and the bounds."""

    pools: tuple[Pool, ...]
    intents: tuple[Intent, ...] = ()
    budget: Budget = attrs.field(factory=Budget)

    def decide(self, *texts: str) -> Decision:
        """Return the decision on this request."""
        snapshot = Snapshot.of_pools(self.pools)
        return decide(
            request(*texts), snapshot=snapshot, intents=Intents.of(self.intents, snapshot), budget=self.budget
        )

    def plan(self, *texts: str) -> dict[str, int]:
        """Return what becomes of each changed pool when this request is approved."""
        decision = self.decide(*texts)
        assert isinstance(decision, Approved), decision
        return {short(change.pool): change.after for change in decision.plan.changes}

    def total(self, *texts: str) -> int:
        """Return the GPUs in use when this request, which is approved, is done."""
        decision = self.decide(*texts)
        assert isinstance(decision, Approved), decision
        return decision.totals.charged

    def reason(self, *texts: str) -> Reason:
        """Return why this request is refused."""
        decision = self.decide(*texts)
        assert isinstance(decision, Rejected), decision
        return decision.reason


def scene(*pools: str, wish: Iterable[str] = (), floor: int = 0, ceiling: int | None = None) -> Scene:
    """Return the scene of these pools, wishes (oldest first) and bounds."""
    return Scene(tuple(map(pool, pools)), wishes(*wish), Budget(floor, ceiling))


def short(name: PoolKey) -> str:
    """Return `a/prefill` again."""
    return f"{name.participant.name}/{name.role.value}"
