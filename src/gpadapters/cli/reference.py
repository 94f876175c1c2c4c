"""The page of the reference that tells every command, made from the commands themselves.

Rules of this file: nothing is told twice. What a flag means is said where it is made.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from typer.main import get_command

from gpadapters.cli import app, crd, decide, manifests, options, route, router

_HEAD = """\
# gpctl

Asks a planner, runs one, and prints what runs one in a cluster. Data goes to stdout and everything else to stderr.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not done in time (`gpctl wait`). Colours are for terminals,
and `NO_COLOR` turns them off. `GPCTL_SERVER` is the default of `--server`; a planner reads `POD_NAMESPACE` and
`KUBECONFIG`. What another planner decides is asked of that one.

This page is generated from `gpadapters.cli`; a test says whether it is current.
"""

_CONFIG = """\
Each setting has the same name in the file that `--config` names, as `max-total-gpus: 16`. Flags go before the file. A
planner with a contradictory configuration does not start, and lists every problem.
"""


def as_markdown() -> str:
    """Return the page."""
    commands: dict[str, Any] = get_command(app.app).commands  # type: ignore[attr-defined]
    parsers = {
        "planner": options.parser(),
        "crd": crd.parser(),
        "decide": decide.parser(),
        "manifests": manifests.parser(),
        "route": route.parser(),
        "router": router.parser({}),
    }
    sections = [_HEAD]
    for name, command in _flat(commands):
        parser = parsers.get(name)
        rows = _of_typer(command.params) if parser is None else _of_argparse(parser, name)
        sections.append(f"## gpctl {name}\n\n{command.help}\n")
        sections += [_CONFIG] if name == "planner" else []
        sections.append("\n".join(["| argument | meaning |", "|---|---|", *rows, ""]))
    return "\n".join(sections)


def _flat(commands: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every command with its name, those of a group by both names."""
    for name, command in commands.items():
        members = getattr(command, "commands", None)
        if members is None:
            yield name, command
        else:
            yield from ((f"{name} {inner}", one) for inner, one in members.items())


def _of_argparse(parser: argparse.ArgumentParser, command: str) -> Iterator[str]:
    """Yield a row for each argument; the planner's flags are told with the planner alone."""
    planners = {option.flag for option in options.OPTIONS} | {"--config"}
    for action in parser._actions:  # noqa: SLF001 (argparse has no other way to list what it takes)
        names = action.option_strings or [str(action.metavar)]
        if action.dest == "help" or (command == "manifests" and planners & set(names)):
            continue
        metavar = "" if action.nargs == 0 or not action.option_strings else str(action.metavar)
        metavar += " ..." if action.nargs in {"*", "+"} else ""
        yield _row(names, metavar, (action.help or "") % vars(action))
    if command == "manifests":
        yield "| flags of `gpctl planner` | but for those that the manifests decide |"


def _of_typer(params: Iterable[Any]) -> Iterator[str]:
    for param in params:
        if param.name == "help":
            continue
        flag = param.param_type_name == "option"
        default = f" (default: {param.default})" if flag and param.default not in {None, False} else ""
        names = param.opts if flag else [param.metavar or param.name]
        yield _row(names, (param.metavar or "") if flag else "", f"{param.help}{default}")


def _row(names: Iterable[str], metavar: str, meaning: str) -> str:
    shown = ", ".join(f"`{name}`" for name in names) + (f" `{metavar}`" if metavar else "")
    return f"| {shown} | {meaning} |"
