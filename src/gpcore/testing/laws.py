"""The laws that every policy keeps, and a check that says which of them a policy breaks.

Rules of this file: a law looks at one trial and says what is wrong, or nothing. It counts GPUs itself, from the pools.
What a run must have seen before it says anything is in `REGIONS`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

import attrs
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from gpcore import control
from gpcore.control import Rules, State, Transition
from gpcore.decisions import INVALID, Approved, CeilingBreach, Decision, FloorBreach, NotScaled, Rejected, explain
from gpcore.errors import InvalidError
from gpcore.events import Decided, Event, Submitted
from gpcore.plans import Change, Plan
from gpcore.policy import Policy, resolve
from gpcore.pools import Pool, PoolKey, Snapshot, Totals
from gpcore.requests import ScaleRequest, Target
from gpcore.testing.settled import settled_state
from gpcore.testing.strategies import Scenario, odd_scenarios, scenarios

Step = Callable[[State, Event], Transition]

SETTINGS = settings(
    max_examples=300,
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
    verbosity=Verbosity.quiet,  # the law that is broken says more than the value that broke it
    suppress_health_check=[HealthCheck.too_slow],
)
"""How a policy is checked unless one says otherwise: the same every time."""


class BrokenLawError(AssertionError):
    """A policy broke *law* in *scenario*."""

    def __init__(self, law: str, problem: str, trial: "Trial") -> None:
        self.law = law
        self.scenario = trial.scenario
        told = explain(trial.decision, participant=trial.scenario.request.participant)
        super().__init__(f"the law of {law} is broken: {problem}\n{trial.scenario}\nit said: {told}")


class UnseenError(AssertionError):
    """A run has not seen all that a policy does, or a policy did what it says that it never does."""


@attrs.frozen
class Trial:
    """What *policy* decided in one scenario; *step* is the planner's brain that it works in."""

    scenario: Scenario
    policy: Policy
    step: Step
    decision: Decision

    @classmethod
    def of(cls, scenario: Scenario, policy: Policy, step: Step = control.step) -> "Trial":
        """Return the trial of *policy* in *scenario*."""
        return cls(scenario, policy, step, scenario.decide(policy))

    @property
    def plan(self) -> Plan:
        """Return what is to be done; nothing, after a refusal."""
        return self.decision.plan if isinstance(self.decision, Approved) else Plan()

    @property
    def before(self) -> Totals:
        """Return the totals as they are."""
        return self.scenario.snapshot.totals

    @property
    def asked(self) -> dict[PoolKey, int]:
        """Return the replicas that are asked of each pool; nothing where the request makes no sense."""
        found = resolve(self.scenario.request, self.scenario.snapshot)
        if isinstance(found, Rejected):
            return {}
        return {pool.key: one.replicas for pool, one in zip(found, self.scenario.request.targets, strict=True)}

    @property
    def own(self) -> tuple[Change, ...]:
        """Return the changes that are asked for."""
        pools = [(self.scenario.snapshot.pool(key), after) for key, after in self.asked.items()]
        return tuple(Change.of(pool, after) for pool, after in pools if pool is not None and pool.replicas != after)

    @property
    def partners(self) -> tuple[Change, ...]:
        """Return the changes of the plan that nobody asked for in this request."""
        return tuple(change for change in self.plan.changes if change.pool not in self.asked)

    @property
    def wishes(self) -> dict[PoolKey, int]:
        """Return the replicas that each pool wishes."""
        return {wish.pool: wish.replicas for wish in self.scenario.intents}

    @property
    def countable(self) -> bool:
        """Say whether the GPUs of everything are known."""
        return len(self.scenario.snapshot.unknown) == 0

    def after(self, changes: Collection[Change]) -> Totals:
        """Return the totals when *changes* are done."""
        pools = [(self.scenario.snapshot.pool(change.pool), change.after) for change in changes]
        return sum((_shift(pool, after) for pool, after in pools if pool is not None), self.before)


Law = Callable[[Trial], str | None]


def ceiling(trial: Trial) -> str | None:
    """Let no prefix of a plan stand above both the ceiling and where it began."""
    budget, done = trial.scenario.budget, list[Change]()
    for at, step in enumerate(trial.plan.steps, start=1):
        done += step.changes
        total = trial.after(done)
        if budget.excess(total) > budget.excess(trial.before):
            return f"after {at} of {len(trial.plan.steps)} steps the total is {total.charged} GPUs"
    return None


def floor(trial: Trial) -> str | None:
    """End at the floor, or within the tolerance of what releases and acquires, or nearer to it than it began."""
    budget, end = trial.scenario.budget, trial.after(trial.plan.changes)
    gpus = [change.gpus for change in trial.plan.changes]
    short = budget.shortfall(end)
    if not gpus or not short or budget.recovers(trial.before, end):
        return None
    tolerance = max(change.gpus_per_replica or 0 for change in trial.plan.changes)
    if min(gpus) < 0 < max(gpus) and short <= tolerance:
        return None
    return f"it ends with {end.least} GPUs"


