"""`gpctl route`: where the router's configuration sends requests that are given as JSON, one a line.

Rules of this file: it needs the base installation alone and holds one line at a time. Line N of the output answers
line N of the input, whatever that is: a request that cannot be routed has no pool, and the answer says why.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gpcore.errors import ConfigError, MalformedError
from gpcore.routing import ByPriority, Phase, Route, RouteRequest, RoutingTable, Selection, Unroutable, route
from gpcore.targets import Source, Sourced, target
from gpcore.wire import MAX_CONFIG_BYTES, RoutingConfig, dumps, loads, routing_config

_FIELDS = frozenset({"phase", "isl", "context_length", "ttft_target", "itl_target", "priority"})
_NAMES = {"ttft": "ttft_target", "itl": "itl_target"}
_SOURCES = {Source.DEFAULT: "the default", Source.MIDDLE: "the middle of the range"}

_EPILOG = """\
a request:
  {"phase": "prefill", "isl": 3000, "ttft_target": 200, "priority": 5}
  {"phase": "decode", "context_length": 3000, "itl_target": 20}
  {"phase": "agg", "isl": 3000, "ttft_target": 200, "itl_target": 20}

Targets are milliseconds. Where nothing is said, the default counts, or else the middle of the range.

Exit codes: 0 every line was answered; 1 the requests cannot be read; 2 wrong usage or a bad configuration."""


def main(arguments: list[str]) -> int:
    """Run `gpctl route`."""
    given = parser().parse_args(arguments)
    config = read_config(Path(given.config))
    for warning in config.warnings:
        sys.stderr.write(f"gpctl: {given.config}: {warning}\n")
    answered = answerer(config.table, ttft_ms=given.default_ttft_target_ms, itl_ms=given.default_itl_target_ms)
    with contextlib.ExitStack() as stack:
        try:
            source = sys.stdin.buffer if given.file == "-" else stack.enter_context(open(given.file, "rb"))  # noqa: PTH123
        except OSError as exc:
            sys.stderr.write(f"gpctl: {given.file}: {exc.strerror}\n")
            return 1
        _answer(source, sys.stdout.buffer, answered)
    return 0


def read_config(path: Path) -> RoutingConfig:
    """Read the configuration in *path*, or raise `ConfigError` with every problem and where it is."""
    try:
        with path.open("rb") as file:
            return routing_config(file.read(MAX_CONFIG_BYTES + 1))
    except OSError as exc:
        raise ConfigError([f"{path}: {exc.strerror or exc}"]) from exc
    except ConfigError as exc:
        raise ConfigError(f"{path}: {problem}" for problem in exc.problems) from exc


def answerer(
    table: RoutingTable, *, ttft_ms: float | None = None, itl_ms: float | None = None
) -> Callable[[bytes], bytes]:
    """Return what answers a line; answers are made once, as there are only so many."""
    prepared: dict[object, bytes] = {}

    def answer(line: bytes) -> bytes:
        try:
            fields = _fields(loads(line))
        except MalformedError as error:
            return _refusal("; ".join(error.problems))
        ttft = target(nvext=fields.get("ttft_target"), default=ttft_ms)
        itl = target(nvext=fields.get("itl_target"), default=itl_ms)
        phase = fields.get("phase")
        length = fields.get("isl")
        if phase == Phase.DECODE and fields.get("context_length") is not None:
            length = fields["context_length"]
        request = RouteRequest(phase, length, ttft.value, itl.value, fields.get("priority"))
        routed = route(table, request)
        selection = table.selection(phase)
        if isinstance(routed, Unroutable) or selection is None:
            return _refusal(str(routed))
        cell = routed.cell or selection.cell(request)
        key = (id(routed), cell, ttft.source, itl.source)
        if key not in prepared:
            prepared[key] = _told(selection, routed, cell, {"ttft": ttft, "itl": itl})
        return prepared[key]

    return answer


def _answer(requests: Iterable[bytes], out: BinaryIO, answered: Callable[[bytes], bytes]) -> None:
    """Write one line for each of *requests*, at once: whoever waits for it may send the next one only then."""
    for line in requests:
        out.write(answered(line) + b"\n")
        out.flush()


def _fields(document: object) -> Mapping[str, Any]:
    """Return the fields of a request, of which none may be a slip."""
    if not isinstance(document, dict):
        raise MalformedError(["a request must be a JSON object"])
    unknown = sorted(document.keys() - _FIELDS)
    if unknown:
        raise MalformedError([f"unknown field {unknown[0]!a}"[:120]])
    return document


def _told(selection: Selection, routed: Route, cell: tuple[int, ...], targets: Mapping[str, Sourced]) -> bytes:
    """Return the line that says where a request goes and why."""
    names = [axis.name for axis in selection.grid.axes]
    said = [f"{_NAMES[name]} is {_SOURCES[targets[name].source]}" for name in names if _unsaid(targets.get(name))]
    why = [str(routed.why), *([] if isinstance(routed.why, ByPriority) else said)]
    return dumps(
        {
            "pool": routed.pool.index,
            "namespace": routed.pool.namespace,
            "fallbacks": [pool.index for pool in routed.fallbacks],
            "cell": list(cell),
            "why": "; ".join(why),
        }
    )


def _unsaid(given: Sourced | None) -> bool:
    return given is not None and given.source in _SOURCES


def _refusal(why: str) -> bytes:
    return dumps({"pool": None, "namespace": None, "fallbacks": [], "cell": None, "why": why})


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    made = argparse.ArgumentParser(
        prog="gpctl route",
        description="Read requests, one a line as JSON, and print which pool serves each, as JSON.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("file", nargs="?", default="-", metavar="FILE", help="the requests; - or nothing: standard input")
    made.add_argument("--config", required=True, metavar="FILE", help="the configuration of the global router")
    for name in ("ttft", "itl"):
        said = f"the {name.upper()} target of requests without one"
        made.add_argument(f"--default-{name}-target-ms", type=float, metavar="MS", help=said)
    return made
