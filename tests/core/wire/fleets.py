"""Fleets with names as people give them, to say how large a ledger gets."""

from collections.abc import Callable

import attrs

from gpcore.budgets import Budget
from gpcore.fences import Mint
from gpcore.ledger import Entry, Held, Ledger, ObjectKey
from gpcore.pools import ParticipantId, Role

Naming = Callable[[str, str, int, Role], ObjectKey]
"""Names the object of one pool, by its team, model, number and role."""

MODELS = ("llama-3-3-70b-instruct", "qwen3-235b-a22b-fp8", "deepseek-r1-0528", "gpt-oss-120b", "mixtral-8x22b-v0-1")
TEAMS = ("team-search-prod", "team-assistants-prod", "team-assistants-staging", "code-completion", "vision")


def deployments(team: str, model: str, number: int, role: Role) -> ObjectKey:
    """Name deployments of one pool each, as a global planner has them."""
    owner = ParticipantId(team, f"{model}-gp-{role.value}-{number}")
    return ObjectKey(owner, f"deployment/{owner.name}")


def adapters(team: str, model: str, number: int, role: Role) -> ObjectKey:
    """Name the scaling adapters of deployments of two pools."""
    owner = ParticipantId(team, f"{model}-{number}")
    return ObjectKey(owner, f"adapter/{owner.name}-vllm{role.value}worker")


def fleet(pools: int, naming: Naming) -> Ledger:
    """Give a ledger at rest of so many pools, each of an object of its own."""
    entries, mint = [], Mint("seed")
    for at in range(pools):
        group, role = at // 2, (Role.PREFILL, Role.DECODE)[at % 2]
        number, rest = divmod(group, len(TEAMS) * len(MODELS))
        key = naming(TEAMS[rest % len(TEAMS)], MODELS[rest // len(TEAMS)], number, role)
        fence, mint = mint.fence("")
        entries.append(Entry(key, fence.new, (Held(role, at % 40, (1, 2, 4, 8, 16)[at % 5]),)))
    return attrs.evolve(Ledger.of(entries, budget=Budget(0, 10**6)), complete=True, epoch=12)
