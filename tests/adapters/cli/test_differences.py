"""What is told to whoever puts this planner in the place of Dynamo's, and the module that stands in for it."""

import os
import subprocess
import sys

import pytest

from gpadapters.cli.differences import differences
from gpadapters.cli.options import settings
from gpadapters.dynamo import global_planner

SAFE = ["--managed-namespaces", "llm-a", "--max-total-gpus", "16"]


def told(*arguments: str, **environ: str) -> str:
    chosen = settings(["--transport", "dynamo", *arguments], environ={"DYN_NAMESPACE": "infra", **environ})
    return "\n".join(differences(chosen))


def test_nothing_is_told_where_no_default_is_unsafe() -> None:
    assert told(*SAFE, POD_NAMESPACE="llm") == ""


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (["--max-total-gpus", "16"], {"POD_NAMESPACE": "llm"}, "no --managed-namespaces: "),
        (["--managed-namespaces", "llm-a"], {"POD_NAMESPACE": "llm"}, "no --max-total-gpus: "),
        ([*SAFE[:2], "--max-total-gpus=-1"], {"POD_NAMESPACE": "llm"}, "no --max-total-gpus"),
        (SAFE, {}, "no POD_NAMESPACE: "),
        ([*SAFE, "--callers", "admin"], {"POD_NAMESPACE": "llm"}, "--callers: whoever says"),
    ],
)
def test_each_unsafe_default_is_told_with_what_happens_instead(
    arguments: list[str], environ: dict[str, str], sentence: str
) -> None:
    assert told(*arguments, **environ).startswith(sentence)
    assert told(*arguments, **environ).count("\n") == 0


def started(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run the stand-in, which does not get far: there is no namespace to serve in, or no runtime, or the help."""
    return subprocess.run(
        [sys.executable, "-m", "gpadapters.dynamo.global_planner", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "DYN_NAMESPACE": "", **environ},
    )


def test_the_stand_in_takes_the_peers_flags_and_serves_over_its_runtime() -> None:
    peers = ["--managed-namespaces", "a", "b", "--environment", "kubernetes", "--no-operation", "--max-total-gpus", "8"]
    done = started(*peers, "--min-total-gpus=-1", "--intent-cache-ttl-seconds", "360")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "gpctl: --transport dynamo serves in the Dynamo namespace DYN_NAMESPACE, letters, digits, '-' and '_': ''\n"
    )


def test_the_stand_in_leaves_the_transport_to_whoever_names_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert global_planner.main(["--transport=pigeon"]) == 2
    assert capsys.readouterr().err.startswith("gpctl: --transport: must be http or dynamo")


def test_help_is_the_planners() -> None:
    done = started("--help")
    assert (done.returncode, "--managed-namespaces" in done.stdout) == (0, True)
