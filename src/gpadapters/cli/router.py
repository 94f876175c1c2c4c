"""`gpctl router`: the data path, with the peer's flags and environment as they are."""

import argparse
import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpadapters.router.settings import Admission, Limits, Retries, Settings, Timeouts
from gpcore.errors import ConfigError
from gpcore.routing import RoutingTable
from gpcore.wire.routing import routing_config

if TYPE_CHECKING:  # the data path needs an extra that the other commands do without
    from gpadapters.router.running import Configuration, Listen
    from gpadapters.router.sources import EndpointSource

log = logging.getLogger(__name__)

_ENV = "DYN_GLOBAL_ROUTER_"
_PORTS = 1 << 16


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Run the router until it is told to stop."""
    given = parser(environment).parse_args(arguments)
    _log(given.log_level)
    if given.transport == "dynamo":
        from gpadapters.cli.router_dynamo import Common, serve_dynamo  # noqa: PLC0415 - its extra is another one

        common = Common(_missing(given), _table, _settings(given))
        serve_dynamo(given, parser(environment).parse_args([]), common)
        return 0
    from gpadapters.router.running import serve  # noqa: PLC0415 - as above

    serve(configuration(given, environment))
    return 0


def configuration(given: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> "Configuration":
    """Return what *given* says to run, or raise ConfigError with every problem."""
    from gpadapters.router.asking import Defaults  # noqa: PLC0415 - as above
    from gpadapters.router.counting import counter  # noqa: PLC0415 - as above
    from gpadapters.router.running import Configuration  # noqa: PLC0415 - as above

    problems = _missing(given)
    if given.model_path:
        problems.append("--model-path is for --transport dynamo")
    if sum(map(bool, (given.pool, given.pools_file, given.pool_service))) != 1:
        problems.append("one of --pool NAMESPACE=URL, --pools-file FILE and --pool-service NAMESPACE=SERVICE is needed")
    if problems:
        raise ConfigError(problems)
    return Configuration(
        path=Path(given.config),
        read=_table,
        listen=_listen(given.listen),
        admin=_listen(given.admin_listen),
        source=_source(given, environment),
        models=tuple(given.model_name),
        defaults=Defaults(given.default_ttft_target_ms, given.default_itl_target_ms),
        settings=_settings(given),
        planner=given.planner,
        router_id=socket.gethostname(),
        counter=counter(Path(given.tokenizer)) if given.tokenizer else None,
    )


def _source(given: argparse.Namespace, environment: Mapping[str, str]) -> "EndpointSource":
    from gpadapters.router.slices import Access, FromSlices, Service  # noqa: PLC0415 - as above
    from gpadapters.router.sources import Fixed, FromFile  # noqa: PLC0415 - as above

    if given.pools_file:
        return FromFile(Path(given.pools_file))
    if given.pool:
        return Fixed(given.pool)
    pairs = [text.partition("=") for text in given.pool_service]
    return FromSlices({pool: Service.parse(service) for pool, _, service in pairs}, Access.inside(environment))


def _missing(given: argparse.Namespace) -> list[str]:
    """Return what every router needs and *given* lacks."""
    problems = []
    if not given.config:
        problems.append(f"config_path must be set via --config or {_ENV}CONFIG")
    if not given.model_name:
        problems.append(f"model_name must be set via --model-name or {_ENV}MODEL_NAME")
    return problems


def _table(data: bytes) -> RoutingTable:
    """Return the table that a configuration file holds, and say what is odd about it."""
    found = routing_config(data)
    for warning in found.warnings:
        log.warning("%s", warning)
    return found.table


def _settings(given: argparse.Namespace) -> Settings:
    """Return the bounds of the data path, or raise ConfigError."""
    try:
        return Settings(
            limits=Limits(body_bytes=given.max_body_bytes, connections=given.max_connections),
            timeouts=Timeouts(
                connect_s=given.connect_timeout,
                first_byte_s=given.first_byte_timeout,
                between_bytes_s=given.between_bytes_timeout,
                total_s=given.stream_timeout,
                wait_for_replica_s=given.wait_for_replica,
                drain_linger_s=given.drain_linger,
                drain_grace_s=given.drain_grace,
                head_s=given.head_timeout,
                body_s=given.body_timeout,
                idle_s=given.idle_timeout,
                sweep_s=given.sweep,
            ),
            retries=Retries(share=given.retry_share, burst=given.retry_burst),
            admission=Admission(in_flight=given.max_in_flight),
            half_output=given.half_output,
            two_calls=given.prefill == "call",
        )
    except ValueError as error:
        raise ConfigError([str(error.args[0]) if error.args else str(error)]) from error


def _listen(text: str) -> "Listen":
    from gpadapters.router.running import Listen  # noqa: PLC0415 - as above

    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not int(port) < _PORTS:
        raise ConfigError([f"where to listen is HOST:PORT: {ascii(text)[:80]}"])
    return Listen(host.strip("[]"), int(port))


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return what reads the arguments of `gpctl router`, with the defaults that *environment* gives."""
    made = argparse.ArgumentParser(
        prog="gpctl router", description="Serve one model from many pools.", allow_abbrev=False
    )
    add = made.add_argument
    add("--config", metavar="FILE", default=environment.get(f"{_ENV}CONFIG"), help="The routing configuration.")
    names = environment.get(f"{_ENV}MODEL_NAME")
    add(
        "--model-name",
        metavar="NAME",
        action="append",
        default=None if names is None else [names],
        help="The model that is served; again for each of its names.",
    )
    add(
        "--transport",
        choices=("http", "dynamo"),
        default="http",
        help="What clients and pools speak: OpenAI's HTTP, or Dynamo's runtime (%(default)s).",
    )
    add(
        "--namespace",
        default=environment.get("DYN_NAMESPACE", "dynamo"),
        help="The Dynamo namespace to serve in; of no meaning over HTTP, as is the component (%(default)s).",
    )
    add(
        "--component-name",
        default=environment.get(f"{_ENV}COMPONENT_NAME", "global_router"),
        help="The Dynamo component to serve as (%(default)s).",
    )
    add(
        "--model-path", metavar="PATH", help="The model's files over Dynamo's runtime, if its name is no place of them."
    )
    for what in ("ttft", "itl"):
        new, old = f"--default-{what}-target-ms", f"--default-{what}-target"
        variable = f"{_ENV}DEFAULT_{what.upper()}_TARGET"
        default = environment.get(f"{variable}_MS", environment.get(variable))
        add(new, old, type=float, metavar="MS", default=default, help="For requests that name none.")
    add("--listen", metavar="HOST:PORT", default="0.0.0.0:8000", help="Where clients come (%(default)s).")
    add("--admin-listen", metavar="HOST:PORT", default="127.0.0.1:8001", help="Health and metrics (%(default)s).")
    add("--pool", metavar="NAMESPACE=URL", action="append", help="An endpoint of a pool; again for each one.")
    add("--pools-file", metavar="FILE", help="JSON: lists of URLs by namespace; read again when it changes.")
    add(
        "--pool-service",
        metavar="NAMESPACE=KUBERNETES-NAMESPACE/SERVICE[:PORT]",
        action="append",
        help="A pool whose endpoints are the EndpointSlices of a Service; again for each pool.",
    )
    add(
        "--prefill",
        choices=("header", "call"),
        default="header",
        help="How a disaggregated request reaches its prefill endpoint: named to the decode endpoint in"
        " x-prefiller-host-port, or called first and its kv_transfer_params handed on (%(default)s).",
    )
    add("--tokenizer", metavar="FILE", help="A tokenizer.json to count inputs exactly; needs gpcore[tokenizers].")
    add(
        "--half-output",
        action="store_true",
        help="Look up the decode grid with half of the expected output on top of the input.",
    )
    add("--planner", metavar="URL", help="The planner to ask which pools are cold, draining or denied.")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    _add_bounds(made)
    return made


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    """Add the bounds that somebody may want to move."""
    times, limits, retries = Timeouts(), Limits(), Retries()
    for flag, default, about in (
        ("--connect-timeout", times.connect_s, "for a connection to an endpoint"),
        ("--first-byte-timeout", times.first_byte_s, "for an answer to begin"),
        ("--between-bytes-timeout", times.between_bytes_s, "for an answer to go on"),
        ("--stream-timeout", times.total_s, "for an answer to end"),
        ("--wait-for-replica", times.wait_for_replica_s, "for a first replica"),
        ("--drain-linger", times.drain_linger_s, "to serve on after SIGTERM"),
        ("--drain-grace", times.drain_grace_s, "for what is under way then"),
        ("--head-timeout", times.head_s, "for the head of a request"),
        ("--body-timeout", times.body_s, "for its body, if it comes slower than 1 KiB/s"),
        ("--idle-timeout", times.idle_s, "for a next request"),
        ("--sweep", times.sweep_s, "between two looks at all of these"),
        ("--retry-share", retries.share, None),
    ):
        said = f"Seconds {about} (%(default)s)." if about else "Most retries, as a share of requests (%(default)s)."
        parser.add_argument(flag, type=float, metavar="N", default=default, help=said)
    for flag, whole, said in (
        ("--retry-burst", retries.burst, "Retries that quiet times may save up (%(default)s)."),
        ("--max-body-bytes", limits.body_bytes, "Most bytes of a request (%(default)s)."),
        ("--max-connections", limits.connections, "Most clients at once (%(default)s)."),
        ("--max-in-flight", Admission().in_flight, "Most requests under way in one pool (%(default)s)."),
    ):
        parser.add_argument(flag, type=int, metavar="N", default=whole, help=said)


def _log(level: str) -> None:
    logging.basicConfig(stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
