"""How the commands for people ask a planner.

Rules of this file: what it answers is handed on and not judged; only an answer without content ends a command.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from gpadapters.cli.faults import USAGE, CommandError
from gpadapters.cli.output import Output, plain

if TYPE_CHECKING:  # what only names types here takes longer to load than the help takes to show
    from gpadapters.http.client import Answer

Json = Mapping[str, Any]

Server = Annotated[
    str, typer.Option("--server", "-s", metavar="URL", envvar="GPCTL_SERVER", help="Where the planner listens.")
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.001, help="How long to wait for it.")]
How = Annotated[
    Output, typer.Option("--output", "-o", metavar="{table,wide,json,yaml}", help="How to show the answer.")
]

SERVER = "http://127.0.0.1:8080"
TIMEOUT_S = 30.0


def ask(server: str, method: str, path: str, document: Json | None = None, *, timeout_s: float) -> "Answer":
    """Ask the planner at *server*."""
    if urlsplit(server).scheme not in {"http", "https"} or not urlsplit(server).hostname:
        raise CommandError(f"--server must be an http or https URL: {server!a}", code=USAGE)
    from gpadapters.http.client import Client  # noqa: PLC0415 (the help asks nobody)

    with Client(server, timeout_s=timeout_s) as client:
        return client.ask(method, path, document)


def content(answer: "Answer") -> Any:  # noqa: ANN401 (whatever JSON the planner answers)
    """Return the document of *answer*, or end with what is wrong."""
    if answer.code >= HTTPStatus.BAD_REQUEST:
        raise CommandError(*problems(answer))
    return answer.document


def problems(answer: "Answer") -> Sequence[str]:
    """Return what *answer* says is wrong, one line each."""
    found = answer.document.get("problems") or [answer.message or f"the planner answered {answer.code}"]
    return [plain(problem) for problem in found]
