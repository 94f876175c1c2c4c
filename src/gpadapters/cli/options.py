"""The settings of the planner: one table that the flags, the configuration file and their checks are made from.

Rules of this file: a setting has one name everywhere (`--max-total-gpus` and `max-total-gpus:`) and one reader for
both. Everything that is wrong is told at once. -1 for "no bound" ends here.
"""

import argparse
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from gpadapters.cli import readers
from gpadapters.cli.readers import OFF, Address, LedgerPlace, Reader, names, number, one_of, shown, some_of, switch
from gpcore.budgets import Budget
from gpcore.control import Rules
from gpcore.errors import ConfigError, InvalidError
from gpcore.holding import Limits
from gpcore.leases import Timing
from gpcore.management import Management
from gpcore.requests import Claimed

_DYNAMO_NAMESPACE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?")
"""What Dynamo's runtime takes as a part of an address, whose parts have dots between them."""


@attrs.frozen
class Settings:
    """Hold what one planner is started with, free of contradictions."""

    environment: str
    rules: Rules
    ledger: LedgerPlace
    domain: str
    elects: bool
    timing: Timing
    advertised: str | None
    transports: frozenset[str]
    dynamo_namespace: str | None
    listen: Address
    no_operation: bool
    insecure_no_auth: bool
    log_format: str
    home: str | None
    namespaces: tuple[str, ...] | None
    kubeconfig: Path | None
    context: str | None
    fleet: Path | None
    release: str
    audit_log: Path | None


@attrs.frozen
class Option:
    """Describe one setting: its name, what it means, and how a flag's text and a file's value become it."""

    name: str
    read: Reader
    help: str
    default: Any = None
    parse: Reader = str
    nargs: str | None = None
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """Return the flag of the command line."""
        return f"--{self.name}"

    @property
    def described(self) -> str:
        """Return the help with the default, where one says something."""
        shown_default = ",".join(sorted(self.default)) if isinstance(self.default, frozenset) else self.default
        return f"{self.help} (default: {shown_default})" if self.default else self.help


