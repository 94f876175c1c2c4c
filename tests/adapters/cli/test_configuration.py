"""What `gpctl planner` is started with: what it understands, and everything that it refuses, all at once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gpadapters.cli import main
from gpadapters.cli.options import OPTIONS, Settings, parser, settings
from gpadapters.cli.readers import Address
from gpcore.budgets import Budget
from gpcore.errors import ConfigError
from gpcore.holding import Limits
from gpcore.management import Management

GUIDE = ["--managed-namespaces", "llm-gp-prefill-0", "llm-gp-prefill-1", "llm-gp-decode-0"]
"""The arguments of the guide's GlobalPlanner, verbatim, with K8S_NAMESPACE=llm."""


def started_with(*arguments: str, **environ: str) -> Settings:
    return settings(arguments, environ=environ)


def problems_of(*arguments: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        started_with(*arguments)
    return refused.value.problems


def test_without_flags_everybody_may_ask_everything_counts_and_nothing_is_bounded() -> None:
    found = started_with()
    assert (found.rules.management, found.rules.budget) == (Management(), Budget())
    assert (found.environment, found.listen, found.no_operation) == ("kubernetes", Address("127.0.0.1", 8080), False)


def test_the_guides_arguments_are_understood_as_they_are() -> None:
    assert started_with(*GUIDE).rules.management == Management(frozenset(GUIDE[1:]))


def test_the_guides_budget_is_understood_beside_its_names() -> None:
    found = started_with(*GUIDE, "--max-total-gpus", "16", "--no-operation", "--environment", "kubernetes")
    assert (found.rules.management.managed, found.rules.budget.ceiling) == (frozenset(GUIDE[1:]), 16)
    assert found.no_operation


def test_an_explicitly_empty_list_means_nobody() -> None:
    assert started_with("--managed-namespaces", "--max-total-gpus", "8").rules.management == Management(frozenset())


def test_minus_one_means_no_bound_and_zero_means_no_gpu() -> None:
    assert started_with("--max-total-gpus", "-1", "--min-total-gpus", "-1").rules.budget == Budget()
    assert started_with("--max-total-gpus", "0").rules.budget == Budget(0, 0)


def test_the_pace_is_unbounded_unless_it_is_said() -> None:
    assert started_with().rules.limits == Limits()
    found = started_with("--max-gpus-moved", "8", "--max-changes", "0", "--window-seconds", "60").rules.limits
    assert (found.gpus, found.changes, found.window_s) == (8, 0, 60.0)


def test_the_pods_namespace_is_watched_unless_others_are_named() -> None:
    assert started_with(POD_NAMESPACE="llm").namespaces == ("llm",)
    assert started_with("--kubernetes-namespaces", "a", "b", POD_NAMESPACE="llm").namespaces == ("a", "b")
    assert started_with().namespaces is None


@pytest.mark.parametrize(("given", "host", "port"), [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:80", "::1", 80)])
def test_an_address_is_a_host_and_a_port(given: str, host: str, port: int) -> None:
    found = started_with("--listen", given).listen
    assert (found.host, found.port, str(found)) == (host, port, given)


@pytest.mark.parametrize("given", ["0.0.0.0:80", "[::]:80", ":80", "10.0.0.7:80", "planner.example:80"])
def test_an_address_that_others_reach_needs_a_word(given: str) -> None:
    (problem,) = problems_of("--listen", given)
    assert "callers are not authenticated" in problem
    assert started_with("--listen", given, "--insecure-no-auth").listen.port == 80


def test_http_is_spoken_unless_something_else_is_asked_for() -> None:
    assert started_with().transports == {"http"}
    both = started_with("--transport", "http,dynamo", DYN_NAMESPACE="infra")
    assert (both.transports, both.dynamo_namespace) == (frozenset({"http", "dynamo"}), "infra")


@pytest.mark.parametrize("name", ["", "a.b", "-a", "a b", "${NAME}"])
def test_dynamos_runtime_is_served_in_a_namespace_that_an_address_can_hold(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--transport dynamo serves in the Dynamo namespace DYN_NAMESPACE"):
        started_with("--transport", "dynamo", DYN_NAMESPACE=name)


def test_probes_and_metrics_alone_may_be_reached_by_everybody() -> None:
    found = started_with("--transport", "dynamo", "--listen", "0.0.0.0:8080", DYN_NAMESPACE="infra")
    assert not found.insecure_no_auth
    with pytest.raises(ConfigError, match="callers are not authenticated"):
        started_with("--transport", "http,dynamo", "--listen", "0.0.0.0:8080", DYN_NAMESPACE="infra")


BAD = {
    "pigeons": (["--transport", "http,pigeon"], "--transport: must be http or dynamo, or several with commas"),
    "one transport twice": (["--transport", "http,http"], "--transport: must be http or dynamo, or several"),
    "no transport": (["--transport", ""], "--transport: must be http or dynamo, or several"),
    "no Dynamo namespace": (["--transport", "dynamo"], "letters, digits, '-' and '_': None"),
    "floor above ceiling": (["--min-total-gpus", "8", "--max-total-gpus", "4"], "--min-total-gpus (8) must be at most"),
    "floor without room": (["--min-total-gpus", "1", "--max-total-gpus", "0"], "--min-total-gpus (1) must be at most"),
    "negative ceiling": (["--max-total-gpus", "-5"], "--max-total-gpus: must be a number of GPUs, or -1"),
    "negative floor": (["--min-total-gpus", "-2"], "--min-total-gpus: must be a number of GPUs, or -1"),
    "no pace": (["--max-gpus-moved", "-2"], "--max-gpus-moved: must be a number of GPUs, or -1 for no bound: -2"),
    "half a change": (["--max-changes", "0.5"], "--max-changes: must be a number of changes, or -1 for no bound"),
    "no window": (["--window-seconds", "0"], "--window-seconds: must be a number of seconds above 0: 0"),
    "words for GPUs": (["--max-total-gpus", "many"], "must be a number of GPUs, or -1 for no bound: 'many'"),
    "half a GPU": (["--max-total-gpus", "1.5"], "must be a number of GPUs, or -1 for no bound: '1.5'"),
    "no time": (["--intent-cache-ttl-seconds", "0"], "--intent-cache-ttl-seconds: must be a number of seconds above 0"),
    "less than no time": (["--intent-cache-ttl-seconds", "-1"], "must be a number of seconds above 0: -1.0"),
    "not a time": (["--intent-cache-ttl-seconds", "nan"], "must be a number of seconds above 0: nan"),
    "all eternity": (["--deadline-seconds", "inf"], "--deadline-seconds: must be a number of seconds above 0: inf"),
    "one name twice": (["--managed-namespaces", "a", "b", "a"], "--managed-namespaces: 'a' is named 2 times"),
    "a pattern": (["--managed-namespaces", "*"], "'*' is a pattern"),
    "an empty variable": (["--managed-namespaces", ""], "caller must be 1 to 317 letters"),
    "a variable": (["--managed-namespaces", "${K8S_NAMESPACE}-gp-prefill-0"], "a variable that was not filled in"),
    "callers twice": (["--callers", "a", "a"], "--callers: 'a' is named 2 times"),
    "not a namespace": (["--kubernetes-namespaces", "A_b"], "--kubernetes-namespaces: namespace must be an RFC 1123"),
    "another world": (["--environment", "virtual"], "--environment: must be kubernetes or memory: 'virtual'"),
    "a fleet for Kubernetes": (["--fleet", "f.yaml"], "--fleet is for --environment memory"),
    "memory without a fleet": (["--environment", "memory"], "--environment memory needs --fleet"),
    "memory with a context": (
        ["--environment", "memory", "--fleet", "f", "--context", "c"],
        "--context is for --environment kubernetes",
    ),
    "a flag twice": (["--max-total-gpus", "8", "--max-total-gpus", "16"], "--max-total-gpus is given 2 times"),
    "a number as Python writes it": (["--max-total-gpus", "1_000"], "must be a number of GPUs, or -1 for no bound"),
    "no port": (["--listen", "127.0.0.1"], "--listen: must be HOST:PORT"),
    "a port too high": (["--listen", "127.0.0.1:65536"], "--listen: must be HOST:PORT with a port of 0 to 65535"),
    "a bare IPv6 address": (["--listen", "::1:80"], "an IPv6 address is written in brackets"),
    "colourful logs": (["--log-format", "rainbow"], "--log-format: must be text or json"),
    "no such file": (["--config", "missing.yaml"], "missing.yaml: No such file or directory"),
}


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_refused_by_name_value_and_bound(name: str) -> None:
    arguments, expected = BAD[name]
    assert any(expected in problem for problem in problems_of(*arguments)), problems_of(*arguments)


def test_every_problem_is_told_at_once_and_the_exit_code_says_usage(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [argument for given, _ in BAD.values() if given[0] != "--managed-namespaces" for argument in given]
    assert main(["planner", "--managed-namespaces", "*", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) > 12
    assert all(line.startswith("gpctl: ") for line in told.err.splitlines())


@pytest.mark.parametrize("arguments", [["--max-total-gpu", "8"], ["--max-total-gpus"], ["surplus"]])
def test_what_no_flag_is_ends_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["planner", *arguments]) == 2
    assert "gpctl planner: error:" in capsys.readouterr().err


def test_the_help_names_every_setting() -> None:
    shown = parser().format_help()
    assert all(option.flag in shown for option in OPTIONS)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "planner.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_a_file_holds_the_same_settings_and_flags_go_first(file: Callable[[str], str]) -> None:
    path = file("managed-namespaces: [a, b]\nmax-total-gpus: 16\nno-operation: true\nlisten: '127.0.0.1:0'\n")
    found = started_with("--config", path, "--max-total-gpus", "8")
    assert found.rules.management == Management(frozenset({"a", "b"}))
    assert (found.rules.budget.ceiling, found.no_operation, found.listen.port) == (8, True, 0)


def test_a_file_may_be_json(file: Callable[[str], str]) -> None:
    path = file(json.dumps({"max-total-gpus": 16, "intent-cache-ttl-seconds": 1.5, "callers": []}))
    found = started_with("--config", path)
    assert (found.rules.budget.ceiling, found.rules.intent_ttl_s) == (16, 1.5)
    assert found.rules.management.callers == frozenset()


FILES = {
    "max_total_gpus: 16": "unknown setting 'max_total_gpus' @ $; did you mean 'max-total-gpus'?",
    "colour: red": "unknown setting 'colour' @ $",
    "max-total-gpus: '16'": "must be a number of GPUs, or -1 for no bound: '16' @ $.max-total-gpus",
    "max-total-gpus: yes": "must be a number of GPUs, or -1 for no bound: True @ $.max-total-gpus",
    "no-operation: 1": "must be true or false: 1 @ $.no-operation",
    "managed-namespaces: a": "must be a list of names: 'a' @ $.managed-namespaces",
    "managed-namespaces: [a, 1]": "1 is not a text @ $.managed-namespaces",
    "intent-cache-ttl-seconds: .nan": "must be a number of seconds above 0: nan",
    "max-total-gpus: 8\nmax-total-gpus: 16": "yaml:2: the key 'max-total-gpus' is given twice",
    "a: &a [1]\nb: *a": "yaml:2: aliases are not read",
    "[" * 100: "yaml:1: nested more than 32 deep",
    "a: [": "yaml:1: ",
    "\x00": "not YAML",
    "": "must hold settings by name: None",
    "[1, 2]": "must hold settings by name: [1, 2]",
    "a: 1\n---\nb: 2": "found another document",
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_is_read_strictly(text: str, file: Callable[[str], str]) -> None:
    problems = problems_of("--config", file(text))
    assert any(FILES[text] in problem for problem in problems), problems


def test_a_file_that_is_too_long_is_not_read(file: Callable[[str], str]) -> None:
    (problem,) = problems_of("--config", file("#" * (1 << 20) + "#"))
    assert problem.endswith("more than 1048576 bytes")


def test_problems_of_the_file_and_of_the_flags_come_together(file: Callable[[str], str]) -> None:
    assert len(problems_of("--config", file("a: 1\nb: 2\nno-operation: 3"), "--max-total-gpus", "-5")) == 4
