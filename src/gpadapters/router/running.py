"""Running the router: start, follow what changes, stop without losing anybody.

Rules of this file: the composition root hands in what is read and from where; a bad value of anything that is followed
leaves the one before it serving; SIGTERM fails readiness first and ends what is under way last.
"""

import asyncio
import gc
import logging
import resource
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import uvloop
from aiohttp import web

from gpadapters.router import planned
from gpadapters.router.admin import application
from gpadapters.router.asking import Defaults
from gpadapters.router.client import Client
from gpadapters.router.counting import Count
from gpadapters.router.following import followed
from gpadapters.router.service import Router
from gpadapters.router.settings import Settings
from gpadapters.router.sources import EndpointSource
from gpcore.errors import InvalidError
from gpcore.routing import RoutingTable

log = logging.getLogger(__name__)

_BACKLOG = 4096
_GENERATION_0 = 20_000
"""Requests make few cycles; collecting every 700 objects would cost more than the routing decision."""


@attrs.frozen
class Listen:
    """Say where to listen; port 0 takes any that is free."""

    host: str
    port: int


@attrs.frozen(kw_only=True)
class Configuration:
    """Say what to run."""

    path: Path
    read: Callable[[bytes], RoutingTable]
    """Makes the table of the bytes of *path*, or raises `InvalidError`."""
    listen: Listen
    admin: Listen
    source: EndpointSource
    models: tuple[str, ...] = ()
    defaults: Defaults = attrs.field(factory=Defaults)
    settings: Settings = attrs.field(factory=Settings)
    planner: str | None = None
    planner_token: str | None = None
    router_id: str = "0"
    counter: Count | None = None
    follow_s: float = 1.0


def serve(configuration: Configuration) -> None:
    """Run until SIGTERM or SIGINT."""
    table = configuration.read(configuration.path.read_bytes())  # what is wrong at the start ends it
    _many_files()
    gc.freeze()
    gc.set_threshold(_GENERATION_0, 50, 50)
    uvloop.run(run(configuration, table))


async def run(configuration: Configuration, table: RoutingTable) -> None:
    """Serve *table*, and whatever *configuration* turns it into, until a signal says to stop."""
    router = Router(
        table,
        configuration.settings,
        models=configuration.models,
        defaults=configuration.defaults,
        router_id=configuration.router_id,
        counter=configuration.counter,
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    listen = configuration.listen
    async with _administered(router, configuration.admin) as admin_port:
        server = await loop.create_server(lambda: Client(router), listen.host, listen.port, backlog=_BACKLOG)
        port = server.sockets[0].getsockname()[1]
        log.info("serving on %s:%d, admin on %s:%d", listen.host, port, configuration.admin.host, admin_port)
        tasks = [loop.create_task(one) for one in _following(router, configuration)]
        try:
            await _until(stopping, tasks)
            await _drain(router, server)
        finally:
            for task in tasks:
                task.cancel()
            server.close()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _until(stopping: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for the word to stop; a task that ends on its own has failed, and so has the router."""
    waiting = asyncio.create_task(stopping.wait())
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for task in done:
        task.result()


def _following(router: Router, configuration: Configuration) -> Iterator[Coroutine[None, None, None]]:
    yield _sweep(router)
    yield _follow_table(router, configuration)
    yield _follow_endpoints(router, configuration.source)
    if configuration.planner is not None:
        yield _follow_planner(router, configuration.planner, configuration.planner_token)


async def _sweep(router: Router) -> None:
    """Look at the deadlines, for ever."""
    while True:
        router.sweep()
        await asyncio.sleep(router.settings.timeouts.sweep_s)


async def _follow_table(router: Router, configuration: Configuration) -> None:
    """Serve what the file says; a bad file leaves the old table serving."""
    reloads = router.measures.reloads
    first = True
    async for found in followed(configuration.path, configuration.read, every_s=configuration.follow_s):
        if isinstance(found, InvalidError):
            reloads["failed"] += 1
            for problem in found.problems:
                log.error("the configuration is not used: %s", problem)
        elif not first or found != router.ways.table:
            reloads["ok"] += 1
            router.serve(found)
            log.info("the configuration was read again")
        first = False


async def _follow_endpoints(router: Router, source: EndpointSource) -> None:
    async for endpoints in source.endpoints():
        router.serve_from(endpoints)
    await asyncio.Event().wait()  # a source that ends has said its last word


async def _follow_planner(router: Router, url: str, token: str | None) -> None:
    async for conditions in planned.followed(url, token=token):
        router.planned(conditions)


async def _drain(router: Router, server: asyncio.Server) -> None:
    """Fail readiness, serve on for a while, then take no more and let what is under way end."""
    times = router.settings.timeouts
    router.ready = False
    log.info("stopping: serving on for %.1f s", times.drain_linger_s)
    await asyncio.sleep(times.drain_linger_s)
    router.closing = True
    server.close()
    loop = asyncio.get_running_loop()
    last = loop.time() + times.drain_grace_s
    while router.clients and loop.time() < last:  # noqa: ASYNC110 - many small ends, looked at as often as the deadlines
        await asyncio.sleep(min(times.sweep_s, 0.05))
    if router.under_way:
        log.warning("%d requests did not end in time", router.under_way)
    router.stop()
    await asyncio.sleep(0.1)  # for the last bytes to leave
    for client in list(router.clients):
        client.abort()


@asynccontextmanager
async def _administered(router: Router, listen: Listen) -> AsyncIterator[int]:
    """Answer on the admin port, and give its number."""
    runner = web.AppRunner(application(router), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, listen.host, listen.port, shutdown_timeout=1.0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _many_files() -> None:
    """Allow as many open files as the system does: two for each request."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
