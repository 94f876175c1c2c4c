"""Which of the places where a target can stand wins, and which one it was.

Rules of this file: the first place that says anything wins, be it 0 or nonsense; nothing is judged here, since `route`
refuses what is no number. A wrong target is better refused than quietly replaced by the next one.
"""

import enum
import math
import re
from typing import NamedTuple

_NUMBER = re.compile(r"[+-]?(\d{1,32}(\.\d{0,32})?|\.\d{1,32})([eE][+-]?\d{1,3})?", re.ASCII)


class Source(enum.StrEnum):
    """Where a target came from, the one that wins first."""

    HEADER = "header"
    NVEXT = "nvext"
    EXTRA_ARGS = "extra_args"
    DEFAULT = "default"
    MIDDLE = "middle"


class Sourced(NamedTuple):
    """Hold a target as it was said, and by whom; MIDDLE means that nobody has, so the middle of the range is it."""

    value: object
    source: Source


def target(
    *, header: str | None = None, nvext: object = None, extra_args: object = None, default: float | None = None
) -> Sourced:
    """Return the target that counts.

    *header* is the text of `x-slo-ttft-ms` or `x-slo-tpot-ms`, *nvext* what `nvext.router` has, *extra_args* the older
    place of it, and *default* what the router was started with.

    >>> target(header="200", nvext=300)
    Sourced(value=200.0, source=<Source.HEADER: 'header'>)
    >>> target(nvext=0, default=500)
    Sourced(value=0, source=<Source.NVEXT: 'nvext'>)
    """
    if header is not None:
        return Sourced(number(header), Source.HEADER)
    if nvext is not None:
        return Sourced(nvext, Source.NVEXT)
    if extra_args is not None:
        return Sourced(extra_args, Source.EXTRA_ARGS)
    return Sourced(default, Source.MIDDLE if default is None else Source.DEFAULT)


def number(text: str) -> object:
    """Return the number that the text of a header is, or the text itself, which `route` then refuses by its name.

    Plain digits with a point and an exponent; not what only Python takes for a number, as `1_000`, `nan` or ` 5`.
    """
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else text
