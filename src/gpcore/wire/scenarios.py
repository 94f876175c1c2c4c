"""Scenarios: a situation and a request in it as one document, and what the planner would decide.

Rules of this file: a scenario goes through the same `preview` as a request to the daemon.
"""

from collections import Counter
from collections.abc import Mapping

import attrs

from gpcore.budgets import Budget
from gpcore.control import Rules, State, preview
from gpcore.decisions import Approved, Rejected, explain
from gpcore.errors import InvalidError
from gpcore.intents import Intent, Intents
from gpcore.policy import Policy, decide
from gpcore.pools import MAX_GPUS_PER_REPLICA, MAX_REPLICAS, ParticipantId, Pool, PoolKey, Role, Snapshot
from gpcore.requests import Claimed, ScaleRequest
from gpcore.wire.answers import plan_json, reason_json, status
from gpcore.wire.documents import Extras, Json, Node, Reading, certain
from gpcore.wire.requests import OWN_NAMES, read_targets


@attrs.frozen
class Scenario:
    """A situation and a request in it, to be decided as the planner would."""

    state: State
    request: ScaleRequest


def scenario(document: object) -> Scenario:
    """Return the scenario that *document* holds, or raise `InvalidError` with every problem.

    Of two intents for one pool the younger counts, as it would have replaced the older.
    """
    reading = Reading(Extras.REFUSED)
    fields = reading.root(document).fields(("pools", "request"), ("intents", "budget", "ttl_s"))
    pools = [_pool(node) for node in fields["pools"].items()]
    intents = [_intent(node) for node in (fields["intents"].items() if "intents" in fields else ())]
    budget = _budget(fields["budget"]) if "budget" in fields else Budget()
    ttl_s = fields["ttl_s"].number(low=0) if "ttl_s" in fields else Rules().intent_ttl_s
    asked = fields["request"].fields(("participant", "targets"))
    participant = asked["participant"].built(ParticipantId.parse)
    targets = read_targets(asked["targets"], OWN_NAMES)
    known = [pool.key for pool in pools if pool is not None]
    reading.problems.extend(f"$.pools: {key} is there twice" for key, n in Counter(known).items() if n > 1)
    if ttl_s == 0:
        reading.problems.append("$.ttl_s: must be more than 0: 0")
    reading.finish()
    snapshot = Snapshot.of_pools(map(certain, pools))
    wishes = sorted(map(certain, intents), key=lambda intent: intent.seen_at)
    rules = Rules(budget=certain(budget), intent_ttl_s=ttl_s)
    request = ScaleRequest(Claimed(certain(participant).dynamo_namespace), certain(participant), targets)
    return Scenario(State(rules, snapshot, intents=Intents.of(wishes, snapshot)), request)


def verdict(document: object, *, policy: Policy = decide) -> Json:
    """Return what the planner would decide about the scenario that *document* holds, or what is wrong with it."""
    try:
        read = scenario(document)
    except InvalidError as error:
        return invalid_verdict(error)
    state = attrs.evolve(read.state, rules=attrs.evolve(read.state.rules, policy=policy))
    decision = preview(state, read.request, now=0.0)
    totals = (state.snapshot or Snapshot()).totals
    return {
        "status": status(decision),
        "plan": plan_json(decision.plan) if isinstance(decision, Approved) else [],
        "total_after": (decision.totals if isinstance(decision, Approved) else totals).charged,
        "reason": reason_json(decision.reason) if isinstance(decision, Rejected) else None,
        "message": explain(decision, participant=read.request.participant),
    }


def invalid_verdict(error: InvalidError) -> Json:
    """Return the verdict on a scenario that cannot be read."""
    reason = {"kind": "invalid", "problems": list(error.problems)}
    return {"status": "invalid", "plan": [], "total_after": None, "reason": reason, "message": str(error)}


def _pool(node: Node) -> Pool | None:
    fields = node.fields(("participant", "role", "replicas", "gpus_per_replica"), ("ready", "present"))
    key = _key(fields)
    replicas = fields["replicas"].integer() or 0
    ready = (fields["ready"].integer() or 0) if "ready" in fields else replicas
    present = (fields["present"].integer() or 0) if "present" in fields else max(replicas, ready)
    shape = fields["gpus_per_replica"]
    gpus = None if shape.value is None else shape.integer(high=MAX_GPUS_PER_REPLICA)
    return None if key is None else Pool(key, replicas, gpus, present=present, ready=ready)


def _intent(node: Node) -> Intent | None:
    fields = node.fields(("participant", "role", "replicas", "age_s"))
    key = _key(fields)
    replicas, age_s = fields["replicas"].integer(high=MAX_REPLICAS) or 0, fields["age_s"].number(low=0)
    return None if key is None else Intent(key, replicas, -age_s)


def _key(fields: Mapping[str, Node]) -> PoolKey | None:
    participant, role = fields["participant"].built(ParticipantId.parse), fields["role"].one_of(tuple(Role))
    return None if participant is None or role is None else PoolKey(participant, role)


def _budget(node: Node) -> Budget | None:
    fields = node.fields((), ("floor", "ceiling"))
    floor = (fields["floor"].integer() or 0) if "floor" in fields else 0
    ceiling = fields["ceiling"].integer() if "ceiling" in fields else None
    return node.built_from(lambda: Budget(floor, ceiling))
