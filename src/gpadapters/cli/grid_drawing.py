"""A routing table as a picture: cells in the colours of their pools.

Rules of this file: colour never says alone what a number says too, and a picture grows with what changes from cell to
cell, not with the cells. SVG is text, and whatever name stands in it is escaped.
"""

import itertools
from collections.abc import Iterator, Sequence
from html import escape
from typing import TextIO

from rich.console import Console
from rich.text import Text

from gpcore.grids import Axis
from gpcore.routing import Destination, RoutingTable, Selection

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
"""Told apart by nearly everybody (Okabe and Ito); from the ninth pool on they come again, and the number decides."""

_MOST_SLICES = 16
_CELL = 44
_ROW = 28
_LEFT = 150
_TOP = 62
_LINE = 20
_LARGE = 1_000  # from here on, parts of one do not matter


def as_text(table: RoutingTable, out: TextIO) -> None:
    """Draw *table* for people on *out*, which gets colours where it is a terminal."""
    console = Console(file=out, highlight=False, width=None if out.isatty() else 10_000)
    for selection in table.selections:
        for line in _text(selection):
            if not out.isatty():
                line.rstrip()  # the block of a colour that nobody sees
            console.print(line, soft_wrap=True)


def _text(selection: Selection) -> Iterator[Text]:
    *_, rows, columns = axes = selection.grid.axes
    yield Text(f"{selection.phase}: {' x '.join(axis.name for axis in axes)}", style="bold")
    for place in _slices(selection):
        yield Text(_slice_name(selection, place))
        width = max(len(str(len(selection.pools) - 1)) + 2, *(len(_number(low)) + 1 for low in _lows(columns)))
        margin = max(len(rows.name), *(len(_number(low)) for low in _lows(rows))) + 2
        heads = "".join(_number(low).rjust(width) for low in _lows(columns))
        yield Text(f"{rows.name.rjust(margin - 2)}  {heads}  {columns.name}", style="dim")
        for at, low in enumerate(_lows(rows)):
            yield _text_row(selection, (*place, at), Text(f"{_number(low).rjust(margin - 2)}  "), width)
    yield from (_text_legend(selection, pool) for pool in selection.pools)
    for at, rule in enumerate(selection.overrides):
        yield Text(f"  priority_overrides[{at}]: {rule.low} to {rule.high} go to pool {rule.target}")
    yield Text()


def _text_row(selection: Selection, place: tuple[int, ...], line: Text, width: int) -> Text:
    for pool in _row(selection, place):
        line.append(f"{pool} ".rjust(width), style=f"black on {_colour(pool)}")
    return line


def _text_legend(selection: Selection, pool: Destination) -> Text:
    line = Text("  ")
    line.append(f" {pool.index} ", style=f"black on {_colour(pool.index)}")
    return line.append(f" {_legend(selection, pool)}")


def as_svg(table: RoutingTable) -> str:
    """Return *table* as an SVG image."""
    body: list[str] = []
    top = 0
    width = 0
    for selection in table.selections:
        for place in _slices(selection):
            width = max(width, _LEFT + _CELL * selection.grid.shape[-1] + 40)
            body += _svg_slice(selection, place, top)
            top += _TOP + _ROW * selection.grid.shape[-2]
        body += [
            line for at, pool in enumerate(selection.pools) for line in _svg_legend(selection, pool, top + at * 20)
        ]
        top += _LINE * len(selection.pools) + _LINE
        width = max(width, *(40 + 7 * len(_legend(selection, pool)) for pool in selection.pools))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}"'
    return "\n".join([f'{head} font-family="sans-serif" font-size="12">', *body, "</svg>\n"])


def _svg_slice(selection: Selection, place: tuple[int, ...], top: int) -> Iterator[str]:
    *_, rows, columns = selection.grid.axes
    title = f"{selection.phase}: {rows.name} x {columns.name} {_slice_name(selection, place)}"
    yield _svg_text(8, top + 18, title, 'font-weight="bold"')
    for at, low in enumerate(_lows(columns)):
        yield _svg_text(_LEFT + at * _CELL, top + 44, _number(low), 'font-size="10"')
    for at, low in enumerate(_lows(rows)):
        y = top + 50 + at * _ROW
        yield _svg_text(_LEFT - 8, y + 18, f"{rows.name} {_number(low)}", 'text-anchor="end" font-size="10"')
        x = _LEFT
        for pool, run in itertools.groupby(_row(selection, (*place, at))):
            width = _CELL * len(list(run))
            name = escape(selection.pools[pool].namespace)
            box = f'x="{x}" y="{y}" width="{width}" height="{_ROW}" fill="{_colour(pool)}" stroke="#fff"'
            yield f"<rect {box}><title>pool {pool}: {name}</title></rect>"
            yield _svg_text(x + width // 2, y + 18, str(pool), 'text-anchor="middle"')
            x += width


def _svg_legend(selection: Selection, pool: Destination, y: int) -> Iterator[str]:
    yield f'<rect x="8" y="{y}" width="16" height="16" fill="{_colour(pool.index)}"/>'
    yield _svg_text(30, y + 13, _legend(selection, pool), "")


def _svg_text(x: int, y: int, text: str, more: str) -> str:
    return f'<text x="{x}" y="{y}" {more}>{escape(text.strip())}</text>'


def _slices(selection: Selection) -> list[tuple[int, ...]]:
    """Return the places of the outer axes, of which there is none in a flat grid: that is one empty place."""
    outer = selection.grid.shape[:-2]
    return list(itertools.islice(itertools.product(*map(range, outer)), _MOST_SLICES))


def _slice_name(selection: Selection, place: Sequence[int]) -> str:
    named = zip(selection.grid.axes, place, strict=False)
    return ", ".join(f"{axis.name} from {_number(_lows(axis)[at])}" for axis, at in named)


def _row(selection: Selection, place: tuple[int, ...]) -> Sequence[int]:
    start = sum(at * stride for at, stride in zip(place, selection.grid.strides, strict=False))
    return selection.grid.cells[start : start + selection.grid.shape[-1]]


def _lows(axis: Axis) -> tuple[float, ...]:
    """Return where the bins begin by the rule, which an exact edge may miss by the last digit of a float."""
    return tuple(axis.low + at * axis.step for at in range(axis.bins))


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= _LARGE else f"{value:.4g}"


def _legend(selection: Selection, pool: Destination) -> str:
    share = selection.grid.cells.count(pool.index) / len(selection.grid.cells)
    return f"pool {pool.index}: {pool.namespace}, priority {pool.priority}, {share:.0%} of the cells"


def _colour(pool: int) -> str:
    return COLOURS[pool % len(COLOURS)]
