"""The deployments that `--environment memory` starts with, from a file.

Rules of this file: the pools are written as in a scenario of `gpctl decide`, and read by the same code.
"""

from pathlib import Path
from typing import Any

from gpadapters.cli.files import load
from gpadapters.cli.readers import shown
from gpcore import wire
from gpcore.errors import ConfigError, InvalidError
from gpcore.pools import Snapshot
from gpcore.testing.fakes import MemoryCluster

MAX_BYTES = 64 << 20
"""The most bytes of a fleet: some 400,000 pools."""

_LAGS = ("acquire_lag_s", "release_lag_s")
_ANY_REQUEST = {"participant": "any/any", "targets": [{"role": "decode", "replicas": 0}]}


def cluster(path: Path) -> MemoryCluster:
    """Return the cluster that the file describes, or raise `ConfigError` with every problem."""
    content = load(path, max_bytes=MAX_BYTES)
    if not isinstance(content, dict):
        raise ConfigError([f"{path}: must hold pools: {shown(content)}"])
    problems = [f"$.{name}: must be a number of at least 0: {shown(content[name])}" for name in _wrong_lags(content)]
    problems += [f"$: unknown field {shown(name)}" for name in content if name not in {"pools", *_LAGS}]
    try:
        pools = {"pools": content["pools"]} if "pools" in content else {}
        snapshot = wire.scenario(pools | {"request": _ANY_REQUEST}).state.snapshot or Snapshot()
    except InvalidError as exc:
        problems += exc.problems
        snapshot = Snapshot()
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    deployments = sorted(snapshot.deployments(), key=lambda deployment: str(deployment.id))
    return MemoryCluster(deployments, **{name: content[name] for name in _LAGS if name in content})


def _wrong_lags(content: dict[Any, Any]) -> list[str]:
    given = [name for name in _LAGS if name in content]
    return [
        name
        for name in given
        if isinstance(content[name], bool) or not isinstance(content[name], int | float) or not content[name] >= 0
    ]
