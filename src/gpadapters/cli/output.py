"""How answers are shown: as a table for people, as JSON or YAML for programs.

Rules of this file: it draws what it is given and asks nobody. Programs get the server's document, unabridged. What
comes from elsewhere cannot move the cursor or colour the terminal.
"""

import enum
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

Json = Mapping[str, Any]


class Output(enum.StrEnum):
    """How to show an answer."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class Column(NamedTuple):
    """Show one thing of a row under *title*; *wide* columns are for `-o wide`."""

    title: str
    of: Callable[[Json], object]
    wide: bool = False


def show(document: object, *, output: Output, rows: Iterable[Json] = (), columns: Sequence[Column] = ()) -> None:
    """Write *document* for programs, or its *rows* for people."""
    match output:
        case Output.JSON:
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
        case Output.YAML:
            import yaml  # noqa: PLC0415 (for this form alone)

            yaml.safe_dump(document, sys.stdout, sort_keys=False, width=120)
        case _:
            from gpadapters.cli.drawing import draw_table  # noqa: PLC0415 (programs need no tables)

            shown = [column for column in columns if output is Output.WIDE or not column.wide]
            cells = [[plain(column.of(row)) for column in shown] for row in rows]
            draw_table([column.title for column in shown], cells)


def say(lines: Iterable[str]) -> None:
    """Write *lines* for people, the first word of each coloured where it is a result."""
    from gpadapters.cli.drawing import draw_lines  # noqa: PLC0415 (as above)

    draw_lines(plain(line) for line in lines)


def plain(value: object) -> str:
    """Return *value* as text for one cell: nothing as `-`, and no control character."""
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(plain, value)) or "-"
        case _:
            return "".join(char if char.isprintable() else "?" for char in str(value))


def moment(seconds: float | None) -> str | None:
    """Return a time since 1970 as people read it, in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def changes(plan: Sequence[Sequence[Json]]) -> str:
    """Return the changes of *plan* in order, as one line."""
    return ", ".join(change(one) for step in plan for one in step)


def change(one: Json) -> str:
    """Return one change as people say it."""
    return f"{one['participant']}/{one['role']} {one['before']} to {one['after']}"


def targets(asked: Sequence[Json]) -> str:
    """Return what was asked for, as `gpctl scale` takes it."""
    return " ".join(f"{target['role']}={target['replicas']}" for target in asked)
