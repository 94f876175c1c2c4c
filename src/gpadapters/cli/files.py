"""Files that people write: YAML or JSON, read strictly.

Rules of this file: what two readers could understand differently is refused. A key that is given twice and an alias
are errors with their line, and so is a file beyond the limits.
"""

from pathlib import Path
from typing import Any

import yaml

from gpcore.errors import ConfigError

MAX_BYTES = 1 << 20
"""The most bytes that a configuration may have; a fleet may have more."""

MAX_DEPTH = 32
"""The most levels that a file may nest."""


def load(path: Path, *, max_bytes: int = MAX_BYTES) -> object:
    """Read the one document in *path*; JSON is read as the YAML that it is."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as exc:
        raise ConfigError([f"{path}: {exc.strerror or exc}"]) from exc
    if len(content) > max_bytes:
        raise ConfigError([f"{path}: more than {max_bytes} bytes"])
    try:
        _refuse_what_surprises(content, path)
        return yaml.load(content, Loader=_Strict)  # noqa: S506 (a SafeLoader that refuses more)
    except yaml.MarkedYAMLError as exc:
        raise ConfigError([f"{path}{_place(exc)}: {exc.problem or exc}"]) from exc
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigError([f"{path}: not YAML: {' '.join(str(exc).split())[:200]}"]) from exc


def _refuse_what_surprises(content: bytes, path: Path) -> None:
    """Refuse aliases, which can make a small file large, and deep nesting, which recursion cannot follow."""
    depth = 0
    for event in yaml.parse(content, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError([f"{path}:{line}: aliases are not read"])
        if depth > MAX_DEPTH:
            raise ConfigError([f"{path}:{line}: nested more than {MAX_DEPTH} deep"])


class _Strict(yaml.SafeLoader):
    """Refuse keys that are given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys = [key.value for key, _ in node.value]
        for at, key in enumerate(keys):
            if key in keys[:at]:
                mark = node.value[at][0].start_mark
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=mark)
        return super().construct_mapping(node, deep)


def _place(exc: yaml.MarkedYAMLError) -> str:
    return f":{exc.problem_mark.line + 1}" if exc.problem_mark else ""
