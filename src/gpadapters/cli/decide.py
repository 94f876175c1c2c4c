"""`gpctl decide`: what the planner would decide about a situation that is given as JSON.

Rules of this file: it needs the base installation alone, and as a filter it holds one line at a time. Whatever can
be said about a scenario is an answer on stdout and no failure: approved, rejected and invalid all end with 0.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterable
from typing import BinaryIO

from gpcore.errors import MalformedError
from gpcore.wire import dumps, invalid_verdict, loads, verdict

_EPILOG = """\
a scenario:
  {"pools": [{"participant": "ns/a", "role": "prefill", "replicas": 4, "gpus_per_replica": 1}],
   "budget": {"floor": 0, "ceiling": 16},
   "intents": [{"participant": "ns/b", "role": "decode", "replicas": 2, "age_s": 30}],
   "request": {"participant": "ns/a", "targets": [{"role": "prefill", "replicas": 5}]}}

Exit codes: 0 a verdict was printed, whatever it is; 1 the file cannot be read; 2 wrong usage."""


def main(arguments: list[str]) -> int:
    """Run `gpctl decide`."""
    given = parser().parse_args(arguments)
    with contextlib.ExitStack() as stack:
        try:
            source = sys.stdin.buffer if given.file == "-" else stack.enter_context(open(given.file, "rb"))  # noqa: PTH123
        except OSError as exc:
            sys.stderr.write(f"gpctl: {given.file}: {exc.strerror}\n")
            return 1
        _answer(source if given.lines else [source.read()], sys.stdout.buffer)
    return 0


def _answer(scenarios: Iterable[bytes], out: BinaryIO) -> None:
    """Write one line for each of *scenarios*, at once: whoever waits for it may send the next one only then."""
    for scenario in scenarios:
        out.write(_verdict(scenario) + b"\n")
        out.flush()


def _verdict(scenario: bytes) -> bytes:
    try:
        document = loads(scenario)
    except MalformedError as error:
        return dumps(invalid_verdict(error))
    return dumps(verdict(document))


def parser() -> argparse.ArgumentParser:
    """Return the parser of `gpctl decide`."""
    made = argparse.ArgumentParser(
        prog="gpctl decide",
        description="Read a scenario and print what the planner would decide, as JSON.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("file", nargs="?", default="-", metavar="FILE", help="the scenario; - or nothing: standard input")
    made.add_argument(
        "--lines", action="store_true", help="one scenario a line; line N of the output answers line N of the input"
    )
    return made