def conservation(trial: Trial) -> str | None:
    """Do all that was asked, move partners toward their wishes and not past them, and do nothing else."""
    if isinstance(trial.decision, Rejected):
        return None
    changes = trial.plan.changes
    mistaken = [change for change in changes if not _begins_where_it_is(change, trial.scenario.snapshot)]
    greedy = [change for change in trial.partners if not _toward(change, trial.wishes.get(change.pool, change.before))]
    asked_for = sorted((change.pool.order, change.after) for change in changes if change.pool in trial.asked)
    if mistaken or len(trial.plan.afters) != len(changes):
        return f"it does not change each pool once, from what it is: {_list(mistaken or changes)}"
    if asked_for != sorted((change.pool.order, change.after) for change in trial.own):
        return f"it was asked for {_list(trial.own)}, all of it and nothing else of these pools"
    if greedy:
        return f"it is not what was wished for: {_list(greedy)}"
    end = trial.after(changes)
    return None if trial.decision.totals == end else f"it says {trial.decision.totals} and ends at {end}"


def independence(trial: Trial) -> str | None:
    """Approve alone what fits alone."""
    fits = trial.scenario.budget.holds(trial.after(trial.own))
    return _alone(trial) if trial.own and trial.countable and fits else None


def recovery(trial: Trial) -> str | None:
    """Approve what leads back toward the band and not past its far edge."""
    budget, end = trial.scenario.budget, trial.after(trial.own)
    outside = not budget.holds(end) and budget.recovers(trial.before, end)
    return _alone(trial) if trial.own and trial.countable and outside else None


def rest(trial: Trial) -> str | None:
    """Let a request for what already is succeed, and do nothing."""
    asked_for_what_is = trial.asked and not trial.own
    done = isinstance(trial.decision, Approved) and not trial.plan.steps
    return "it was asked for what already is" if asked_for_what_is and not done else None


def sense(trial: Trial) -> str | None:
    """Refuse as such a request that makes no sense for this fleet, or is for workers that nobody may scale."""
    if trial.asked:
        return None
    refused = isinstance(trial.decision, Rejected) and isinstance(trial.decision.reason, (*INVALID, NotScaled))
    return None if refused else "the request makes no sense here"


def ignorance(trial: Trial) -> str | None:
    """Let nothing grow under a ceiling, or change above a floor, that cannot be counted."""
    snapshot, budget = trial.scenario.snapshot, trial.scenario.budget
    if budget.ceiling is not None and not trial.countable and any(one.after > one.before for one in trial.plan.changes):
        return f"a pool grows, and the GPUs of {', '.join(sorted(map(str, snapshot.unknown)))} are not known"
    if budget.floor and any(change.gpus_per_replica is None for change in trial.plan.changes):
        return "a pool of unknown GPUs changes above a floor"
    return None


def honesty(trial: Trial) -> str | None:
    """Name as the nearest only what would be approved, just as it is named."""
    reason = trial.decision.reason if isinstance(trial.decision, Rejected) else None
    if not isinstance(reason, CeilingBreach | FloorBreach) or not reason.nearest.own:
        return None
    again = attrs.evolve(trial.scenario, request=_asking(trial, reason.nearest.own)).decide(trial.policy)
    named = {*reason.nearest.own, *reason.nearest.partners}
    if isinstance(again, Approved) and set(again.plan.changes) == named:
        return None
    return f"it names {_list(reason.nearest.own)} as the nearest, and that is not approved so"


def determinism(trial: Trial) -> str | None:
    """Answer the same input in the same way."""
    again = trial.scenario.decide(trial.policy)
    return None if again == trial.decision else f"asked again it says: {explain(again)}"


def order(trial: Trial) -> str | None:
    """Heed neither the order in which wishes were told nor that in which deployments were seen."""
    scenario = trial.scenario
    snapshot = Snapshot.of(sorted(scenario.snapshot.deployments(), key=lambda one: str(one.id), reverse=True))
    turned = attrs.evolve(scenario, snapshot=snapshot, intents=scenario.intents[::-1]).decide(trial.policy)
    steady = scenario.decide(trial.policy) == trial.decision  # one that is not even that breaks another law
    return None if turned == trial.decision or not steady else f"told in the reverse order it says: {explain(turned)}"


def refusal(trial: Trial) -> str | None:
    """Change no pool and no reservation for a request that is refused."""
    scenario = trial.scenario
    state = settled_state(Rules(budget=scenario.budget, policy=trial.policy), scenario.snapshot, scenario.intents)
    after = trial.step(state, Submitted("law", scenario.request, 10.0))
    decided = [effect.decision for effect in after.effects if isinstance(effect, Decided)]
    same = (after.state.snapshot, after.state.operations, after.state.busy) == (state.snapshot, {}, state.busy)
    refused = all(isinstance(decision, Rejected) for decision in decided)
    return "a pool or a reservation has changed all the same" if refused and not same else None