def settings(arguments: Sequence[str], *, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return what *arguments*, and the file that they name, say; or raise `ConfigError` with every problem."""
    return settled(parser().parse_args(arguments), environ=environ)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `gpctl planner`."""
    made = argparse.ArgumentParser(
        prog="gpctl planner",
        description="Run the global planner: decide scale requests under one GPU budget and carry them out.",
        epilog="Exit codes: 0 stopped by a signal, 1 it could not run, 2 the configuration is wrong.",
        allow_abbrev=False,
    )
    add_flags(made)
    return made


def add_flags(made: argparse.ArgumentParser) -> None:
    """Add the planner's flags to *made*."""
    group = made.add_argument_group("planner")
    group.add_argument("--config", action="append", metavar="FILE", help="YAML or JSON with these settings by name")
    for option in OPTIONS:  # appended, so that what is given twice is told and not dropped
        if option.read is switch:
            group.add_argument(option.flag, action="append_const", const=True, help=option.described)
        else:
            group.add_argument(
                option.flag, action="append", nargs=option.nargs, metavar=option.metavar, help=option.described
            )


def settled(given: argparse.Namespace, *, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of parsed flags, or raise `ConfigError` with every problem."""
    problems: list[str] = []
    values: dict[str, Any] = {option.name: option.default for option in OPTIONS}
    values |= _of_file(given.config or [], problems)
    values |= _of_flags(given, problems)
    problems += _contradictions(values, environ)
    if problems:
        raise ConfigError(problems)
    return _settings(values, environ)


def _settings(values: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    low, high, here = values["min-total-gpus"], values["max-total-gpus"], environ.get("POD_NAMESPACE")
    return Settings(
        environment=values["environment"],
        rules=Rules(
            Management(_set(values["managed-namespaces"]), _set(values["callers"])),
            Budget(_bound(low) or 0, _bound(high)),
            intent_ttl_s=values["intent-cache-ttl-seconds"],
            deadline_s=values["deadline-seconds"],
            limits=Limits(
                _bound(values["max-gpus-moved"]), _bound(values["max-changes"]), window_s=values["window-seconds"]
            ),
        ),
        ledger=values["ledger"],
        domain=values["budget-domain"],
        elects=not values["no-leader-election"],
        timing=_timing(values),
        advertised=values["advertise"] or _of_pod(values["listen"], environ),
        transports=values["transport"],
        dynamo_namespace=environ.get("DYN_NAMESPACE") or None,
        listen=values["listen"],
        no_operation=values["no-operation"],
        insecure_no_auth=values["insecure-no-auth"],
        log_format=values["log-format"],
        home=here,
        namespaces=values["kubernetes-namespaces"] or ((here,) if here else None),
        kubeconfig=values["kubeconfig"],
        context=values["context"],
        fleet=values["fleet"],
        release=values["confirm-release"],
        audit_log=values["audit-log"],
    )


def _of_flags(given: argparse.Namespace, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the settings that the command line gives."""
    for option in OPTIONS:
        texts = getattr(given, option.name.replace("-", "_")) or []
        if len(texts) > 1:
            problems.append(f"{option.flag} is given {len(texts)} times")
        for text in texts[-1:]:
            with _Noting(problems, f"{option.flag}: "):
                yield option.name, option.read(option.parse(text))


def _of_file(paths: Sequence[str], problems: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the settings that the file gives."""
    if len(paths) > 1:
        problems.append(f"--config is given {len(paths)} times")
    for path in paths[-1:]:
        with _Noting(problems):
            for name, value in _content(path).items():
                yield from _of_entry(path, name, value, problems)


def _content(path: str) -> dict[Any, Any]:
    from gpadapters.cli.files import load  # noqa: PLC0415 (a start without a file needs no YAML)

    content = load(Path(path))
    if not isinstance(content, dict):
        raise ConfigError([f"{path}: must hold settings by name: {shown(content)}"])
    return content


def _of_entry(path: str, name: object, value: object, problems: list[str]) -> Iterator[tuple[str, Any]]:
    option = next((option for option in OPTIONS if option.name == name), None)
    if option is None:
        problems.append(f"{path}: unknown setting {shown(name)} @ ${_suggestion(str(name))}")
        return
    with _Noting(problems, f"{path}: ", f" @ $.{name}"):
        yield option.name, option.read(value)


@attrs.frozen
class _Noting:
    """Note an `InvalidError` among *problems*, each between *before* and *after*, and go on."""

    problems: list[str]
    before: str = ""
    after: str = ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, exc: BaseException | None, __: TracebackType | None) -> bool:
        if not isinstance(exc, InvalidError):
            return False
        self.problems.extend(f"{self.before}{problem}{self.after}" for problem in exc.problems)
        return True


_OF_KUBERNETES = {"kubernetes-namespaces": None, "kubeconfig": None, "context": None, "confirm-release": "status"}


def _contradictions(values: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what settings, and the environment, say against each other."""
    low, high = values["min-total-gpus"], values["max-total-gpus"]
    if OFF < high < low:
        yield f"--min-total-gpus ({low}) must be at most --max-total-gpus ({high})"
    memory = values["environment"] == "memory"
    if memory and values["fleet"] is None:
        yield "--environment memory needs --fleet FILE, the deployments to start with"
    if not memory and values["fleet"] is not None:
        yield "--fleet is for --environment memory; a Kubernetes cluster has its own deployments"
    for name, unset in _OF_KUBERNETES.items():
        if memory and values[name] != unset:
            yield f"--{name} is for --environment kubernetes"
    with_ledger = values["ledger"].kind
    if memory and with_ledger == "kubernetes":
        yield "--ledger kubernetes is for --environment kubernetes"
    if values["no-operation"] and with_ledger not in ("auto", "kubernetes"):
        yield f"--no-operation writes nothing, so --ledger {values['ledger']} has nothing to keep"
    problems: list[str] = []
    with _Noting(problems, "--lease-...-seconds: "):
        _timing(values)
    yield from problems
    if "dynamo" in values["transport"] and not _DYNAMO_NAMESPACE.fullmatch(environ.get("DYN_NAMESPACE", "")):
        found = readers.shown(environ.get("DYN_NAMESPACE"))
        yield f"--transport dynamo serves in the Dynamo namespace DYN_NAMESPACE, letters, digits, '-' and '_': {found}"
    # Probes and metrics are for everybody who may connect.
    if "http" in values["transport"] and not values["listen"].loopback and not values["insecure-no-auth"]:
        yield (
            f"--listen {values['listen']} is reached by other machines, and callers are not authenticated: "
            "say --insecure-no-auth if something else keeps strangers out"
        )


def _timing(values: Mapping[str, Any]) -> Timing:
    return Timing(*(values[f"lease-{name}-seconds"] for name in ("duration", "deadline", "retry")))


def _bound(number: int) -> int | None:
    return None if number == OFF else number


def _of_pod(listen: Address, environ: Mapping[str, str]) -> str | None:
    """Return the URL at which other pods reach this one, where it is known."""
    ip = environ.get("POD_IP")
    return f"http://{Address(ip, listen.port)}" if ip else None


def _set(values: Sequence[str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(values)


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name.replace("_", "-").lower(), [option.name for option in OPTIONS], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


OPTIONS = (
    Option(
        "managed-namespaces",
        names(Claimed),
        "Dynamo namespaces whose deployments count, and which may each ask for their own; "
        "left out: every deployment counts and everybody may ask; an empty list: nobody",
        parse=list,
        nargs="*",
        metavar="NAME",
    ),
    Option(
        "callers",
        names(Claimed),
        "Dynamo namespaces that may ask for every deployment that counts (default: see --managed-namespaces)",
        parse=list,
        nargs="*",
        metavar="NAME",
    ),
    Option(
        "environment",
        one_of("kubernetes", "memory"),
        "where the replicas are: a Kubernetes cluster, or this process, to try things out",
        "kubernetes",
        metavar="{kubernetes,memory}",
    ),
    Option(
        "no-operation", switch, "decide and answer, but write nothing and remember no wish", default=False, parse=bool
    ),
    Option("max-total-gpus", readers.bound("GPUs"), "the ceiling; -1: none", OFF, number(int), metavar="GPUS"),
    Option("min-total-gpus", readers.bound("GPUs"), "the floor; -1: none", OFF, number(int), metavar="GPUS"),
    Option(
        "intent-cache-ttl-seconds",
        readers.seconds,
        "how long a refused wish may be paired with an opposite request",
        360.0,
        number(float),
        metavar="SECONDS",
    ),
    Option(
        "deadline-seconds",
        readers.seconds,
        "how long an operation waits for GPUs to come free before what it has released is given back",
        1800.0,
        number(float),
        metavar="SECONDS",
    ),
    Option(
        "confirm-release",
        one_of("spec", "status", "pods"),
        "what says that GPUs came free, so that another pool may have them: that nobody asks for them (spec), that the "
        "operator shows them no more (status), or that the pods are gone, too (pods)",
        "status",
        metavar="{spec,status,pods}",
    ),
    Option(
        "audit-log",
        readers.path,
        "the file that gets a line of JSON for each operation that ended (default: standard output)",
        metavar="FILE",
    ),
    Option(
        "max-gpus-moved",
        readers.bound("GPUs"),
        "how many GPUs may change hands within --window-seconds, counted at both pools of a transfer; -1: any number",
        OFF,
        number(int),
        metavar="GPUS",
    ),
    Option(
        "max-changes",
        readers.bound("changes"),
        "how often each pool may change within --window-seconds; -1: any number",
        OFF,
        number(int),
        metavar="NUMBER",
    ),
    Option(
        "window-seconds",
        readers.seconds,
        "the time that --max-gpus-moved and --max-changes look back",
        300.0,
        number(float),
        metavar="SECONDS",
    ),
    Option(
        "ledger",
        readers.ledger_place,
        "where what is promised is on record before it is written: kubernetes (a GPULedger object), memory (lost with "
        "the process: one planner alone), or sqlite:FILE; auto: where the environment has it",
        LedgerPlace("auto"),
        metavar="PLACE",
    ),
    Option(
        "budget-domain",
        readers.object_name,
        "the name of the ledger; planners with one ceiling have one ledger, and those with another have another",
        "default",
        metavar="NAME",
    ),
    Option(
        "no-leader-election",
        switch,
        "decide without asking whether another planner does; correct, and slower where one does",
        default=False,
        parse=bool,
    ),
    Option(
        "lease-duration-seconds",
        readers.seconds,
        "how long after a leader's last sign of life another may take over",
        15.0,
        number(float),
        metavar="SECONDS",
    ),
    Option(
        "lease-deadline-seconds",
        readers.seconds,
        "how long a leader that cannot renew its lease goes on leading",
        10.0,
        number(float),
        metavar="SECONDS",
    ),
    Option(
        "lease-retry-seconds",
        readers.seconds,
        "how often the lease is renewed, or tried for",
        2.0,
        number(float),
        metavar="SECONDS",
    ),
    Option(
        "advertise",
        readers.url,
        "the URL at which callers that asked another planner reach this one (default: POD_IP and the port of --listen, "
        "else where it listens)",
        metavar="URL",
    ),
    Option(
        "transport",
        some_of("http", "dynamo"),
        "what callers speak: HTTP, Dynamo's own runtime as DYN_NAMESPACE, or both",
        frozenset({"http"}),
        metavar="{http,dynamo}",
    ),
    Option(
        "listen",
        readers.address,
        "where the HTTP API listens; port 0 takes a free one; without --transport http: probes and metrics alone",
        Address("127.0.0.1", 8080),
        metavar="HOST:PORT",
    ),
    Option(
        "insecure-no-auth",
        switch,
        "allow --listen on an address that other machines reach, although callers are not authenticated",
        default=False,
        parse=bool,
    ),
    Option(
        "kubernetes-namespaces",
        names(readers.kubernetes_namespace),
        "Kubernetes namespaces to watch (default: POD_NAMESPACE, else the kubeconfig's, else 'default')",
        parse=list,
        nargs="+",
        metavar="NAME",
    ),
    Option(
        "kubeconfig",
        readers.path,
        "how to reach the cluster (default: the pod's own account, else KUBECONFIG)",
        metavar="FILE",
    ),
    Option("context", readers.text, "the context of the kubeconfig (default: its current one)", metavar="NAME"),
    Option(
        "fleet", readers.path, "YAML or JSON with the deployments that --environment memory starts with", metavar="FILE"
    ),
    Option("log-format", one_of("text", "json"), "how log lines look", "text", metavar="{text,json}"),
)
"""Every setting of the planner but --config."""
