"""An immutable mapping whose successor costs a small part of it.

Rules of this file: no knowledge of what is stored; a change copies one of 256 small dicts and shares the other 255,
so its cost is some two microseconds up to a hundred thousand keys, and every older version stays as it was.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from itertools import chain
from operator import methodcaller
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SPREAD = 256
_ITEMS, _VALUES = methodcaller("items"), methodcaller("values")

_EMPTY: list[dict[Any, Any]] = [{}] * _SPREAD
"""The parts of an empty index, all of them one dict that nobody writes to: many indexes are small, and stay so."""


def amended(known: Mapping[K, V], changes: Mapping[K, V | None]) -> dict[K, V]:
    """Return *known*, which is small, with each key of *changes* leading to its value, or nowhere (None)."""
    successor = dict(known)
    for key, value in changes.items():
        if value is None:
            successor.pop(key, None)
        else:
            successor[key] = value
    return successor


class Index(Generic[K, V]):
    """Map keys to values, none of them None; a change returns a successor that shares what did not change.

    >>> old = Index([("a", 1)])
    >>> new = old.put("b", 2)
    >>> (len(old), len(new), new["b"], old.get("b"))
    (1, 2, 2, None)

    The order of iteration depends on hashes: nothing that must be reproducible may depend on it.
    """

    __slots__ = ("_parts", "_size")

    _parts: list[dict[K, V]]
    _size: int

    def __init__(self, items: Iterable[tuple[K, V]] = ()) -> None:
        """Hold *items*; of two with one key, the later."""
        parts: list[dict[K, V]] = _EMPTY.copy()
        for key, value in items:
            where = hash(key) % _SPREAD
            if parts[where]:
                parts[where][key] = value
            else:
                parts[where] = {key: value}
        self._parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: K) -> bool:
        return key in self._parts[hash(key) % _SPREAD]

    def __getitem__(self, key: K) -> V:
        return self._parts[hash(key) % _SPREAD][key]

    def __iter__(self) -> Iterator[K]:
        return chain.from_iterable(filter(None, self._parts))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index):
            return NotImplemented
        return self._size == other._size and self._parts == other._parts

    def __hash__(self) -> int:
        return hash((self._size, frozenset(self)))

    def __repr__(self) -> str:
        return f"Index({dict(self.items())!r})"

    def get(self, key: K) -> V | None:
        """Return the value of *key*, or None."""
        return self._parts[hash(key) % _SPREAD].get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        """Yield every pair, in no meaningful order."""
        return chain.from_iterable(map(_ITEMS, filter(None, self._parts)))

    def values(self) -> Iterator[V]:
        """Yield every value, in no meaningful order."""
        return chain.from_iterable(map(_VALUES, filter(None, self._parts)))

    def put(self, key: K, value: V) -> "Index[K, V]":
        """Return this index with *key* leading to *value*."""
        return self.replaced({key: value})

    def drop(self, key: K) -> "Index[K, V]":
        """Return this index without *key*, which need not be there."""
        return self.replaced({key: None}) if key in self else self

    def changed(self, before: "Index[K, V]") -> set[K]:
        """Return the keys that lead elsewhere than in *before*, or nowhere any more, or only now somewhere.

        It costs little where one is a late successor of the other.
        """
        others = before._parts  # noqa: SLF001 - of its own kind
        pairs = [(one, other) for one, other in zip(self._parts, others, strict=True) if one is not other]
        found = [(key, one.get(key), other.get(key)) for one, other in pairs for key in one.keys() | other.keys()]
        return {key for key, mine, its in found if mine is not its and mine != its}

    def replaced(self, changes: Mapping[K, V | None]) -> "Index[K, V]":
        """Return this index with each key of *changes* leading to its value, or nowhere (None)."""
        parts, size = self._parts.copy(), self._size
        for key, value in changes.items():
            where = hash(key) % _SPREAD
            part = parts[where].copy()
            size -= len(part)
            if value is None:
                part.pop(key, None)
            else:
                part[key] = value
            size += len(part)
            parts[where] = part
        successor: Index[K, V] = Index.__new__(Index)
        successor._parts, successor._size = parts, size
        return successor
