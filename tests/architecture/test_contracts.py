"""The import contracts refuse what they are for. A contract with a slip in its names would be kept for ever."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, SOURCES

OFFENCES = [
    ("hexagon", "gpcore/pools.py", "import gpadapters"),
    ("core-layers", "gpcore/pools.py", "import gpcore.plans"),
    ("core-layers", "gpcore/pools.py", "def later():\n    from gpcore import plans"),
    ("core-layers", "gpcore/newcomer.py", ""),
    ("core-pure", "gpcore/pools.py", "import time"),
    ("core-pure", "gpcore/pools.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import logging"),
    ("core-pure", "gpcore/testing/__init__.py", "import socket"),
    ("wire-alone", "gpcore/policy.py", "import json"),
    ("wire-alone", "gpcore/policy.py", "from cattrs import structure"),
    ("ports-outside", "gpcore/policy.py", "from gpcore import ports"),
    ("kit-optional", "gpcore/policy.py", "import hypothesis"),
    ("kit-optional", "gpadapters/cli/__init__.py", "import pytest"),
    ("kit-outside", "gpadapters/telemetry.py", "import gpcore.testing"),
    ("third-party", "gpadapters/telemetry.py", "import kubernetes"),
    ("third-party", "gpadapters/kubernetes/__init__.py", "import httpx"),
    ("adapter-layers", "gpadapters/telemetry.py", "import gpadapters.kubernetes"),
    ("adapter-layers", "gpadapters/http/__init__.py", "import gpadapters.cli"),
    ("adapter-layers", "gpadapters/newcomer.py", ""),
    ("acyclic", "gpcore/errors.py", "import gpcore.pools"),
]


def _verdict(sources: Path, contract: str) -> str:
    linter = str(Path(sys.executable).parent / "lint-imports")
    return subprocess.run(
        [linter, "--no-cache", "--contract", contract, "--config", str(ROOT / "pyproject.toml")],
        cwd=sources.parent,
        env={**os.environ, "PYTHONPATH": str(sources)},
        capture_output=True,
        text=True,
        check=False,
    ).stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = tmp_path_factory.mktemp("tree") / "src"
    shutil.copytree(SOURCES, sources, ignore=shutil.ignore_patterns("__pycache__"))
    for adapter in {file for _, file, _ in OFFENCES if file.startswith("gpadapters/") and "newcomer" not in file}:
        (sources / adapter).parent.mkdir(exist_ok=True)
        (sources / adapter).touch()  # the offences are about the contracts, not about which adapters exist
    return sources


@pytest.mark.parametrize(("contract", "file", "offence"), OFFENCES)
def test_a_contract_refuses_what_it_is_for(contract: str, file: str, offence: str, copy: Path) -> None:
    module = copy / file
    before = module.read_text() if module.exists() else None
    module.write_text(f"{before or ''}\n{offence}\n")
    try:
        verdict = _verdict(copy, contract)
        assert "BROKEN" in verdict, verdict
    finally:
        module.unlink() if before is None else module.write_text(before)
