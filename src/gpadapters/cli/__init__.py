"""`gpctl`, and the composition root: the only package that knows which adapters exist.

Rules of this file: it only dispatches. What a command needs is imported when that command runs, so that a planner
does not load what draws tables and `gpctl decide` needs nothing but the base installation. Every error that is
somebody's mistake, or the world's, is told here, in one line a problem.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module

from gpadapters.cli.faults import FAILED, OK, USAGE, CommandError

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_PROGRAMS = {name: f"gpadapters.cli.{name}" for name in ("crd", "decide", "manifests", "planner", "route", "router")}
"""The commands with a parser of their own: lists of names after a flag, and the peer's flags, are not Typer's."""

_EXTRAS = {
    "aiohttp": "http",
    "dynamo": "dynamo",
    "httptools": "router",
    "httpx": "http",
    "kubernetes": "kubernetes",
    "msgspec": "kubernetes",
    "prometheus_client": "prometheus",
    "rich": "cli",
    "tokenizers": "tokenizers",
    "typer": "cli",
    "uvloop": "router",
    "yaml": "cli",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `gpctl` with the arguments *argv* (default: the process's) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _told(arguments)
    except SystemExit as exc:  # argparse and Typer have said why
        return exc.code if isinstance(exc.code, int) else OK
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough; nor may the interpreter's own flush complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _told(arguments: list[str]) -> int:
    """Run the command and tell what goes wrong."""
    try:
        return _command(arguments)(arguments)
    except CommandError as exc:
        return _tell(exc.problems, exc.code)
    except (BrokenPipeError, SystemExit):
        raise
    except ModuleNotFoundError as exc:
        extra = _EXTRAS.get((exc.name or "").partition(".")[0])
        if extra is None:
            raise
        return _tell([f"{exc.name} is not installed; this command needs gpcore[{extra}]"], FAILED)
    except Exception as exc:
        from gpcore.errors import GpcoreError, InvalidError  # noqa: PLC0415 (a command that only asks needs no core)

        if isinstance(exc, InvalidError):
            return _tell(exc.problems, USAGE)
        if isinstance(exc, GpcoreError):
            return _tell([str(exc)], FAILED)
        raise


def _command(arguments: list[str]) -> Callable[[list[str]], int]:
    """Return what runs *arguments*."""
    module = _PROGRAMS.get(arguments[0] if arguments else "")
    if module is None:
        from gpadapters.cli.app import main as app  # noqa: PLC0415 (Typer is for the commands of people)

        return app
    program: Callable[[list[str]], int] = import_module(module).main
    return lambda given: program(given[1:])


def _tell(problems: Iterable[str], code: int) -> int:
    for problem in problems:
        sys.stderr.write(f"gpctl: {problem}\n")
    return code
