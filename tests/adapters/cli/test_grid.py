"""`gpctl grid`: what is wrong with a configuration, what it can hardly mean, and what it looks like."""

import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from gpadapters.cli.grid import app
from gpadapters.cli.grid_drawing import COLOURS, as_svg, as_text
from gpcore.errors import ConfigError
from gpcore.wire import routing_config

CORPUS = Path(__file__).parents[2] / "corpus"
BASE = CORPUS / "router_config" / "base.json"
SVG = "{http://www.w3.org/2000/svg}"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def deep() -> bytes:
    """Return a configuration with three axes, and a name that means something in SVG."""
    strategy: dict[str, Any] = {"isl_min": 0, "isl_max": 8_000, "isl_resolution": 20}
    for name in ("ttft", "itl"):
        strategy |= {f"{name}_min_ms": 0, f"{name}_max_ms": 1, f"{name}_resolution": 2}
    strategy["agg_pool_mapping"] = [[[0, 1], [0, 1]]] * 20
    strategy["priority_overrides"] = [{"min_priority": 1, "max_priority": 2, "target_pool": 0}]
    names = {"num_agg_pools": 2, "agg_pool_dynamo_namespaces": ["a", "b"], "agg_pool_selection_strategy": strategy}
    return json.dumps({"mode": "agg"} | names).encode()


def test_a_good_configuration_is_ok() -> None:
    assert run("check", str(BASE)) == (0, "ok: prefill 2 x 2 and decode 2 x 2\n")


def test_old_names_are_a_note_and_no_failure(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(BASE.read_text().replace("_ms", ""))
    code, said = run("check", str(file))
    assert code == 0
    assert said.startswith("note: old names: $.prefill_pool_selection_strategy.ttft_min is now ttft_min_ms, ")


def test_what_can_hardly_be_meant_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "odd.json"
    file.write_text(BASE.read_text().replace("[[0, 1], [0, 1]]", "[[0, 0], [0, 0]]"))
    code, said = run("check", str(file))
    assert code == 1
    assert said.splitlines() == [
        "warning: prefill: pool never chosen: pool 1 (ns-p-1, priority 1) gets no request",
        "warning: decode: pool never chosen: pool 1 (ns-d-1, priority 1) gets no request",
    ]


def test_a_file_that_is_no_configuration_is_an_error_with_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text('{"mode": "agg", "x": 1}')
    for command in ("check", "show"):
        with pytest.raises(ConfigError) as caught:
            run(command, str(file))
        assert len(caught.value.problems) == 4


def test_the_grid_is_drawn_with_its_pools(tmp_path: Path) -> None:
    code, said = run("show", str(BASE))
    assert code == 0
    lines = [line.rstrip() for line in said.splitlines()]
    assert lines[:10] == [
        "prefill: isl x ttft",
        "",
        "   isl      10 1,505  ttft",
        "     0      0     1",
        "16,000      0     1",
        "   0  pool 0: ns-p-0, priority 0, 50% of the cells",
        "   1  pool 1: ns-p-1, priority 1, 50% of the cells",
        "  priority_overrides[0]: 1 to 5 go to pool 0",
        "",
        "decode: context_length x itl",
    ]
    file = tmp_path / "old.json"
    file.write_text(BASE.read_text().replace("_ms", ""))
    assert run("show", str(file))[1] == said


def test_a_terminal_gets_colours() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    as_text(routing_config(BASE.read_bytes()).table, out)
    assert "\x1b[" in out.getvalue()


def test_a_deep_grid_is_drawn_in_slices_and_not_without_end() -> None:
    out = io.StringIO()
    table = routing_config(deep()).table
    as_text(table, out)
    assert out.getvalue().count("isl from") == 16
    assert "isl from 400\n" in out.getvalue()
    assert as_svg(table).count("isl from") == 16


@pytest.mark.parametrize("data", [BASE.read_bytes(), deep()], ids=["flat", "deep"])
def test_the_picture_is_svg_in_the_colours_of_the_pools(data: bytes) -> None:
    table = routing_config(data).table
    root = ET.fromstring(as_svg(table))  # noqa: S314 - our own
    fills = {box.get("fill") for box in root.iter(f"{SVG}rect")}
    assert fills == {COLOURS[0], COLOURS[1]}
    height, width = (float(root.get(name) or 0) for name in ("height", "width"))
    for box in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(box.get(name) or 0) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


def test_the_picture_goes_to_standard_output() -> None:
    code, said = run("show", str(BASE), "-o", "svg")
    assert (code, said) == (0, as_svg(routing_config(BASE.read_bytes()).table))
