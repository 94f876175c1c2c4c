"""`gpctl planner`: the daemon, put together.

Rules of this file: it chooses the adapters and connects them; what they do is theirs. An adapter that was not chosen
is not imported.
"""

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, assert_never

import attrs

from gpadapters.cli.logs import set_up
from gpadapters.cli.options import Settings, settings
from gpadapters.cli.rehearsal import rehearse
from gpadapters.daemon import Brain, Planner, World
from gpcore.control import Transition, step
from gpcore.errors import ConfigError, PortError
from gpcore.events import Event, LeaseChanged
from gpcore.leases import Following, Leading, Standing
from gpcore.pools import Snapshot
from gpcore.ports import LeaseStore, LedgerStore

if TYPE_CHECKING:
    from gpadapters.telemetry import Telemetry

log = logging.getLogger(__name__)


def main(arguments: list[str], *, brain: Brain = step) -> int:
    """Run `gpctl planner` until a signal stops it; *brain* stands in for `step` where that is being tested."""
    chosen = settings(arguments)
    set_up(chosen.log_format)
    asyncio.run(_run(chosen, rehearse if chosen.no_operation else brain))
    return 0


async def _run(chosen: Settings, brain: Brain) -> None:
    stop, ready = _stop_signal(), asyncio.Event()

    def notice(_: Event, transition: Transition) -> None:
        if transition.state.ready:
            ready.set()

    from gpadapters.telemetry import Telemetry  # noqa: PLC0415 (the help, and a wrong configuration, measure nothing)

    async with AsyncExitStack() as stack:
        connected = await _connected(chosen, stack)
        telemetry = Telemetry(version=version("gpcore"), silence=connected.silence)
        listeners = [telemetry.hear, notice]
        elected = connected.lease is not None or chosen.no_operation
        planner = Planner(chosen.rules, connected.world, elected=elected, listeners=listeners, brain=brain)
        url = await stack.enter_async_context(_listening(chosen, planner, telemetry))
        await stack.enter_async_context(planner.running())
        if connected.lease is not None:
            await stack.enter_async_context(_standing(chosen, planner, connected.lease, url))
        announcing = asyncio.create_task(_announce(ready, url, chosen, planner))
        await stop.wait()
        announcing.cancel()
        log.info("stopping")


@attrs.frozen
class _Connected:
    """What the planner works on, where it stands for election, and for how long nothing was heard."""

    world: World
    lease: LeaseStore | None = None
    silence: Callable[[], float] | None = None


async def _connected(chosen: Settings, stack: AsyncExitStack) -> _Connected:
    """Connect to what the planner works on."""
    if chosen.fleet is not None:
        from gpadapters.cli.fleet import cluster  # noqa: PLC0415 (the other world needs no kit)

        memory = cluster(chosen.fleet)
        ledger, lease = _local(chosen)
        return _Connected(World(memory, memory, ledger), lease)
    from gpadapters.kubernetes.cluster import connect  # noqa: PLC0415 (the other world needs no client)
    from gpadapters.kubernetes.here import namespace_here  # noqa: PLC0415

    kubeconfig, context = chosen.kubeconfig, chosen.context
    if kubeconfig is not None and not kubeconfig.is_file():
        raise ConfigError([f"--kubeconfig: {kubeconfig} is no file"])  # the client would take it for an empty one
    home = chosen.home or namespace_here(kubeconfig=kubeconfig, context=context)
    kept_there = chosen.ledger.kind in ("auto", "kubernetes")
    domain = f"{home if kept_there else 'local'}/{chosen.domain}"
    opened = connect(chosen.namespaces or (home,), domain=domain, kubeconfig=kubeconfig, context=context)
    cluster_there = await stack.enter_async_context(opened)
    ledger, lease = _local(chosen)
    if kept_there:
        refusal = await cluster_there.ledger_refused(home, chosen.domain)
        if refusal is None or chosen.ledger.kind == "kubernetes":
            ledger, lease = cluster_there.ledger(home, chosen.domain), cluster_there.lease(home, chosen.domain)
        else:
            _warn_without_ledger(refusal)
    observer = cluster_there.observer
    elects = chosen.elects and not chosen.no_operation
    world = World(observer, cluster_there.executor, ledger)
    return _Connected(world, lease if elects else None, lambda: observer.watch_age_s)


def _local(chosen: Settings) -> tuple[LedgerStore, LeaseStore | None]:
    """Return the ledger of this machine, and the lease beside it, where several planners can share it."""
    if chosen.ledger.file is not None:
        from gpadapters.sqlite.lease import SqliteLease  # noqa: PLC0415 (most planners have no such file)
        from gpadapters.sqlite.ledger import SqliteLedger  # noqa: PLC0415

        file, name = chosen.ledger.file, chosen.domain
        return SqliteLedger(file, name=name), SqliteLease(file, name=name) if chosen.elects else None
    from gpcore.testing.stores import MemoryLedger  # noqa: PLC0415 (a planner on a cluster needs no kit)

    return MemoryLedger(), None


def _warn_without_ledger(refusal: str) -> None:
    """Say what cannot be promised without a ledger that outlives this process."""
    log.warning("the ledger is kept in this process alone: %s", refusal)
    log.warning("not promised therefore: the ceiling while a second planner runs, and wishes and operations after a restart")
    log.warning("apply what `gpctl manifests planner` prints to have all of it")


@asynccontextmanager
async def _standing(chosen: Settings, planner: Planner, lease: LeaseStore, url: str) -> AsyncIterator[None]:
    """Stand for election, and tell the planner who leads."""
    from gpadapters.election import electing  # noqa: PLC0415 (a planner alone elects nobody)

    def report(standing: Standing) -> None:
        match standing:
            case Leading():
                planner.dispatch(LeaseChanged(leading=True))
            case Following(_, address):
                planner.dispatch(LeaseChanged(leading=False, leader=address))
            case _:
                assert_never(standing)

    identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    address = chosen.advertised or url
    async with electing(lease, report, identity=identity, address=address, timing=chosen.timing):
        yield


@asynccontextmanager
async def _listening(chosen: Settings, planner: Planner, telemetry: "Telemetry") -> AsyncIterator[str]:
    """Serve the API; an address that cannot be had ends the start."""
    from gpadapters.http.server import Listen, serve  # noqa: PLC0415 (nor do they serve)

    where = Listen(chosen.listen.host, chosen.listen.port, insecure_no_auth=chosen.insecure_no_auth)
    try:
        async with serve(
            planner,
            where,
            version=version("gpcore"),
            metrics=telemetry.exposition,
            refused=telemetry.refused,
            rehearsal=chosen.no_operation,
        ) as url:
            yield url
    except OSError as exc:
        raise PortError(f"cannot listen on {chosen.listen}: {exc.strerror or exc}") from exc


async def _announce(ready: asyncio.Event, url: str, chosen: Settings, planner: Planner) -> None:
    """Say once that requests can be decided, and what is odd about the fleet that was found."""
    await ready.wait()
    snapshot = planner.state.snapshot or Snapshot()
    for name in sorted(chosen.rules.management.managed or ()):
        if not snapshot.named(name):
            log.warning("no deployment is called %s yet", name)
    if chosen.no_operation:
        log.warning("--no-operation: requests are decided and answered, and nothing is carried out")
    log.info("planner ready at %s", url)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
