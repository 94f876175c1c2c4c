"""`gpctl wait`: wait until an operation has ended, whoever carries it on.

Rules of this file: a planner that cannot be asked for a while is asked again, since another may be taking over.
"""

import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from gpadapters.cli.asking import SERVER, How, Json, Server, ask, content
from gpadapters.cli.faults import FAILED, LATE, CommandError
from gpadapters.cli.output import Output, changes, say, show

if TYPE_CHECKING:
    from gpadapters.http.client import Answer

_PAUSE_S = 0.5
_ASKED_S = 10.0


def wait(
    identity: Annotated[str, typer.Argument(metavar="OPERATION", help="The id of an operation, as answers have it.")],
    *,
    server: Server = SERVER,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.001, help="How long to wait for the end.")
    ] = 600.0,
    output: How = Output.TABLE,
) -> None:
    """Wait until an operation has ended: 0 as asked, 1 otherwise, 3 not within --timeout."""
    document = _ended(server, identity, time.monotonic() + timeout)
    if document is None:
        raise CommandError(f"operation {identity!a} has not ended within {timeout:g} s", code=LATE)
    if output in {Output.TABLE, Output.WIDE}:
        say([f"{document['status']}: {document['message'] or document['written']}", *_planned(document)])
    else:
        show(document, output=output)
    if document["status"] != "success":
        raise typer.Exit(FAILED)


def _planned(document: Json) -> list[str]:
    return [f"  {changes(document['plan'])}"] if document["plan"] else []


def _ended(server: str, identity: str, until: float) -> Json | None:
    """Return the operation when it has ended, or None where it has not by then."""
    while (left_s := until - time.monotonic()) > 0:
        answer = _asked(server, f"/v1/operations/{quote(identity, safe='')}", min(left_s, _ASKED_S))
        if answer is not None and answer.code < HTTPStatus.INTERNAL_SERVER_ERROR:
            document: Json = content(answer)
            if document["status"] != "scaling":
                return document
        time.sleep(max(0.0, min(_PAUSE_S, until - time.monotonic())))
    return None


def _asked(server: str, path: str, timeout_s: float) -> "Answer | None":
    from gpadapters.http.client import UnreachableError  # noqa: PLC0415 (the help asks nobody)

    try:
        return ask(server, "GET", path, timeout_s=timeout_s)
    except UnreachableError:
        return None
