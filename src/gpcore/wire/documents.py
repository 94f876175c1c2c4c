"""Bytes to documents, and documents to their places.

Rules of this file: it knows JSON and nothing of GPUs. A reader is strict, collects every problem with its path, and
whoever reads builds nothing unless there is none.
"""

import enum
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from gpcore.errors import InvalidError, MalformedError

T = TypeVar("T")
W = TypeVar("W", bound=enum.StrEnum)
Json = dict[str, Any]

MAX_DEPTH = 16
"""The deepest nesting that a document may have."""

MAX_DIGITS = 100
"""The longest integer that is read at all; what it may be is said by the field."""

_LISTED = 20
_SHOWN = 80
_NESTING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)


def loads(data: bytes, *, max_depth: int = MAX_DEPTH) -> object:
    """Return the document that *data* holds, or raise `MalformedError`.

    Stricter than most readers: one meaning only (no duplicate key, no NaN, no lone surrogate), UTF-8 only, and
    neither nesting nor digits can make it work hard.
    """
    if not data.strip():
        raise MalformedError(["the body is empty"])
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise MalformedError([f"not UTF-8: byte {exc.start} cannot be decoded"]) from exc
    if _depth(text, enough=max_depth) > max_depth:
        raise MalformedError([f"nested more than {max_depth} deep"])
    try:
        document = _DECODER.decode(text)
    except json.JSONDecodeError as exc:
        raise MalformedError([f"not JSON: {exc.msg}, line {exc.lineno} column {exc.colno}"]) from exc
    if "\\u" in text:
        _refuse_surrogates(document)
    return document


def dumps(document: object) -> bytes:
    """Return *document* as compact JSON, in ASCII."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


class Extras(enum.Enum):
    """What to do with fields that nobody knows."""

    REFUSED = "refused"
    IGNORED = "ignored"


@attrs.frozen
class Reading:
    """One document being read: how it treats what it does not know, and every problem so far."""

    extras: Extras
    problems: list[str] = attrs.field(factory=list)

    def root(self, document: object) -> "Node":
        """Return the whole of *document*."""
        return Node(document, "$", self)

    def finish(self) -> None:
        """Raise with every problem, if there is any."""
        if self.problems:
            more = len(self.problems) - _LISTED
            raise InvalidError([*self.problems[:_LISTED], *([f"and {more} more"] if more > 0 else ())])


@attrs.frozen
class Node:
    """One place in a document. What is read from it is as asked, or there is a problem and nothing is built."""

    value: object
    path: str
    reading: Reading

    def refuse(self, problem: str) -> None:
        """Note that this place has a *problem*."""
        self.reading.problems.append(f"{self.path}: {problem}")

    def fields(self, required: Sequence[str], optional: Sequence[str] = ()) -> "dict[str, Node]":
        """Return every required field, and the optional ones that are there and not null."""
        found = self.mapping()
        if self.reading.extras is Extras.REFUSED:
            for name in (name for name in found if name not in required and name not in optional):
                self.refuse(f"unknown field {shown(name)}")
        nodes = {name: self._field(found, name) for name in required}
        return nodes | {name: self._field(found, name) for name in optional if found.get(name) is not None}

    def field(self, name: str, *, missing: str = "") -> "Node":
        """Return the field *name*, or say with *missing* that it is needed."""
        found = self.value if isinstance(self.value, dict) else _NOTHING
        return self._field(found, name, missing)

    def _field(self, found: Mapping[str, object], name: str, missing: str = "") -> "Node":
        path = f"{self.path}.{name}"
        if name in found:
            return Node(found[name], path, self.reading)
        if found is not _NOTHING:
            self.refuse(missing or f"{name} is missing")
        return _Absent(None, path, self.reading)

    def mapping(self) -> Mapping[str, object]:
        """Return the object that is here."""
        if isinstance(self.value, dict):
            return self.value
        self.refuse(f"must be an object: {shown(self.value)}")
        return _NOTHING

    def items(self, *, low: int = 0, high: int | None = None) -> "Iterator[Node]":
        """Yield the items of a list; of one that is too long, none."""
        if not isinstance(self.value, list):
            self.refuse(f"must be a list: {shown(self.value)}")
        elif len(self.value) < low or (high is not None and len(self.value) > high):
            self.refuse(f"must have {low} to {high} items: {len(self.value)}")
        else:
            for at, item in enumerate(self.value):
                yield Node(item, f"{self.path}[{at}]", self.reading)

    def integer(self, *, high: int | None = None) -> int | None:
        """Return an integer of at least 0."""
        if type(self.value) is not int:
            self.refuse(f"must be an integer: {shown(self.value)}")
        elif self.value < 0 or (high is not None and self.value > high):
            self.refuse(f"must be {'at least 0' if high is None else f'between 0 and {high}'}: {shown(self.value)}")
        else:
            return self.value
        return None

    def number(self, *, low: float = -math.inf) -> float:
        """Return a number of at least *low*."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            self.refuse(f"must be a number: {shown(self.value)}")
        elif self.value < low:
            self.refuse(f"must be at least {low:g}: {shown(self.value)}")
        else:
            return float(self.value)
        return 0.0

    def boolean(self) -> bool:
        """Return true or false, and nothing that is like them."""
        if not isinstance(self.value, bool):
            self.refuse(f"must be true or false: {shown(self.value)}")
        return self.value is True

    def one_of(self, words: Sequence[W]) -> W | None:
        """Return the one of *words* that is here."""
        for word in words:
            if self.value == word.value:
                return word
        self.refuse(f"must be one of {', '.join(repr(word.value) for word in words)}: {shown(self.value)}")
        return None

    def built(self, build: Callable[[str], T]) -> T | None:
        """Return what *build* makes of the text here."""
        if isinstance(self.value, str):
            text = self.value
            return self.built_from(lambda: build(text))
        self.refuse(f"must be a string: {shown(self.value)}")
        return None

    def built_from(self, build: Callable[[], T]) -> T | None:
        """Return what *build* returns, or take its problems for those of this place."""
        try:
            return build()
        except InvalidError as error:
            for problem in error.problems:
                self.refuse(problem)
            return None


