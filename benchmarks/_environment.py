"""Environments of their own for what ours is measured beside: it must not decide which versions we run on.

They are kept under `.nox/`. Where one cannot be made, a benchmark says what is missing and why, and shows the rest.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[1]


class MissingError(Exception):
    """What ours is to be measured beside cannot be had; the text says why."""


@attrs.frozen
class Environment:
    """A virtual environment of this *name* under `.nox/`, for *what* it says."""

    name: str
    what: str

    @property
    def folder(self) -> Path:
        """Return where it is."""
        return ROOT / ".nox" / self.name

    @property
    def programs(self) -> Path:
        """Return the folder of its programs."""
        return self.folder / "bin"

    @property
    def made(self) -> Path:
        """Return the file that is there when it is complete."""
        return self.folder / "made"

    def make(self, *installs: Sequence[str]) -> None:
        """Make it with the interpreter that runs us, where it is missing or of other *installs*: what pip is told."""
        wanted = "\n".join(" ".join(install) for install in installs)
        if self.made.exists() and self.made.read_text() == wanted:
            return
        print(f"making an environment for {self.what} in {self.folder.relative_to(ROOT)}", file=sys.stderr)
        if self.folder.is_symlink():
            self.folder.unlink()  # where it leads to is not ours to clear
        _call(sys.executable, "-m", "venv", "--clear", str(self.folder))
        pip = (str(self.programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        for install in installs:
            _call(*pip, *install)
        self.made.write_text(wanted)  # last, so that an interrupted installation is not taken for a good one


def _call(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise MissingError(f"`{' '.join(command[1:])}` failed: {done.stderr.strip()[-300:]}")
