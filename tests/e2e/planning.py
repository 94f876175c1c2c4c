"""A planner in this process, on a real API server, that keeps its ledger to itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs

from gpadapters.alerts import Alerts
from gpadapters.daemon import Planner, World
from gpadapters.kubernetes.cluster import Cluster, Pace, Release, connect
from gpadapters.telemetry import Telemetry
from gpcore.control import Rules
from gpcore.events import Outcome
from gpcore.pools import ParticipantId, Pool, PoolKey, Role
from gpcore.ports import Auditor, Submission
from gpcore.requests import Claimed, ScaleRequest, Target
from gpcore.testing.stores import MemoryLedger
from tests.cluster import Access
from tests.e2e.following import DOMAIN, QUICK

_PATIENCE_S = 30.0


@attrs.define
class Planned:
    """A planner over one namespace, all that it is made of, and short ways to ask it."""

    planner: Planner
    cluster: Cluster
    telemetry: Telemetry
    namespace: str

    def pool(self, name: str) -> Pool:
        """Give the prefill pool of *name* as the planner sees it."""
        found = self.planner.state.view.pool(PoolKey(ParticipantId(self.namespace, name), Role.PREFILL))
        assert found is not None
        return found

    def ask(self, name: str, replicas: int) -> "asyncio.Task[Outcome]":
        """Ask for so many prefill replicas of *name*."""
        participant = ParticipantId(self.namespace, name)
        asked = ScaleRequest(Claimed("me"), participant, (Target(Role.PREFILL, replicas),))
        submission = self.planner.submit(asked)
        assert isinstance(submission, Submission)

        async def answered() -> Outcome:
            return await submission.outcome

        return asyncio.create_task(answered())

    def shows(self, condition: str) -> bool:
        """Say whether the metrics show *condition*."""
        return f'gp_conditions{{kind="{condition}"}}' in self.telemetry.exposition().decode()

    async def until(self, claim: Callable[[], object]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not await asyncio.to_thread(claim):  # noqa: ASYNC110 - a claim may be about anything
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def planning(
    access: Access,
    folder: Path,
    namespace: str,
    *,
    rules: Rules,
    release: Release = Release.STATUS,
    pace: Pace = QUICK,
    auditors: tuple[Auditor, ...] = (),
) -> AsyncIterator[Planned]:
    """Run a planner, and give it when it decides."""
    kubeconfig = access.write_kubeconfig(folder / "kubeconfig")
    opened = connect([namespace], domain=DOMAIN, kubeconfig=kubeconfig, pace=pace, release=release)
    async with opened as cluster, cluster.events.noticing(namespace) as notice:
        observer = cluster.observer
        telemetry = Telemetry(conditions=lambda: observer.conditions)
        alerts = Alerts(lacking=lambda: observer.conditions, notify=notice)
        world = World(observer, cluster.executor, MemoryLedger(), (*auditors, cluster.events))
        planner = Planner(rules, world, listeners=[telemetry.hear, alerts.hear])
        async with planner.running(grace_s=1.0):
            planned = Planned(planner, cluster, telemetry, namespace)
            await planned.until(lambda: planner.state.ready)
            yield planned