@attrs.frozen
class _Absent(Node):
    """A required field that is not there, which was said once and is not said again."""

    def refuse(self, problem: str) -> None:
        """Say nothing more."""


_NOTHING: Mapping[str, object] = {}


def certain(value: T | None) -> T:
    """Return *value*, which a reading without problems has built."""
    if value is None:
        raise AssertionError
    return value


def shown(value: object) -> str:
    """Return *value* as one short line of plain characters, whatever it is."""
    match value:
        case bool() | None:
            return json.dumps(value)
        case int() | float():
            return repr(value)
        case str():
            text = json.dumps(value[:_SHOWN])
            return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
        case list():
            return f"a list of {len(value)}"
        case _:
            return "an object"


def _depth(text: str, *, enough: int) -> int:
    """Return how deep *text* nests, or some number up to *enough* where it cannot be deeper than that."""
    brackets = text.count("[") + text.count("{")
    if brackets <= enough:
        return brackets
    depth = deepest = 0
    for match in _NESTING.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedError([f"the key {shown(twice)} is there twice"])
    return found


def _integer(digits: str) -> int | float:
    if len(digits) > MAX_DIGITS:
        raise MalformedError([f"an integer of {len(digits)} digits"])
    return -0.0 if digits == "-0" else int(digits)  # JSON's -0 is a number, and no integer


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise MalformedError([f"the number {shown(digits)} is too large"])
    return number


def _constant(name: str) -> object:
    raise MalformedError([f"not JSON: {name}"])


def _refuse_surrogates(document: object) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise MalformedError(["not Unicode text: half a surrogate pair"]) from exc


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant)
