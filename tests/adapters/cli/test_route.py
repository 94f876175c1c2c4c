"""`gpctl route`: requests in, one a line, and where they go."""

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpadapters.cli.route import answerer, main, read_config
from gpcore.errors import ConfigError
from gpcore.wire import dumps, routing_config
from tests.core.routing_oracle import selected
from tests.core.routing_worlds import chosen_phase, configurations, requests

CORPUS = Path(__file__).parents[2] / "corpus"
TABLE = CORPUS / "router_targets" / "table.json"
NAMES = {"ttft": "ttft_target", "itl": "itl_target"}


@settings(max_examples=50)
@given(st.data())
def test_a_line_has_the_pool_the_fallbacks_and_the_cell_of_the_formula(data: st.DataObject) -> None:
    document = data.draw(configurations())
    phase = data.draw(chosen_phase(document))
    request = data.draw(requests(document, phase))
    line = dumps({"phase": phase} | {NAMES.get(name, name): value for name, value in request.items()})
    told = json.loads(answerer(routing_config(dumps(document)).table)(line))
    pool, order, cell = selected(document, phase, request)
    namespace = document[f"{phase}_pool_dynamo_namespaces"][pool]
    assert told.pop("why")
    assert told == {"pool": pool, "namespace": namespace, "fallbacks": order[1:], "cell": cell}


def told(line: str, **defaults: float) -> Any:  # noqa: ANN401 - JSON
    return json.loads(answerer(read_config(TABLE).table, **defaults)(line.encode()))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"phase":"prefill","isl":9,"ttft_target":150}', "isl bin 0, ttft bin 1"),
        ('{"phase":"prefill","isl":9}', "isl bin 0, ttft bin 2; ttft_target is the middle of the range"),
        ('{"phase":"prefill","isl":9,"ttft_target":0}', "isl bin 0, ttft bin 0"),
        ('{"phase":"decode","isl":9,"itl_target":0.1}', "context_length bin 0, itl bin 0"),
        ('{"phase":"prefill","isl":9,"priority":6}', "priority_overrides[0]: priority 5 to 9"),
    ],
)
def test_a_line_says_why(line: str, why: str) -> None:
    assert told(line)["why"] == why


def test_a_default_is_said_to_be_one() -> None:
    found = told('{"phase":"prefill","isl":9}', ttft_ms=50.0)
    assert (found["cell"], found["why"]) == ([0, 0], "isl bin 0, ttft bin 0; ttft_target is the default")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "the body is empty"),
        ("prefill", "not JSON: Expecting value, line 1 column 1"),
        ("[]", "a request must be a JSON object"),
        ('{"phase":"prefill","isl":9,"ttft_target":NaN}', "not JSON: NaN"),
        ('{"phase":"prefill","isl":9,"ttft":5}', "unknown field 'ttft'"),
        ('{"phase":"prefill"}', "isl is needed"),
        ('{"phase":"agg","isl":5}', "phase must be a phase of this table: 'agg'"),
        ('{"isl":5}', "phase must be a phase of this table: an object"),
        ('{"phase":"decode","context_length":"9"}', "context_length must be a number: '9'"),
    ],
)
def test_a_line_without_a_route_says_why_there_is_none(line: str, why: str) -> None:
    assert told(line) == {"pool": None, "namespace": None, "fallbacks": [], "cell": None, "why": why}


def test_every_line_is_answered_from_a_file_and_from_standard_input(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b'{"phase":"prefill","isl":9}\nx\n{"phase":"decode","isl":9}'
    file = tmp_path / "requests.jsonl"
    file.write_bytes(lines)
    assert main(["--config", str(TABLE), str(file)]) == 0
    first = capfdbinary.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert main(["--config", str(TABLE)]) == 0
    assert capfdbinary.readouterr().out == first
    assert [json.loads(line)["pool"] for line in first.splitlines()] == [2, None, 1]


def test_old_names_are_told_of_on_the_side(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "old.json"
    config.write_text(TABLE.read_text().replace("_ms", ""))
    nothing = tmp_path / "nothing"
    nothing.touch()
    assert main(["--config", str(config), str(nothing)]) == 0
    said = capfd.readouterr()
    assert (said.out, said.err.count("old names")) == ("", 1)


def test_requests_that_are_not_there_are_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(TABLE), str(tmp_path / "nowhere")]) == 1
    assert capfd.readouterr().err.endswith("nowhere: No such file or directory\n")


def test_a_bad_configuration_is_one_error_with_every_problem_and_its_file(tmp_path: Path) -> None:
    config = tmp_path / "bad.json"
    config.write_text('{"mode": "agg"}')
    with pytest.raises(ConfigError) as caught:
        main(["--config", str(config)])
    assert caught.value.problems[0] == f"{config}: $: num_agg_pools required for agg mode"
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(("name", "problem"), [("nowhere.json", "No such file or directory"), (".", "Is a directory")])
def test_a_configuration_that_cannot_be_read_is_an_error(name: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_config(tmp_path / name)


def test_a_hundred_thousand_lines_are_a_matter_of_seconds() -> None:
    answered = answerer(read_config(TABLE).table)
    lines = [
        b'{"phase":"prefill","isl":%d,"ttft_target":%d.5,"priority":null}' % (at % 9_000, at % 500)
        for at in range(100_000)
    ]
    start = time.perf_counter()
    pools = {answered(line) for line in lines}
    assert time.perf_counter() - start < 20  # some 1 s, where nobody else works
    assert len(pools) == 8
