"""The commands for people: ask a running planner, and show what it says.

Rules of this file: what the planner answers is shown and not judged; only the exit code is derived from it. Answers
go to stdout, everything else to stderr.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gpadapters.cli.asking import SERVER, TIMEOUT_S, How, Json, Server, Timeout, ask, content, problems
from gpadapters.cli.faults import FAILED, USAGE, CommandError
from gpadapters.cli.freezes import freeze, thaw
from gpadapters.cli.grid import app as grid
from gpadapters.cli.output import Output, change, changes, moment, say, show, targets
from gpadapters.cli.resources import COLUMNS, Resource
from gpadapters.cli.waiting import wait

if TYPE_CHECKING:  # what only names types here takes longer to load than the help takes to show
    from gpadapters.http.client import Answer

app = typer.Typer(
    name="gpctl",
    help="Share one GPU budget between deployments: run the global planner, and ask it.",
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not done in time. NO_COLOR turns colours off.",
    no_args_is_help=True,
    rich_markup_mode=None,  # boxes would take longer to load than all the rest
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(grid)

_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""For commands that parse their own arguments."""

_MAX_DIGITS = 18
_BLOCKING_S = 1_900.0  # the server ends a blocking request after 1,800 s, and says how it stands


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
def scale(  # noqa: PLR0913 (each is a flag)
    participant: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", help="The deployment to scale.")],
    asked: Annotated[list[str], typer.Argument(metavar="ROLE=REPLICAS...", help="As in prefill=3 decode=5.")],
    *,
    caller: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who asks (default: NAMESPACE-NAME, its own planner).")
    ] = None,
    blocking: Annotated[bool, typer.Option("--blocking", help="Wait until the replicas serve.")] = False,
    request_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Names the request: sent again, it has one effect and one answer.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide only; nothing is changed or remembered.")] = False,
    server: Server = SERVER,
    timeout: Timeout = TIMEOUT_S,
    output: How = Output.TABLE,
) -> None:
    """Ask for replicas of one deployment's pools, all or none."""
    request = _request(participant, asked, caller)
    if request_id is not None:
        request["request_id"] = request_id
    if dry_run:
        answer = ask(server, "POST", "/v1/decide", request, timeout_s=timeout)
    else:
        wait_s = max(timeout, _BLOCKING_S) if blocking else timeout
        request["blocking"] = blocking
        answer = ask(server, "POST", "/v1/scale", request, timeout_s=wait_s)
    _show_result(answer, output)


@app.command()
def get(
    resource: Annotated[Resource, typer.Argument(metavar="RESOURCE", help=f"One of {', '.join(Resource)}.")],
    *,
    server: Server = SERVER,
    timeout: Timeout = TIMEOUT_S,
    output: How = Output.TABLE,
) -> None:
    """Show pools, the budget, decisions, operations, freezes or conditions."""
    document = content(ask(server, "GET", f"/v1/{resource}", timeout_s=timeout))
    rows = [document] if resource is Resource.BUDGET else document[resource]
    show(document, output=output, rows=rows, columns=COLUMNS[resource])


@app.command()
def explain(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The id of a decision, as answers and logs have it.")],
    *,
    server: Server = SERVER,
    timeout: Timeout = TIMEOUT_S,
    output: How = Output.TABLE,
) -> None:
    """Say what was decided on a request, and why."""
    document = content(ask(server, "GET", f"/v1/decisions/{quote(identity, safe='')}", timeout_s=timeout))
    if output in {Output.TABLE, Output.WIDE}:
        say(_explanation(document))
    else:
        show(document, output=output)


app.command()(wait)
app.command()(freeze)
app.command()(thaw)


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


def _show_result(answer: "Answer", output: Output) -> None:
    """Show how a request was decided; where it was not as asked, end with 1."""
    document = answer.document
    if output in {Output.JSON, Output.YAML}:
        show(document, output=output)
    elif "plan" in document:
        say(_result(document))
    else:
        raise CommandError(*problems(answer))
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
