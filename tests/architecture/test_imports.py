"""What importing costs and needs: little for the core, its own extra alone for an adapter."""

import json
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.tree import ADAPTERS, SOURCES, modules

BASE = {"attr", "attrs", "cattr", "cattrs", "numpy", "typing_extensions"}
"""What the base dependencies install, by the names they import as; typing_extensions is cattrs' own."""

EXTRA_OF = {"telemetry": "prometheus"}
"""The extra of an adapter that is not named after it. An adapter of no extra makes do with the base dependencies."""

SLOWER = 2.2
"""gpcore may take 0.2 s where its base dependencies alone take 0.09 s; a ratio holds on every machine."""


def _python(code: str, *arguments: str) -> str:
    """Return what *code* prints in a fresh, isolated interpreter."""
    command = [sys.executable, "-I", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORTED = """
import sys
before = set(sys.modules)  # what the environment itself imports at every start
import gpcore
print(*sorted({module.partition(".")[0] for module in set(sys.modules) - before}))
"""


def test_importing_the_core_imports_the_base_dependencies_and_nothing_else() -> None:
    imported = set(_python(IMPORTED).split())
    assert {module for module in imported - sys.stdlib_module_names if not module.startswith("_")} <= BASE | {"gpcore"}


def test_importing_the_core_leaves_the_testing_kit_alone() -> None:
    assert _python("import gpcore, sys; print('gpcore.testing' in sys.modules)").strip() == "False"


SECONDS = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def test_importing_the_core_takes_little_longer_than_its_base_dependencies_alone() -> None:
    # The least of several: whatever else the machine does can only add.
    rounds = [[float(_python(SECONDS.format(what))) for what in ("gpcore", "attrs, cattrs, numpy")] for _ in range(7)]
    core, base = (min(seconds) for seconds in zip(*rounds, strict=True))
    assert core <= SLOWER * base, f"{core:.3f} s against {base:.3f} s"


@cache
def _distributions(requirement: str) -> frozenset[str]:
    """Return the distributions that installing *requirement* brings here."""
    wanted = Requirement(requirement)
    found: set[str] = {canonicalize_name(wanted.name)}
    try:
        needs = distribution(wanted.name).requires or []
    except PackageNotFoundError:  # Dynamo's runtime is too large for this environment, so nothing here is of it
        needs = []
    for line in needs:
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *wanted.extras}):
            needed.marker = None
            found |= _distributions(str(needed))
    return frozenset(found)


def _not_brought_by(extra: str | None) -> list[str]:
    """Return what is importable here only because of something else than gpcore with *extra*."""
    brought = _distributions(f"gpcore[{extra}]" if extra else "gpcore")
    return sorted(
        module
        for module, providers in packages_distributions().items()
        if not any(canonicalize_name(provider) in brought for provider in providers)
    )


def _adapter(module: Path) -> str:
    return module.relative_to(ADAPTERS).parts[0].removesuffix(".py")


def _dotted(module: Path) -> str:
    return ".".join(module.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")


def _extra(adapter: str) -> str | None:
    extra = EXTRA_OF.get(adapter, adapter)
    return extra if extra in (distribution("gpcore").metadata.get_all("Provides-Extra") or []) else None


IMPORT_WITHOUT = """
import importlib, json, sys
from importlib.machinery import PathFinder
absent = set(json.loads(sys.argv[1]))
class Present(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):  # as if not installed: libraries ask, and do without
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Present
for module in sys.argv[2:]:
    importlib.import_module(module)
"""


@pytest.mark.parametrize("adapter", sorted({_adapter(module) for module in modules(ADAPTERS)} - {"__init__"}))
def test_an_adapter_imports_with_only_its_own_extra(adapter: str) -> None:
    absent = json.dumps(_not_brought_by(_extra(adapter)))
    own = [module for module in modules(ADAPTERS) if _adapter(module) == adapter and module.stem != "__main__"]
    _python(IMPORT_WITHOUT, absent, *map(_dotted, own))


def test_an_absent_distribution_is_really_absent_there() -> None:
    with pytest.raises(AssertionError, match="No module named 'typer'"):
        _python(IMPORT_WITHOUT, json.dumps(_not_brought_by(None)), "typer")


def test_the_extra_named_all_is_all_of_them_but_dynamos_runtime() -> None:
    extras = set(distribution("gpcore").metadata.get_all("Provides-Extra") or []) - {"all", "dynamo"}
    assert _distributions("gpcore[all]") == frozenset().union(*(_distributions(f"gpcore[{extra}]") for extra in extras))
