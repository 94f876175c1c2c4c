"""Somebody who follows a cluster as the daemon does, and takes every observation as true."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs

from gpadapters.kubernetes.cluster import Cluster, Pace, connect
from gpcore.events import Gone, Listed, Mark, Seen, Stale
from gpcore.fences import Mint
from gpcore.ledger import object_of
from gpcore.plans import Change, Step
from gpcore.pools import Deployment, Pool, Role
from gpcore.ports import Applying, Observation
from tests.cluster import Access, Client, graphs
from tests.cluster.objects import replicas_pointer

DOMAIN = "gp/main"
"""The ledger that the fences are of, unless told otherwise."""

QUICK = Pace(backoff_s=0.05, backoff_max_s=0.5)

_PATIENCE_S = 30.0


@attrs.define
class Follower:
    """What was shown, and how things are by that."""

    cluster: Cluster
    seen: list[Observation] = attrs.field(factory=list)
    view: dict[str, Deployment] = attrs.field(factory=dict)
    stale: bool = True
    mint: Mint = attrs.field(factory=lambda: Mint(secrets.token_hex(16)))

    def take(self, observation: Observation) -> None:
        self.seen.append(observation)
        match observation:
            case Listed(deployments):
                self.view = {one.id.name: one for one in deployments}
                self.stale = False
            case Seen(deployment):
                self.view[deployment.id.name] = deployment
            case Gone(participant):
                del self.view[participant.name]
            case Stale():
                self.stale = True

    @property
    def kinds(self) -> list[str]:
        return [type(one).__name__ for one in self.seen]

    def pool(self, role: Role = Role.PREFILL, name: str = "a") -> Pool:
        found = self.view[name].pool(role)
        assert found is not None
        return found

    def replicas(self, name: str = "a") -> int | None:
        """Give the replicas of the prefill pool of *name*, if it is there."""
        pool = self.view[name].pool(Role.PREFILL) if name in self.view else None
        return None if pool is None else pool.replicas

    async def apply(self, *wanted: tuple[Pool, int]) -> Applying:
        """Apply the step that takes each pool, as it was seen then, to a count."""
        return await self.cluster.executor.apply(self.step(*wanted))

    async def mark(self, mark: Mark) -> Applying:
        return await self.cluster.executor.mark(mark)

    def step(self, *wanted: tuple[Pool, int]) -> Step:
        """Give the step that takes each pool, as it was seen then, to a count, behind a new fence."""
        fence, self.mint = self.mint.fence(wanted[0][0].fence or "")
        return Step(tuple(Change.of(pool, after) for pool, after in wanted), fence)

    def fenced(self, pool: Pool) -> Mark:
        """Give the order to put a new fence on the object of a pool, as it was seen then."""
        fence, self.mint = self.mint.fence(pool.fence or "")
        return Mark(object_of(pool), pool.authority, fence.old, fence.new)

    async def until(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not claim():  # noqa: ASYNC110 - a claim may be about anything
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def following(
    access: Access, folder: Path, *namespaces: str, pace: Pace = QUICK, domain: str = DOMAIN
) -> AsyncIterator[Follower]:
    """Connect and observe, and give what is followed."""
    kubeconfig = access.write_kubeconfig(folder / "kubeconfig")
    async with connect(namespaces, domain=domain, kubeconfig=kubeconfig, pace=pace) as cluster:
        follower = Follower(cluster)

        async def follow() -> None:
            async for observation in cluster.observer.observe():
                follower.take(observation)

        task = asyncio.create_task(follow())
        try:
            yield follower
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@contextlib.asynccontextmanager
async def listed(
    access: Access, folder: Path, *namespaces: str, pace: Pace = QUICK, domain: str = DOMAIN
) -> AsyncIterator[Follower]:
    """Give what is followed once the whole was shown."""
    async with following(access, folder, *namespaces, pace=pace, domain=domain) as follower:
        await follower.until(lambda: not follower.stale)
        yield follower


def rewrite(client: Client, namespace: str, name: str, replicas: int, *, version: str = "v1beta1") -> None:
    """Set the replicas of the prefill workers of *name*, as somebody else would."""
    path = graphs(namespace, name, version=version)
    pointer = replicas_pointer(client.get(path), "VllmPrefillWorker")
    client.patch(path, [{"op": "add", "path": pointer, "value": replicas}])
