"""`gpctl freeze` and `gpctl thaw`: hold changes for a while, and end that.

Rules of this file: the planner judges what it is asked; only lengths of time are read here.
"""

import contextlib
import getpass
import re
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gpadapters.cli.asking import SERVER, TIMEOUT_S, How, Json, Server, Timeout, ask, content
from gpadapters.cli.faults import USAGE, CommandError
from gpadapters.cli.output import Output, moment, say, show

_LENGTH = re.compile(r"([0-9]{1,9})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def freeze(
    direction: Annotated[str, typer.Argument(metavar="[up|down|all]", help="Which changes to hold.")] = "all",
    *,
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="For how long, as in 90s, 30m, 2h or 1d.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; whoever is refused is told.")],
    pools: Annotated[
        list[str] | None,
        typer.Option("--pool", metavar="NAMESPACE/NAME/ROLE", help="A pool to hold, again for each; none: all."),
    ] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who asks (default: your user name).")] = None,
    server: Server = SERVER,
    timeout: Timeout = TIMEOUT_S,
    output: How = Output.TABLE,
) -> None:
    """Hold changes for a while; what is under way is finished."""
    document: dict[str, Any] = {
        "direction": direction,
        "for_seconds": _seconds(length),
        "reason": reason,
        "by": by or _user(),
    }
    if pools:
        document["pools"] = pools
    held = content(ask(server, "POST", "/v1/freezes", document, timeout_s=timeout))
    _show(held, output, f"success: held until {moment(held['until'])}: {_what(held)}")


def thaw(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The id of a freeze, as `gpctl get freezes` has it.")],
    *,
    server: Server = SERVER,
    timeout: Timeout = TIMEOUT_S,
    output: How = Output.TABLE,
) -> None:
    """End a freeze now."""
    ended = content(ask(server, "DELETE", f"/v1/freezes/{quote(identity, safe='')}", timeout_s=timeout))
    _show(ended, output, f"success: no longer held: {_what(ended)}")


def _show(document: Json, output: Output, sentence: str) -> None:
    if output in {Output.TABLE, Output.WIDE}:
        say([sentence, f"  freeze {document['id']}, asked for by {document['by']}: {document['reason']}"])
    else:
        show(document, output=output)


def _what(document: Json) -> str:
    which = "all changes" if document["direction"] == "all" else f"changes {document['direction']}"
    return f"{which} of {', '.join(document['pools']) or 'every pool'}"


def _seconds(text: str) -> int:
    found = _LENGTH.fullmatch(text)
    if found is None:
        raise CommandError(f"--for must be a number and s, m, h or d, as in 30m: {text!a}", code=USAGE)
    return int(found[1]) * _SECONDS[found[2]]


def _user() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):  # a container may know no names
        return getpass.getuser()
    return "unknown"
