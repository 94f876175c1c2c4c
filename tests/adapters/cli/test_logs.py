"""Log lines are one line each, whatever they hold."""

import json
import logging
import sys

import pytest

from gpadapters.cli.logs import Json, Text


def record(message: str, *args: object, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("gpadapters.daemon", logging.INFO, "", 0, message, args, None)
    made.created = 1.5
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def failed(message: str) -> logging.LogRecord:
    made = record("a step failed")
    try:
        int(message)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_line_for_people_says_when_how_bad_what_and_about_what() -> None:
    line = Text().format(record("approved: %s", "a", gp_pool="ns/a/prefill"))
    assert line == "1970-01-01T00:00:01.500Z INFO    approved: a pool=ns/a/prefill"


def test_a_line_for_programs_has_a_field_for_each_thing() -> None:
    line = json.loads(Json().format(record("approved", gp_pool="ns/a/prefill", gp_gpus=4)))
    assert line == {
        "ts": "1970-01-01T00:00:01.500Z",
        "level": "info",
        "logger": "gpadapters.daemon",
        "msg": "approved",
        "pool": "ns/a/prefill",
        "gpus": 4,
    }


@pytest.mark.parametrize("form", [Text(), Json()])
@pytest.mark.parametrize("made", [record("a\nb\r\x1b[31m\u2028\u202e"), record("a", gp_x="\n"), failed("x\ny")])
def test_nothing_ends_a_line_or_moves_the_cursor(form: logging.Formatter, made: logging.LogRecord) -> None:
    line = form.format(made)
    assert line.isprintable()
    assert len(line.splitlines()) == 1


def test_an_endless_message_ends() -> None:
    assert len(Text().format(record("x" * 100_000))) == 8192