LAWS: Mapping[str, Law] = {
    law.__name__: law
    for law in (
        ceiling, floor, conservation, independence, recovery, rest,
        sense, ignorance, honesty, determinism, order, refusal,
    )
}  # fmt: skip
"""Every law by its name; the docstring of each says it."""

REGIONS = (
    "approved alone",
    "paired",
    "partial",
    "tolerance",
    "recovery from above",
    "recovery from below",
    "unchanged",
    "above_ceiling",
    "below_floor",
    "shape_unknown",
    "unknown_deployment",
    "unknown_pool",
    "not_scaled",
    "wrong_component",
    "one_pool_twice",
)
"""What a run must have seen: every kind of approval, and every kind of refusal that a policy makes."""


def check_policy(
    policy: Policy, *, without: Collection[str] = (), step: Step = control.step, settings: settings = SETTINGS
) -> None:
    """Fail with the law that *policy* breaks and a small scenario in which it does, or with what was never seen.

    *without* names laws that a policy does not keep and regions that it never shows, as a stricter one may: one that
    never pairs is checked `without={"paired", "partial"}`. A region that is named and seen all the same is a failure.
    """
    unknown = sorted({*without} - {*LAWS, *REGIONS})
    if unknown:
        raise InvalidError([f"there is no law and no region of that name: {name!r}" for name in unknown])
    seen: Counter[str] = Counter()

    def tried(scenario: Scenario) -> None:
        trial = Trial.of(scenario, policy, step)
        for name, law in LAWS.items():
            problem = None if name in without else law(trial)
            if problem is not None:
                raise BrokenLawError(name, problem, trial)
        seen.update(regions(trial))

    few = type(settings)(settings, max_examples=max(1, settings.max_examples // 5))
    settings(given(scenarios())(tried))()
    few(given(odd_scenarios())(tried))()
    _complain(seen, {name for name in without if name in REGIONS})


def regions(trial: Trial) -> Iterator[str]:
    """Yield the regions in which *trial* lies."""
    budget, end = trial.scenario.budget, trial.after(trial.plan.changes)
    if isinstance(trial.decision, Rejected):
        yield trial.decision.reason.kind
        return
    if not trial.plan.steps:
        yield "unchanged"
        return
    yield "paired" if trial.partners else "approved alone"
    if any(trial.wishes.get(change.pool) != change.after for change in trial.partners):
        yield "partial"
    if budget.shortfall(end) and not budget.recovers(trial.before, end):
        yield "tolerance"
    if budget.excess(trial.before):
        yield "recovery from above"
    if budget.shortfall(trial.before):
        yield "recovery from below"


def _complain(seen: Mapping[str, int], left_out: Collection[str]) -> None:
    missing = [name for name in REGIONS if name not in seen and name not in left_out]
    surprising = [name for name in REGIONS if name in seen and name in left_out]
    problems = [f"never seen, so nothing is known about it: {name} (is it left out on purpose?)" for name in missing]
    problems += [f"seen {seen[name]} times, though it is said to be left out: {name}" for name in surprising]
    if problems:
        raise UnseenError("\n".join(problems))


def _shift(pool: Pool, after: int) -> Totals:
    """Return what the totals change by: a release frees what is seen, an acquisition adds to what is held."""
    held = 0 if after < pool.replicas else max(pool.present, pool.relayed or 0)
    gpus = 0 if after == pool.replicas else pool.gpus_per_replica or 0
    return Totals((max(after, held) - pool.most) * gpus, (after - pool.least) * gpus)


def _begins_where_it_is(change: Change, snapshot: Snapshot) -> bool:
    pool = snapshot.pool(change.pool)
    return pool is not None and pool.reserved is None and Change.of(pool, change.after) == change


def _toward(change: Change, wish: int) -> bool:
    return change.before < change.after <= wish or wish <= change.after < change.before


def _list(changes: Collection[Change]) -> str:
    return ", ".join(f"{change.pool} {change.before} to {change.after}" for change in changes)


def _alone(trial: Trial) -> str | None:
    """Say what is wrong when just what was asked should have been approved."""
    if isinstance(trial.decision, Approved) and set(trial.plan.changes) == set(trial.own):
        return None
    return "nothing but what was asked should have been approved"


def _asking(trial: Trial, own: Collection[Change]) -> ScaleRequest:
    """Return the request with the counts of *own*, and all else that it names as it is."""
    afters = {change.pool: change.after for change in own}
    request, snapshot = trial.scenario.request, trial.scenario.snapshot
    targets = []
    for key, target in zip(trial.asked, request.targets, strict=True):
        pool = snapshot.pool(key)
        targets.append(Target(target.role, afters.get(key, pool.replicas if pool else 0), target.component))
    return attrs.evolve(request, targets=tuple(targets))
