"""`gpctl planner`: the daemon, put together.

Rules of this file: it chooses the adapters and connects them; what they do is theirs. An adapter that was not chosen
is not imported.
"""

import asyncio
import logging
import secrets
import signal
import socket
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, assert_never

from gpadapters.cli.differences import differences
from gpadapters.cli.logs import set_up
from gpadapters.cli.options import Settings, settings
from gpadapters.cli.rehearsal import rehearse
from gpadapters.cli.worlds import Connected, connect
from gpadapters.daemon import Brain, Planner
from gpcore.conditions import Condition, conditions
from gpcore.control import Transition, step
from gpcore.errors import PortError
from gpcore.events import Event, LeaseChanged
from gpcore.leases import Following, Leading, Standing
from gpcore.pools import Snapshot
from gpcore.ports import LeaseStore

if TYPE_CHECKING:
    from gpadapters.dynamo.runtime import Runtime
    from gpadapters.telemetry import Telemetry

log = logging.getLogger(__name__)


def main(arguments: list[str], *, brain: Brain = step) -> int:
    """Run `gpctl planner` until a signal stops it; *brain* stands in for `step` where that is being tested."""
    chosen = settings(arguments)
    set_up(chosen.log_format)
    used = rehearse if chosen.no_operation else brain
    if "dynamo" in chosen.transports:
        from gpadapters.dynamo.runtime import run  # noqa: PLC0415 (other transports need no runtime)

        run(_run(chosen, used))
    else:
        asyncio.run(_run(chosen, used))
    return 0


async def _run(chosen: Settings, brain: Brain) -> None:
    async with AsyncExitStack() as stack:
        runtimes = await stack.enter_async_context(_dynamo(chosen))
        stop = _stop_signal()  # not before: Dynamo's runtime may look for its discovery for minutes, and hears nothing
        connected = await connect(chosen, stack)
        ready = asyncio.Event()
        planner, telemetry = _planner(chosen, connected, brain, ready)
        told = partial(_conditions, planner, connected)
        url = await stack.enter_async_context(_listening(chosen, planner, telemetry, told))
        ended = [await stack.enter_async_context(_serving(one, chosen, planner, telemetry)) for one in runtimes]
        if connected.lease is not None:  # left after the planner, which stores what it has drafted while it leads
            await stack.enter_async_context(_standing(chosen, planner, connected.lease, url))
        await stack.enter_async_context(planner.running())
        announcing = asyncio.create_task(_announce(ready, url, chosen, planner))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *ended}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        announcing.cancel()
        log.info("stopping")


def _planner(chosen: Settings, connected: Connected, brain: Brain, ready: asyncio.Event) -> "tuple[Planner, Telemetry]":
    """Return the planner, and what counts what it does; *ready* is set when requests can be decided."""
    from gpadapters.alerts import Alerts  # noqa: PLC0415 (nor do they listen)
    from gpadapters.telemetry import Telemetry  # noqa: PLC0415 (the help, and a wrong configuration, measure nothing)

    def notice(_: Event, transition: Transition) -> None:
        state = transition.state
        if state.ready and (state.leading or state.leader or chosen.no_operation):  # who begins does not know yet
            ready.set()

    telemetry = Telemetry(version=version("gpcore"), silence=connected.silence, conditions=connected.lacking)
    elected = connected.lease is not None or chosen.no_operation
    alerts = Alerts(lacking=connected.lacking, notify=connected.notify)
    listeners = [telemetry.hear, alerts.hear, notice]
    return Planner(chosen.rules, connected.world, elected=elected, listeners=listeners, brain=brain), telemetry


def _conditions(planner: Planner, connected: Connected) -> tuple[Condition, ...]:
    """Return what holds the planner back, and what it runs without."""
    return (*conditions(planner.state), *connected.lacking())


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
async def _listening(
    chosen: Settings, planner: Planner, telemetry: "Telemetry", conditions: Callable[[], Sequence[Condition]]
) -> AsyncIterator[str]:
    """Serve the API; an address that cannot be had ends the start."""
    from gpadapters.http.server import Listen, serve  # noqa: PLC0415 (nor do they serve)

    where = Listen(
        chosen.listen.host,
        chosen.listen.port,
        insecure_no_auth=chosen.insecure_no_auth,
        probes_only="http" not in chosen.transports,
    )
    try:
        async with serve(
            planner,
            where,
            version=version("gpcore"),
            metrics=telemetry.exposition,
            refused=telemetry.refused,
            conditions=conditions,
            rehearsal=chosen.no_operation,
        ) as url:
            yield url
    except OSError as exc:
        raise PortError(f"cannot listen on {chosen.listen}: {exc.strerror or exc}") from exc


@asynccontextmanager
async def _dynamo(chosen: Settings) -> AsyncIterator["list[Runtime]"]:
    """Join Dynamo where that is asked for; the body gets its runtime, or nothing."""
    if "dynamo" not in chosen.transports:
        yield []
        return
    from gpadapters.dynamo.runtime import joined  # noqa: PLC0415 (other transports need no runtime)

    for difference in differences(chosen):
        log.warning("%s", difference)
    async with joined() as runtime:
        yield [runtime]


def _serving(
    runtime: "Runtime", chosen: Settings, planner: Planner, telemetry: "Telemetry"
) -> AbstractAsyncContextManager["Future[Any]"]:
    """Serve over Dynamo's runtime; the body gets what is done if that ends by itself."""
    from gpadapters.dynamo.server import serve  # noqa: PLC0415 (nor its server)

    namespace = chosen.dynamo_namespace or ""  # the settings have one where there is a runtime
    return serve(planner, runtime, namespace, refused=telemetry.refused, rehearsal=chosen.no_operation)


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
