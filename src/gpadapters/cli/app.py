"""The commands for people: ask a running planner, and show what it says.

Rules of this file: what the planner answers is shown and not judged; only the exit code is derived from it. Answers
go to stdout, everything else to stderr.
"""

import enum
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

import typer

from gpadapters.cli.faults import FAILED, USAGE, CommandError
from gpadapters.cli.grid import app as grid
from gpadapters.cli.output import Column, Output, change, changes, moment, plain, say, show, targets

if TYPE_CHECKING:  # what only names types here takes longer to load than the help takes to show
    from gpadapters.http.client import Answer

Json = Mapping[str, Any]

app = typer.Typer(
    name="gpctl",
    help="Share one GPU budget between deployments: run the global planner, and ask it.",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage. NO_COLOR turns colours off.",
    no_args_is_help=True,
    rich_markup_mode=None,  # boxes would take longer to load than all the rest
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(grid)

_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""For commands that parse their own arguments."""

Server = Annotated[
    str, typer.Option("--server", "-s", metavar="URL", envvar="GPCTL_SERVER", help="Where the planner listens.")
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.001, help="How long to wait for it.")]
How = Annotated[
    Output, typer.Option("--output", "-o", metavar="{table,wide,json,yaml}", help="How to show the answer.")
]

_SERVER = "http://127.0.0.1:8080"
_TIMEOUT_S = 30.0
_MAX_DIGITS = 18
_BLOCKING_S = 1_900.0  # the server ends a blocking request after 1,800 s, and says how it stands


class Resource(enum.StrEnum):
    """What there is to get."""

    POOLS = "pools"
    BUDGET = "budget"
    DECISIONS = "decisions"
    OPERATIONS = "operations"


def main(arguments: list[str]) -> int:
    """Run one of these commands and return its exit code."""
    code = app(arguments, prog_name="gpctl", standalone_mode=True)
    return code if isinstance(code, int) else 0


@app.callback(invoke_without_command=True)
def _gpctl(
    *,
    version_: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version_:
        from importlib.metadata import version  # noqa: PLC0415 (slow to load)

        sys.stdout.write(f"gpctl {version('gpcore')}\n")
        raise typer.Exit


@app.command(context_settings=_PASSED_ON)
def planner(context: typer.Context) -> None:
    """Run the global planner."""
    raise typer.Exit(import_module("gpadapters.cli.planner").main(context.args))


@app.command()
def scale(
    participant: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", help="The deployment to scale.")],
    asked: Annotated[list[str], typer.Argument(metavar="ROLE=REPLICAS...", help="As in prefill=3 decode=5.")],
    *,
    caller: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who asks (default: NAMESPACE-NAME, its own planner).")
    ] = None,
    blocking: Annotated[bool, typer.Option("--blocking", help="Wait until the replicas serve.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide only; nothing is changed or remembered.")] = False,
    server: Server = _SERVER,
    timeout: Timeout = _TIMEOUT_S,
    output: How = Output.TABLE,
) -> None:
    """Ask for replicas of one deployment's pools, all or none."""
    request = _request(participant, asked, caller)
    if dry_run:
        answer = _ask(server, "POST", "/v1/decide", request, timeout_s=timeout)
    else:
        wait_s = max(timeout, _BLOCKING_S) if blocking else timeout
        request["blocking"] = blocking
        answer = _ask(server, "POST", "/v1/scale", request, timeout_s=wait_s)
    _show_result(answer, output)


@app.command()
def get(
    resource: Annotated[
        Resource, typer.Argument(metavar="RESOURCE", help="One of pools, budget, decisions, operations.")
    ],
    *,
    server: Server = _SERVER,
    timeout: Timeout = _TIMEOUT_S,
    output: How = Output.TABLE,
) -> None:
    """Show pools, budget, decisions or operations."""
    document = _content(_ask(server, "GET", f"/v1/{resource}", timeout_s=timeout))
    rows = [document] if resource is Resource.BUDGET else document[resource]
    show(document, output=output, rows=rows, columns=_COLUMNS[resource])


@app.command()
def explain(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The id of a decision, as answers and logs have it.")],
    *,
    server: Server = _SERVER,
    timeout: Timeout = _TIMEOUT_S,
    output: How = Output.TABLE,
) -> None:
    """Say what was decided on a request, and why."""
    document = _content(_ask(server, "GET", f"/v1/decisions/{quote(identity, safe='')}", timeout_s=timeout))
    if output in {Output.TABLE, Output.WIDE}:
        say(_explanation(document))
    else:
        show(document, output=output)


@app.command(context_settings=_PASSED_ON)
def decide(context: typer.Context) -> None:
    """Decide scenarios from JSON, without a planner."""
    raise typer.Exit(import_module("gpadapters.cli.decide").main(context.args))


@app.command(context_settings=_PASSED_ON)
def router(context: typer.Context) -> None:
    """Run the global router."""
    raise typer.Exit(import_module("gpadapters.cli.router").main(context.args))


@app.command(context_settings=_PASSED_ON)
def route(context: typer.Context) -> None:
    """Say where the router sends requests that are given as JSON, one a line."""
    raise typer.Exit(import_module("gpadapters.cli.route").main(context.args))


@app.command(context_settings=_PASSED_ON)
def manifests(context: typer.Context) -> None:
    """Print what runs the planner in a Kubernetes cluster."""
    raise typer.Exit(import_module("gpadapters.cli.manifests").main(context.args))


@app.command(context_settings=_PASSED_ON)
def crd(context: typer.Context) -> None:
    """Print the definition of the planner's ledger, for a Kubernetes cluster."""
    raise typer.Exit(import_module("gpadapters.cli.crd").main(context.args))


def _request(participant: str, asked: Sequence[str], caller: str | None) -> dict[str, Any]:
    """Return the request in the form that the planner reads, who judges what is in it."""
    namespace, slash, name = participant.partition("/")
    if not slash:
        raise CommandError(f"what to scale is written NAMESPACE/NAME: {participant!a}", code=USAGE)
    wished = [_target(text) for text in asked]
    if len(dict(wished)) < len(wished):
        raise CommandError(f"each role is asked for once: {' '.join(asked)!a}", code=USAGE)
    return {
        "caller_namespace": caller or f"{namespace}-{name}",
        "graph_deployment_name": name,
        "k8s_namespace": namespace,
        "target_replicas": [{"sub_component_type": role, "desired_replicas": count} for role, count in wished],
    }


def _target(text: str) -> tuple[str, int]:
    role, _, count = text.partition("=")
    if role not in {"prefill", "decode"} or not (count.isascii() and count.isdigit()) or len(count) > _MAX_DIGITS:
        raise CommandError(f"what to ask for is written prefill=REPLICAS or decode=REPLICAS: {text!a}", code=USAGE)
    from gpcore.pools import MAX_REPLICAS  # noqa: PLC0415 (the help counts nothing)

    if int(count) > MAX_REPLICAS:
        raise CommandError(f"replicas must be between 0 and {MAX_REPLICAS}: {text!a}", code=USAGE)
    return role, int(count)


def _ask(server: str, method: str, path: str, document: Json | None = None, *, timeout_s: float) -> "Answer":
    """Ask the planner at *server*."""
    if urlsplit(server).scheme not in {"http", "https"} or not urlsplit(server).hostname:
        raise CommandError(f"--server must be an http or https URL: {server!a}", code=USAGE)
    from gpadapters.http.client import Client  # noqa: PLC0415 (the help asks nobody)

    with Client(server, timeout_s=timeout_s) as client:
        return client.ask(method, path, document)


def _content(answer: "Answer") -> Any:  # noqa: ANN401 (whatever JSON the planner answers)
    """Return the document of *answer*, or end with what is wrong."""
    if answer.code >= HTTPStatus.BAD_REQUEST:
        raise CommandError(*_problems(answer))
    return answer.document


def _problems(answer: "Answer") -> Sequence[str]:
    found = answer.document.get("problems") or [answer.message or f"the planner answered {answer.code}"]
    return [plain(problem) for problem in found]


def _show_result(answer: "Answer", output: Output) -> None:
    """Show how a request was decided; where it was not as asked, end with 1."""
    document = answer.document
    if output in {Output.JSON, Output.YAML}:
        show(document, output=output)
    elif "plan" in document:
        say(_result(document))
    else:
        raise CommandError(*_problems(answer))
    if document.get("status") not in {"success", "scaling", "approved"}:
        raise typer.Exit(FAILED)


def _result(document: Json) -> list[str]:
    """Return what people want to know of an answer to a request."""
    said = [_sentence(document)]
    said += _steps(document.get("plan") or [])
    if document.get("operation_id") and document["status"] == "scaling":
        said.append(f"  it goes on as operation {document['operation_id']}")
    if document.get("decision_id"):
        said.append(f"  why: gpctl explain {document['decision_id']}")
    return said


def _explanation(record: Json) -> list[str]:
    """Return a decision as sentences."""
    asked = f"{record['participant']} {targets(record['targets'])}"
    said = [
        _sentence(record),
        f"  asked by {record['caller']} at {moment(record['at'])}: {asked}",
        *_steps(record["plan"]),
    ]
    reason = record["reason"] or {}
    nearest = (reason.get("nearest") or {}).get("own") or []
    said += [f"  reason: {reason['kind']}"] if reason else []
    said += [f"  nearest that fits: {', '.join(map(change, nearest))}"] if nearest else []
    said += [f"  carried out by operation {record['operation_id']}"] if record["operation_id"] else []
    return said


def _sentence(document: Json) -> str:
    """Return the message, which says itself when something is approved."""
    status, message = document["status"], document["message"]
    return str(message) if message.startswith(status) else f"{status}: {message}"


def _steps(plan: Sequence[Sequence[Json]]) -> list[str]:
    return [f"  step {at}: {changes([step])}" for at, step in enumerate(plan, start=1)]


_COLUMNS: Mapping[Resource, Sequence[Column]] = {
    Resource.POOLS: [
        Column("PARTICIPANT", lambda pool: pool["participant"]),
        Column("ROLE", lambda pool: pool["role"]),
        Column("REPLICAS", lambda pool: pool["replicas"]),
        Column("READY", lambda pool: pool["ready"]),
        Column("GPUS/REPLICA", lambda pool: pool["gpus_per_replica"]),
        Column("CHARGED", lambda pool: pool["charged_gpus"]),
        Column("PRESENT", lambda pool: pool["present"], wide=True),
        Column("RELAYED", lambda pool: pool["relayed"], wide=True),
        Column("RESERVED", lambda pool: pool["reserved"], wide=True),
        Column("COMPONENT", lambda pool: pool["component"], wide=True),
        Column("ADAPTER", lambda pool: pool["authority"], wide=True),
    ],
    Resource.BUDGET: [
        Column("FLOOR", lambda budget: budget["floor"]),
        Column("CEILING", lambda budget: budget["ceiling"]),
        Column("CHARGED", lambda budget: budget["charged"]),
        Column("HEADROOM", lambda budget: budget["headroom"]),
        Column("UNKNOWN SHAPES", lambda budget: budget["shape_unknown"]),
        Column("LEAST", lambda budget: budget["least"], wide=True),
        Column("INTENTS", lambda budget: budget["intents"], wide=True),
        Column("OPERATIONS", lambda budget: budget["operations"], wide=True),
    ],
    Resource.DECISIONS: [
        Column("ID", lambda decision: decision["id"]),
        Column("AT", lambda decision: moment(decision["at"])),
        Column("PARTICIPANT", lambda decision: decision["participant"]),
        Column("ASKED", lambda decision: targets(decision["targets"])),
        Column("STATUS", lambda decision: decision["status"]),
        Column("WHY", lambda decision: decision["message"]),
        Column("CALLER", lambda decision: decision["caller"], wide=True),
        Column("OPERATION", lambda decision: decision["operation_id"], wide=True),
    ],
    Resource.OPERATIONS: [
        Column("ID", lambda operation: operation["id"]),
        Column("STATUS", lambda operation: operation["status"]),
        Column("PARTICIPANT", lambda operation: operation["participant"]),
        Column("PLAN", lambda operation: changes(operation["plan"])),
        Column("BEGAN", lambda operation: moment(operation["began_at"])),
        Column("ENDED", lambda operation: moment(operation["ended_at"])),
        Column("MESSAGE", lambda operation: operation["message"], wide=True),
    ],
}
"""What people see of each resource."""
