"""Values that are nothing but named numbers and texts, as objects of their fields.

Rules of this file: what a field is called and what it may be is said where the value is defined, and nowhere else.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_type_hints

import attrs

from gpcore.errors import InvalidError
from gpcore.pools import ParticipantId, PoolKey, Role
from gpcore.wire.documents import Json, Node, shown

T = TypeVar("T")


def flat_document(value: attrs.AttrsInstance) -> Json:
    """Return *value* as its fields; those that are as by default are left out."""
    found = {one.name: (getattr(value, one.name), one.default) for one in attrs.fields(type(value))}
    return {name: _plain(field) for name, (field, default) in found.items() if field != default}


def read_flat(node: Node, kind: type[T]) -> T | None:
    """Return the *kind* that is here, or note what is wrong with it."""
    known = attrs.fields(kind)  # type: ignore[arg-type]
    required = [one.name for one in known if one.default is attrs.NOTHING]
    optional = [one.name for one in known if one.default is not attrs.NOTHING]
    problems, types = len(node.reading.problems), get_type_hints(kind)
    values = {name: _READERS[types[name]](field) for name, field in node.fields(required, optional).items()}
    return kind(**values) if len(node.reading.problems) == problems else None


def pool_text(pool: PoolKey) -> str:
    """Return the name of *pool*, as `namespace/name/role`."""
    return f"{pool.participant}/{pool.role.value}"


def read_pool(text: str) -> PoolKey:
    """Return the pool that *text* names; InvalidError where it names none."""
    participant, _, role = text.rpartition("/")
    if role not in set(Role):
        raise InvalidError([f"a pool is written namespace/name/role: {shown(text)}"])
    return PoolKey(ParticipantId.parse(participant), Role(role))


def _plain(value: object) -> object:
    return [pool_text(pool) for pool in value] if isinstance(value, tuple) else value


def _whole(node: Node) -> int:
    if type(node.value) is int:
        return node.value
    node.refuse(f"must be an integer: {shown(node.value)}")
    return 0


def _pools(node: Node) -> tuple[PoolKey, ...]:
    return tuple([pool for item in node.items() if (pool := item.built(read_pool)) is not None])


_READERS: Mapping[Any, Callable[[Node], Any]] = {
    bool: Node.boolean,
    float: lambda node: node.number(low=0),
    int: _whole,
    str: lambda node: node.built(str),
    str | None: lambda node: node.built(str),
    tuple[PoolKey, ...]: _pools,
}
