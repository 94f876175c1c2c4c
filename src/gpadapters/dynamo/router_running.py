"""Running the router on Dynamo's runtime: join, serve, list the model, follow what changes, stop and lose nobody.

Rules of this file: the composition root hands in what is read and from where; a bad value of anything that is followed
leaves the one before it serving. The runtime's own types are only touched here and in `runtime`.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any

import attrs

from gpadapters.dynamo.router import Key, Router, keys, phases_of
from gpadapters.dynamo.router_pools import Bounds
from gpadapters.dynamo.router_requests import NO_DEFAULTS, Defaults
from gpadapters.dynamo.runtime import Runtime, joined
from gpcore.errors import InvalidError, PortError
from gpcore.routing import Phase, RoutingTable

log = logging.getLogger(__name__)

DIFFERENCES = (
    "unlike dynamo.global_router: a pool with nobody in it is passed over for faster ones and then waited for, an"
    " answer that stops or is cut off is an error, and retries are bounded"
)

_ENDPOINTS = {Phase.PREFILL: "prefill_generate", Phase.DECODE: "decode_generate", Phase.AGG: "generate"}
_LOOK_S = 0.25


@attrs.frozen(kw_only=True)
class Configuration:
    """Say what to run."""

    table: RoutingTable
    models: tuple[str, ...]
    """The name of the model, and others that it has too."""
    model_path: str
    """Where the files are that a model is listed with: a folder, or its name in the hub."""
    namespace: str
    component: str
    bounds: Bounds = attrs.field(factory=Bounds)
    defaults: Defaults = NO_DEFAULTS
    router_id: str = "0"
    tables: Callable[[], AsyncIterator[RoutingTable | InvalidError]] | None = None
    """What the configuration says whenever it changes."""
    planned: Callable[[], AsyncIterator[Mapping[Key, str]]] | None = None
    """What the planner says of the pools, again and again."""


def serve(configuration: Configuration) -> None:
    """Serve until SIGTERM or SIGINT."""
    import uvloop  # noqa: PLC0415 (as the runtime, installed for this transport alone)

    uvloop.run(run(configuration))  # every output crosses from the runtime's threads, which costs half as much with it


async def run(configuration: Configuration) -> None:
    """Serve on the loop that runs."""
    async with joined() as runtime:
        await _Service(configuration, runtime).run()


class _Service:
    """One router and its endpoints."""

    def __init__(self, configuration: Configuration, runtime: Runtime) -> None:
        self._configuration = configuration
        self._runtime = runtime
        self._clients: dict[Key, Any] = {}
        place = f"{configuration.namespace}.{configuration.component}"
        self._endpoints = {
            phase: runtime.endpoint(f"{place}.{_ENDPOINTS[phase]}") for phase in phases_of(configuration.table)
        }

    async def run(self) -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        router = await self._router()
        log.warning("%s", DIFFERENCES)
        tasks = [asyncio.create_task(one) for one in (*self._serving(router), *self._following(router))]
        try:
            await _until(stopping, tasks)
            await self._drain(router)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _router(self) -> Router:
        from dynamo.llm import HttpError  # noqa: PLC0415 (it is large, and installed for this transport alone)

        said = self._configuration
        return Router(
            said.table,
            await self._callees(said.table),
            refuse=HttpError,
            bounds=said.bounds,
            defaults=said.defaults,
            asks_planner=said.planned is not None,
            router_id=said.router_id,
        )

    async def _callees(self, table: RoutingTable) -> Mapping[Key, Any]:
        """Return what reaches the pools of *table*; a pool that serves two phases is reached in one way."""
        for role, namespace in keys(table):
            if (role, namespace) not in self._clients:
                self._clients[role, namespace] = await self._runtime.endpoint(f"{namespace}.router.generate").client()
        return self._clients

    def _serving(self, router: Router) -> Iterator[Coroutine[None, None, None]]:
        first = next(iter(self._endpoints.values()))  # all of them share the runtime's /metrics
        first.metrics.register_prometheus_expfmt_callback(router.metrics)
        for phase, endpoint in self._endpoints.items():
            yield _served(endpoint, _handler(router, phase), phase)

    def _following(self, router: Router) -> Iterator[Coroutine[None, None, None]]:
        yield self._advertise(router)
        if self._configuration.tables is not None:
            yield self._follow_tables(router, self._configuration.tables())
        if self._configuration.planned is not None:
            yield _follow_planner(router, self._configuration.planned())

    async def _advertise(self, router: Router) -> None:
        """List the model as soon as it can be served, or pools may be scaled up for it."""
        while not router.advertises():  # noqa: ASYNC110 (discovery is a snapshot that somebody else renews)
            await asyncio.sleep(_LOOK_S)
        name, *more = self._configuration.models
        for phase, endpoint in self._endpoints.items():
            try:
                await _register(phase, endpoint, self._configuration)
            except Exception as exc:
                path = self._configuration.model_path
                raise PortError(f"the model {name} cannot be listed with the files of {path}: {exc}") from exc
        self._runtime.set_health_status(True)
        log.info(
            "serving %s as %s.%s",
            ", ".join([name, *more]),
            self._configuration.namespace,
            self._configuration.component,
        )
        await asyncio.Event().wait()

    async def _follow_tables(self, router: Router, tables: AsyncIterator[RoutingTable | InvalidError]) -> None:
        async for found in tables:
            if isinstance(found, InvalidError):
                for problem in found.problems:
                    log.error("the configuration is not used: %s", problem)
            elif phases_of(found) != phases_of(router.table):
                log.error("the configuration is not used: the mode of a router that runs cannot change")
            elif found != router.table:
                router.serve(found, await self._callees(found))
                log.info("the configuration was read again")

    async def _drain(self, router: Router) -> None:
        """Leave discovery, serve on for a while, then let what is under way end."""
        bounds, loop = self._configuration.bounds, asyncio.get_running_loop()
        log.info("stopping: serving on for %.1f s", bounds.drain_linger_s)
        self._runtime.set_health_status(False)
        for endpoint in self._endpoints.values():
            await endpoint.unregister_endpoint_instance()
        await asyncio.sleep(bounds.drain_linger_s)
        router.closing = True
        last = loop.time() + bounds.drain_grace_s
        while router.under_way and loop.time() < last:  # noqa: ASYNC110 (many small ends)
            await asyncio.sleep(0.05)
        if router.under_way:
            log.warning("%d requests did not end in time", router.under_way)


async def _served(endpoint: Any, handler: Any, phase: Phase) -> None:  # noqa: ANN401 (both are the runtime's)
    """Serve one endpoint for ever."""
    labels = [("service", "global_router"), ("type", phase.value)]
    await endpoint.serve_endpoint(handler, graceful_shutdown=True, metrics_labels=labels)
    raise PortError("the endpoints are not served any more: Dynamo's runtime was shut down")


def _handler(router: Router, phase: Phase) -> Any:  # noqa: ANN401 (the runtime looks at the signature)
    async def generate(request: object, context: Any) -> AsyncIterator[object]:  # noqa: ANN401 (the runtime's)
        async for item in router.answer(phase, request, context):
            yield item

    return generate


async def _register(phase: Phase, endpoint: Any, said: Configuration) -> None:  # noqa: ANN401 (the runtime's)
    """List the model for *phase* in Dynamo's discovery, as the peer does."""
    from dynamo.llm import ModelInput, ModelType, WorkerType, register_model  # noqa: PLC0415 (as above)

    role, needs = {
        Phase.PREFILL: (WorkerType.Prefill, [[WorkerType.Decode]]),
        Phase.DECODE: (WorkerType.Decode, [[WorkerType.Prefill]]),
        Phase.AGG: (WorkerType.Aggregated, None),
    }[phase]
    name, *more = said.models
    await register_model(
        model_input=ModelInput.Tokens,
        model_type=ModelType.Prefill if phase is Phase.PREFILL else ModelType.Chat | ModelType.Completions,
        endpoint=endpoint,
        model_path=said.model_path,
        model_name=name,
        model_aliases=more or None,
        worker_type=role,
        needs=needs,
        ignore_weights=True,
    )


async def _follow_planner(router: Router, planned: AsyncIterator[Mapping[Key, str]]) -> None:
    async for said in planned:
        router.planned(said)


async def _until(stopping: asyncio.Event, tasks: list["asyncio.Task[None]"]) -> None:
    """Wait for the word to stop; a task that fails on its own has failed the router."""
    waiting = asyncio.create_task(stopping.wait())
    following = {*tasks}
    try:
        while not waiting.done():
            await asyncio.wait([waiting, *following], return_when=asyncio.FIRST_COMPLETED)
            ended = {task for task in following if task.done()}
            for task in ended:
                task.result()
            following -= ended  # a source that ends has said its last word
    finally:
        waiting.cancel()
