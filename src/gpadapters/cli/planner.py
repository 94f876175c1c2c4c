"""`gpctl planner`: the daemon, put together.

Rules of this file: it chooses the adapters and connects them; what they do is theirs. An adapter that was not chosen
is not imported.
"""

import asyncio
import logging
import signal
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import attrs

from gpadapters.cli.differences import differences
from gpadapters.cli.logs import set_up
from gpadapters.cli.options import Settings, settings
from gpadapters.cli.rehearsal import rehearse
from gpadapters.daemon import Planner
from gpcore.control import Transition, step
from gpcore.errors import ConfigError, PortError
from gpcore.events import Event
from gpcore.pools import Snapshot
from gpcore.ports import Condition, Executor, Observer

if TYPE_CHECKING:
    from gpadapters.dynamo.runtime import Runtime
    from gpadapters.telemetry import Telemetry

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run `gpctl planner` until a signal stops it."""
    chosen = settings(arguments)
    set_up(chosen.log_format)
    if "dynamo" in chosen.transports:
        from gpadapters.dynamo.runtime import run  # noqa: PLC0415 (other transports need no runtime)

        run(_run(chosen))
    else:
        asyncio.run(_run(chosen))
    return 0


async def _run(chosen: Settings) -> None:
    ready = asyncio.Event()

    def notice(_: Event, transition: Transition) -> None:
        if transition.state.ready:
            ready.set()

    from gpadapters.telemetry import Telemetry  # noqa: PLC0415 (the help, and a wrong configuration, measure nothing)

    async with AsyncExitStack() as stack:
        runtimes = await stack.enter_async_context(_dynamo(chosen))
        stop = _stop_signal()  # not before: Dynamo's runtime may look for its discovery for minutes, and hears nothing
        world = await _world(chosen, stack)
        telemetry = Telemetry(version=version("gpcore"), silence=world.silence, conditions=world.conditions)
        brain = rehearse if chosen.no_operation else step
        listeners = [telemetry.hear, notice]
        planner = Planner(chosen.rules, world.observer, world.executor, listeners=listeners, brain=brain)
        url = await stack.enter_async_context(_listening(chosen, planner, telemetry, world.conditions))
        ended = [await stack.enter_async_context(_serving(one, chosen, planner, telemetry)) for one in runtimes]
        await stack.enter_async_context(planner.running())
        announcing = asyncio.create_task(_announce(ready, url, chosen, planner))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *ended}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        announcing.cancel()
        log.info("stopping")


@attrs.frozen
class _World:
    observer: Observer
    executor: Executor
    silence: Callable[[], float] | None = None
    conditions: Callable[[], Sequence[Condition]] = tuple


async def _world(chosen: Settings, stack: AsyncExitStack) -> _World:
    """Connect to what the planner works on."""
    if chosen.fleet is not None:
        from gpadapters.cli.fleet import cluster  # noqa: PLC0415 (the other world needs no kit)

        memory = cluster(chosen.fleet)
        return _World(memory, memory)
    from gpadapters.kubernetes.cluster import connect  # noqa: PLC0415 (the other world needs no client)
    from gpadapters.kubernetes.here import namespace_here  # noqa: PLC0415

    kubeconfig, context = chosen.kubeconfig, chosen.context
    if kubeconfig is not None and not kubeconfig.is_file():
        raise ConfigError([f"--kubeconfig: {kubeconfig} is no file"])  # the client would take it for an empty one
    namespaces = chosen.namespaces or (namespace_here(kubeconfig=kubeconfig, context=context),)
    connected = await stack.enter_async_context(connect(namespaces, kubeconfig=kubeconfig, context=context))
    observer = connected.observer
    return _World(observer, connected.executor, lambda: observer.watch_age_s, lambda: observer.conditions)


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
