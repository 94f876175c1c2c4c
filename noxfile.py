"""Every task of this project, one session each.

`python3 noxfile.py` lists the sessions and `python3 noxfile.py tests` runs one. Neither needs anything but Python
with venv: where nox is not importable, this file makes an environment for it and starts again in there, because a
system's own Python often refuses to install anything (PEP 668). `nox -s tests` does the same where nox is installed.

Rules of this file: sessions share one environment, since installing it is most of what a short session costs; only
`wheel` has its own, to show what a user gets.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import NoReturn

OLDEST = (3, 11)
NOX = "nox>=2025.5.1"
ROOT = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / ".nox" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def _new_environment(folder: Path, *requirements: str) -> Path:
    """Make an environment in *folder*, install *requirements* and return its folder of programs."""
    venv.create(folder, clear=True, with_pip=True)
    install = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", *requirements]
    subprocess.run([str(folder / "bin" / "python"), *install], check=True, cwd=ROOT)
    return folder / "bin"


def _has_nox(python: Path) -> bool:
    return python.exists() and subprocess.call([python, "-c", "import nox"], stderr=subprocess.DEVNULL) == 0


def _run_again_with_nox() -> NoReturn:
    """Replace this process by one that can import nox."""
    if sys.version_info < OLDEST:  # said here, because pip would say it in a page of errors
        sys.exit(f"Python {'.'.join(map(str, OLDEST))} or newer is needed; this is {sys.version.split()[0]}")
    python = ENVIRONMENTS / "nox" / "bin" / "python"
    if not _has_nox(python):
        print(f"making an environment for nox in {python.parents[1].relative_to(ROOT)}", file=sys.stderr)  # noqa: T201
        _new_environment(python.parents[1], NOX)
    os.execv(python, [str(python), __file__, *sys.argv[1:]])  # noqa: S606 (the same file, in our own environment)


try:
    import nox
    from nox.project import dependency_groups, load_toml
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    _run_again_with_nox()

nox.needs_version = NOX.removeprefix("nox")
nox.options.default_venv_backend = "none"  # the shared environment below


def _run(session: nox.Session, program: str, *arguments: str, **environment: str) -> None:
    """Run one program of the shared environment, which is made first where it is missing or out of date."""
    programs = _shared_environment()
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    session.run(str(programs / program), *arguments, env={"PATH": path, **environment})


def _shared_environment() -> Path:
    folder = ENVIRONMENTS / "shared"
    made_from = folder / "made-from"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if not made_from.exists() or made_from.read_text() != wanted:
        groups = dependency_groups(load_toml(ROOT / "pyproject.toml"), "dev")
        _new_environment(folder, "--editable", ".[all]", *groups)
        made_from.write_text(wanted)  # last, so that an interrupted installation is not taken for a good one
    return folder / "bin"


@nox.session
def demo(session: nox.Session) -> None:
    """Run the main job: the real daemon and its HTTP API on an embedded cluster, with real requests against it."""
    _run(session, "python", "examples/demo.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Pass the tests, with the whole of gpcore covered, branches included."""
    if session.posargs:  # a selection covers only a part, so it is not asked for the whole
        _run(session, "pytest", *session.posargs)
    else:
        _run(
            session, "pytest", "--numprocesses=2", "--dist=loadgroup", "--cov", "--ignore=tests/docs"
        )  # docs has those


@nox.session
def dynamo(session: nox.Session) -> None:
    """Pass the tests that need Dynamo itself: two versions of its runtime, its own planner, frontend and workers."""
    _run(session, "python", "-m", "tests.dynamo.environments")
    _run(session, "pytest", *(session.posargs or ["--numprocesses=2", "--dist=loadfile", "tests/dynamo"]))


@nox.session
def simulate(session: nox.Session) -> None:
    """Let planners live through thousands of histories in which everything goes wrong; `-- --help` says more."""
    _run(session, "python", "-m", "tests.simulation", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    _run(session, "ruff", "check")
    _run(session, "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    _run(session, "mypy", *session.posargs)


@nox.session
def imports(session: nox.Session) -> None:
    """Check the import contracts."""
    _run(session, "lint-imports", "--no-cache", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, warnings being errors, and run every code block of it and of the README."""
    _run(session, "sphinx-build", "--fail-on-warning", "--keep-going", "--quiet", "docs", "docs/_build/html")
    _run(session, "pytest", "tests/docs")


@nox.session
def bench(session: nox.Session) -> None:
    """Answer the questions of benchmarks/, all of them or those named, beside the peer where it can be installed."""
    _run(session, "python", "-m", "benchmarks._peer")
    for question in session.posargs or sorted(path.stem for path in Path("benchmarks").glob("[!_]*.py")):
        _run(session, "python", "-m", f"benchmarks.{question}")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the distributions, and import the core from the wheel with nothing but its base dependencies."""
    with tempfile.TemporaryDirectory() as folder:
        _run(session, "python", "-m", "build", "--outdir", folder)
        (built,) = Path(folder).glob("*.whl")
        programs = _new_environment(Path(folder) / "user", str(built))
        session.run(str(programs / "python"), "-Ic", IMPORT_AND_TELL)


IMPORT_AND_TELL = """
import time
start = time.perf_counter()
import gpcore
print(f"import gpcore: {len(gpcore.__all__)} names in {time.perf_counter() - start:.3f} s, base dependencies alone")
"""


def _arguments(given: list[str]) -> list[str]:
    """Turn `tests lint -- -k law` into what nox takes; no session asks for the list."""
    if given and given[0].startswith("-"):
        return given
    return ["--session", *given] if given else ["--list"]


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.argv[1:] = ["--noxfile", __file__, *_arguments(sys.argv[1:])]
    nox.main()
