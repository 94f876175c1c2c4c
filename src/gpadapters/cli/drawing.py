"""Tables and lines for people.

Rules of this file: a terminal gets colours and its own width, anything else plain lines; NO_COLOR is Rich's to
honour. What is drawn is text and never markup.
"""

import sys
from collections.abc import Iterable, Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLOURS = {"approved": "green", "success": "green", "scaling": "yellow"} | dict.fromkeys(
    ("error", "invalid", "rejected"), "red"
)
_UNWRAPPED = 100_000


def draw_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write *rows* under *titles*."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(_coloured, row))
    _write(table)


def draw_lines(lines: Iterable[str]) -> None:
    """Write *lines*, a result at the beginning of one in its colour."""
    _write(*map(_coloured, lines))


def _coloured(line: str) -> Text:
    word = line.partition(" ")[0].rstrip(":")
    coloured = Text(line)
    coloured.stylize(_COLOURS.get(word, ""), 0, len(word))
    return coloured


def _write(*drawn: Table | Text) -> None:
    """Print as wide as the terminal is, and to anything else one line a row without trailing blanks."""
    if sys.stdout.isatty():
        Console(highlight=False).print(*drawn, sep="\n")
        return
    plain = StringIO()
    Console(file=plain, width=_UNWRAPPED, highlight=False, color_system=None).print(*drawn, sep="\n")
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in plain.getvalue().splitlines())
