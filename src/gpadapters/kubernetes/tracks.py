"""The newest known state of every object of one kind, however it was learned.

An object is learned of from lists, from watches, and from the answers to our own requests, which overtake the watch.
Versions can only be compared for equality, so what is newer is told by three facts: a watch delivers the states of an
object in their order; a generation never goes down; a uid that is gone does not come back.

Rules of this file: no I/O. Each method returns the participants that a change concerns.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

import attrs

from gpadapters.kubernetes.objects import Identity
from gpcore.pools import ParticipantId

Key = tuple[str, str]
"""The namespace and the name of an object."""

_REMEMBERED = 2048


class Tracked(Protocol):
    """What a track needs to know of an object."""

    @property
    def key(self) -> Key: ...  # noqa: D102 - the namespace and the name
    @property
    def identity(self) -> Identity: ...  # noqa: D102 - which object, in which state
    @property
    def participant(self) -> ParticipantId: ...  # noqa: D102 - the deployment that it is part of


T = TypeVar("T", bound=Tracked)


@attrs.frozen
class _Entry(Generic[T]):
    """An object, and the version that the watch must reach before it tells anything newer, if it lags.

    *moment* is when a list or an answer has brought it last.
    """

    obj: T
    awaited: str | None = None
    moment: int = 0


class Track(Generic[T]):
    """Follow the objects of one kind."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry[T]] = {}
        self._of: dict[ParticipantId, dict[Key, T]] = {}
        self._passed = _Recent()  # versions that lists and watches have shown
        self._dead = _Recent()  # uids that are gone
        self.served: set[str] = set()  # the namespaces in which there can be such objects
        self.moment = 0  # counts what did not come by the watch, so that of two such things the later is told

    def get(self, key: Key) -> T | None:
        """Return the object, or None where there is none."""
        entry = self._entries.get(key)
        return None if entry is None else entry.obj

    def of(self, participant: ParticipantId) -> tuple[T, ...]:
        """Return the objects that are part of *participant*, by name."""
        found = self._of.get(participant)
        return () if not found else tuple(found[key] for key in sorted(found))

    def participants(self) -> Iterator[ParticipantId]:
        """Yield every participant that an object is part of."""
        yield from self._of

    def listed(self, namespace: str, objects: Iterable[T] | None) -> set[ParticipantId]:
        """Take in *objects*, all that there are in *namespace*; None: the server does not know of such objects."""
        self.served = self.served - {namespace} if objects is None else self.served | {namespace}
        present = {obj.key: obj for obj in objects or ()}
        touched: set[ParticipantId] = set()
        self.moment += 1
        for key in [key for key in self._entries if key[0] == namespace and key not in present]:
            touched |= self._drop(key)
        for obj in present.values():
            self._passed.add(obj.identity.version)
            if not self._outdated(obj):
                touched |= self._put(obj, moment=self.moment)
        return touched

    def seen(self, obj: T) -> set[ParticipantId]:
        """Take in what a watch shows."""
        self._passed.add(obj.identity.version)
        entry = self._entries.get(obj.key)
        if self._outdated(obj):
            return set()
        if entry is not None and entry.awaited is not None:
            if obj.identity.version == entry.awaited:
                self._entries[obj.key] = _Entry(entry.obj, moment=entry.moment)
                return set()
            if obj.identity.uid != entry.obj.identity.uid or _spec(obj) == _spec(entry.obj):
                return set()
        return self._put(obj, moment=0 if entry is None else entry.moment)

    def removed(self, obj: T) -> set[ParticipantId]:
        """Take in that a watch shows *obj* deleted."""
        return self.missing(obj.key, obj.identity.uid)

    def answered(self, obj: T, *, since: int) -> set[ParticipantId]:
        """Take in the answer to a request of ours that was sent at the moment *since*."""
        entry = self._entries.get(obj.key)
        if obj.identity.version in self._passed or self._outdated(obj):
            return set()
        if entry is not None and entry.moment > since and _spec(entry.obj) == _spec(obj):
            return set()  # overtaken by a list or by another answer, and nothing says which of the two is newer
        self.moment += 1
        return self._put(obj, awaited=obj.identity.version, moment=self.moment)

    def has_taken(self, obj: T) -> bool:
        """Say whether this state of *obj*, or a later one, was taken in."""
        entry, version = self._entries.get(obj.key), obj.identity.version
        current = entry is not None and entry.obj.identity.version == version
        return current or version in self._passed or self._outdated(obj)

    def missing(self, key: Key, uid: str) -> set[ParticipantId]:
        """Take in that the object *uid* is gone; another of its name stays."""
        self._dead.add(uid)
        entry = self._entries.get(key)
        return self._drop(key) if entry is not None and entry.obj.identity.uid == uid else set()

    def _outdated(self, obj: T) -> bool:
        """Say whether *obj* is certainly older than what is known."""
        entry, identity = self._entries.get(obj.key), obj.identity
        if identity.uid in self._dead:
            return True
        known = None if entry is None else entry.obj.identity
        return known is not None and known.uid == identity.uid and identity.generation < known.generation

    def _put(self, obj: T, *, moment: int, awaited: str | None = None) -> set[ParticipantId]:
        before = self._entries.get(obj.key)
        self._entries[obj.key] = _Entry(obj, awaited, moment)
        touched = {obj.participant}
        if before is not None and before.obj.identity.uid != obj.identity.uid:
            self._dead.add(before.obj.identity.uid)
        if before is not None and before.obj.participant != obj.participant:
            touched |= self._part(before.obj)
        self._of.setdefault(obj.participant, {})[obj.key] = obj
        return touched

    def _drop(self, key: Key) -> set[ParticipantId]:
        return self._part(self._entries.pop(key).obj)

    def _part(self, obj: T) -> set[ParticipantId]:
        """Take *obj* from what its participant has."""
        members = self._of[obj.participant]
        del members[obj.key]
        if not members:
            del self._of[obj.participant]
        return {obj.participant}


def _spec(obj: Tracked) -> tuple[str, int]:
    """Return what is the same in two states of an object that differ in their status at most."""
    return (obj.identity.uid, obj.identity.generation)


class _Recent:
    """The last few things that were added."""

    def __init__(self) -> None:
        self._things: dict[str, None] = {}

    def __contains__(self, thing: str) -> bool:
        return thing in self._things

    def add(self, thing: str) -> None:
        self._things[thing] = None
        if len(self._things) > _REMEMBERED:
            del self._things[next(iter(self._things))]
