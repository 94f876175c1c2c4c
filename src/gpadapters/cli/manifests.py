"""`gpctl manifests`: what runs the planner in a cluster, as objects to apply.

Rules of this file: the planner's flags are given as to `gpctl planner` and checked by the same code, so what would
not start is not printed.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from gpadapters.cli.options import OPTIONS, Settings, add_flags, settled
from gpadapters.cli.readers import kubernetes_namespace, shown, switch
from gpadapters.kubernetes.crd import definition
from gpadapters.kubernetes.manifests import Values, planner
from gpcore.errors import ConfigError, InvalidError

_ACCOUNT_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")

_MOST_REPLICAS = 10  # all but one of them wait, and look at the lease every two seconds

_NOT_IN_A_POD = {
    "advertise": "the pod tells the address that it is given",
    "audit_log": "the pod has no disk of its own, and prints the lines",
    "config": "there is no such file in the pod; give its settings as flags",
    "context": "the pod has its own account",
    "fleet": "the pod works on its cluster",
    "insecure_no_auth": "it is always set, and visible in the Deployment, until callers are authenticated",
    "kubeconfig": "the pod has its own account",
    "listen": "the pod listens on every address of its own; --port says on which port",
    "transport": "the pod has no part in Dynamo's discovery; a pod of Dynamo's operator has (docs/howto/dynamo.md)",
}


def main(arguments: list[str]) -> int:
    """Run `gpctl manifests`."""
    given = parser().parse_args(arguments)
    objects = [definition(), *planner(_values(given))]
    sys.stdout.write(printed(objects, given.output))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of `gpctl manifests`."""
    made = argparse.ArgumentParser(
        prog="gpctl manifests planner",
        usage="gpctl manifests planner [--namespace NAME] [--image IMAGE | --service-account NAME] [-o yaml|json] "
        "[the planner's flags]",
        description="Print what runs the planner in a cluster: the definition of its ledger, ServiceAccount, Role and "
        "RoleBinding (one pair for each Kubernetes namespace that it watches, and one for its ledger), Deployment, "
        "Service, NetworkPolicy.",
        epilog="Apply with: gpctl manifests planner ... | kubectl apply -f -",
        allow_abbrev=False,
    )
    made.add_argument("what", choices=["planner"], metavar="planner", help="what to run")
    made.add_argument(
        "--name", default="global-planner", metavar="NAME", help="name of every object (default: global-planner)"
    )
    made.add_argument("--namespace", "-n", default="default", metavar="NAME", help="where it runs (default: default)")
    made.add_argument(
        "--image",
        default=f"gpcore:{version('gpcore')}",
        metavar="IMAGE",
        help="image with gpctl (default: gpcore, tagged with this version)",
    )
    made.add_argument(
        "--replicas",
        type=int,
        default=1,
        metavar="NUMBER",
        help="how many planners run; one of them decides, and another takes over when it fails (default: 1)",
    )
    made.add_argument("--port", type=int, default=8080, metavar="PORT", help="port of the HTTP API (default: 8080)")
    made.add_argument(
        "--allow-namespaces",
        nargs="+",
        default=[],
        metavar="NAME",
        help="namespaces whose every pod may connect, as where Prometheus runs; Dynamo's planners always may",
    )
    made.add_argument(
        "--service-account",
        metavar="NAME",
        help="print no more than the ledger and the rights of this account of --namespace, for a planner that runs, as "
        "planner-serviceaccount in a pod of Dynamo's operator",
    )
    add_form(made, "them")
    add_flags(made)
    return made


def _values(given: argparse.Namespace) -> Values:
    problems = list(_problems(given))
    settings: Settings | None = None
    try:
        settings = settled(given, environ={"POD_NAMESPACE": given.namespace})
    except ConfigError as exc:
        problems += exc.problems
    if problems or settings is None:
        raise ConfigError(problems)
    return Values(
        name=given.name,
        namespace=given.namespace,
        image=given.image,
        version=version("gpcore"),
        port=given.port,
        replicas=given.replicas,
        domain=settings.domain,
        shared=settings.ledger.kind in {"auto", "kubernetes"},
        watched=settings.namespaces or (given.namespace,),
        allowed=tuple(given.allow_namespaces),
        arguments=tuple(_arguments(given)),
        pods=settings.release == "pods",
        account=given.service_account,
    )


def _problems(given: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with the flags that are not the planner's, and those of the planner that a pod has not."""
    for name, why in _NOT_IN_A_POD.items():
        if getattr(given, name):
            yield f"--{name.replace('_', '-')} is not for manifests: {why}"
    if given.environment == ["memory"]:
        yield "--environment memory is not for manifests: the pod works on its cluster"
    yield from _problems_of_several(given)
    if not 0 < given.port < 1 << 16:
        yield f"--port must be 1 to 65535: {given.port}"
    for flag, name in [
        ("--namespace", given.namespace),
        *(("--allow-namespaces", name) for name in given.allow_namespaces),
    ]:
        try:
            kubernetes_namespace(name)
        except InvalidError as exc:
            yield from (f"{flag}: {problem}" for problem in exc.problems)
    if given.service_account is not None and not _ACCOUNT_NAME.fullmatch(given.service_account):
        yield f"--service-account must be the name of a ServiceAccount: {shown(given.service_account)}"
    if not _SERVICE_NAME.fullmatch(given.name):
        yield f"--name must be at most 63 of a-z, 0-9 and '-', beginning with a letter: {shown(given.name)}"


def _problems_of_several(given: argparse.Namespace) -> Iterator[str]:
    """Yield why so many planners cannot share what they promise."""
    ledger = "".join(given.ledger or ())
    if ledger.startswith("sqlite"):
        yield "--ledger sqlite is not for manifests: the pod has no disk of its own"
    if not 1 <= given.replicas <= _MOST_REPLICAS:
        yield f"--replicas must be 1 to {_MOST_REPLICAS}: {given.replicas}"
    elif given.replicas > 1 and ledger == "memory":
        yield f"--replicas must be 1 with --ledger memory, which planners do not share: {given.replicas}"


def _arguments(given: argparse.Namespace) -> Iterator[str]:
    """Yield the planner's flags as they were given."""
    for option in OPTIONS:
        for value in getattr(given, option.name.replace("-", "_")) or []:
            yield option.flag
            if option.nargs is not None:
                yield from value
            elif option.read is not switch:
                yield value


def add_form(made: argparse.ArgumentParser, what: str) -> None:
    """Add to *made* the flag that says how to print *what*."""
    made.add_argument(
        "--output",
        "-o",
        choices=["yaml", "json"],
        default="yaml",
        metavar="{yaml,json}",
        help=f"how to print {what} (default: yaml)",
    )


def printed(objects: list[dict[str, Any]], form: str) -> str:
    """Return *objects* as one list in JSON, or as YAML, a document each."""
    if form == "json":
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2) + "\n"
    import yaml  # noqa: PLC0415 (JSON needs nothing but Python)

    text: str = yaml.safe_dump_all(objects, explicit_start=True, sort_keys=False, width=120)
    return text
