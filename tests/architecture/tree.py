"""Where the code is, for the tests of its shape."""

import ast
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src"
CORE = SOURCES / "gpcore"
ADAPTERS = SOURCES / "gpadapters"


def modules(package: Path) -> list[Path]:
    """Return the Python files of *package*."""
    return sorted(package.rglob("*.py"))


def name(path: Path) -> str:
    """Return *path* as a reader of a test's report knows it."""
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of *path*."""
    return ast.parse(path.read_text(), path)


def tracked() -> list[Path]:
    """Return the files that belong to the project, be they committed or about to be."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for relative in files.split("\0") if relative and (path := ROOT / relative).is_file()]
