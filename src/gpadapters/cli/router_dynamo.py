"""`gpctl router --transport dynamo`: the router as a component of Dynamo, put together.

Rules of this file: it connects what follows files and the planner, which is the other transport's too, with what serves
on the runtime. A flag that means nothing here is refused and not ignored.
"""

import argparse
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import attrs

from gpadapters.dynamo.router_pools import Bounds
from gpadapters.dynamo.router_requests import Defaults
from gpadapters.dynamo.router_running import Configuration, serve
from gpadapters.router.following import followed
from gpadapters.router.settings import Settings
from gpcore.errors import ConfigError
from gpcore.routing import RoutingTable

_OF_HTTP = (
    *("listen", "admin_listen", "pool", "pools_file", "pool_service", "prefill", "tokenizer", "half_output"),
    *("connect_timeout", "head_timeout", "body_timeout", "idle_timeout", "sweep"),
    *("max_body_bytes", "max_connections", "max_in_flight"),
)


@attrs.frozen
class Common:
    """Hold what both transports make of the arguments in one way."""

    missing: list[str]
    """What every router needs and was not given."""
    read: Callable[[bytes], RoutingTable]
    settings: Settings


def serve_dynamo(given: argparse.Namespace, usual: argparse.Namespace, common: Common) -> None:
    """Run what *given* says until a signal; *usual* is what no arguments at all give."""
    serve(configuration(given, usual, common))


def configuration(given: argparse.Namespace, usual: argparse.Namespace, common: Common) -> Configuration:
    """Return what *given* says to run, or raise ConfigError with every problem."""
    problems = [
        f"--{name.replace('_', '-')} means nothing with --transport dynamo"
        for name in _OF_HTTP
        if getattr(given, name) != getattr(usual, name)
    ]
    problems += common.missing
    if problems:
        raise ConfigError(problems)
    path = Path(given.config)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}"]) from error
    names = tuple(given.model_name)
    return Configuration(
        table=common.read(data),
        models=names,
        model_path=given.model_path or names[0],
        namespace=given.namespace,
        component=given.component_name,
        bounds=_bounds(common.settings),
        defaults=Defaults(given.default_ttft_target_ms, given.default_itl_target_ms),
        router_id=socket.gethostname(),
        tables=lambda: followed(path, common.read),
        planned=(lambda: _planned(given.planner)) if given.planner else None,
    )


async def _planned(url: str) -> AsyncIterator[Mapping[tuple[str, str], str]]:
    from gpadapters.router import planned  # noqa: PLC0415 (asking the planner needs the router's extra)

    async for said in planned.followed(url):
        yield said


def _bounds(said: Settings) -> Bounds:
    """Return the bounds that both transports have."""
    times, retries, breaking = said.timeouts, said.retries, said.breaking
    return Bounds(
        first_output_s=times.first_byte_s,
        between_outputs_s=times.between_bytes_s,
        total_s=times.total_s,
        wait_for_replica_s=times.wait_for_replica_s,
        waiting=said.limits.waiting,
        attempts=retries.attempts,
        retry_share=retries.share,
        retry_burst=retries.burst,
        failures=breaking.failures,
        alone_s=breaking.open_s,
        alone_max_s=breaking.open_max_s,
        drain_linger_s=times.drain_linger_s,
        drain_grace_s=times.drain_grace_s,
    )
