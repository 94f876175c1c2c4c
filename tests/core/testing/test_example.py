"""The example of a user who tests a policy of their own does what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_example_passes_and_shows_what_a_broken_law_looks_like() -> None:
    asked = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", str(EXAMPLES / "policy_test.py")]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the law of ceiling is broken: after 1 of 1 steps the total is" in ran.stdout
    assert "2 passed" in ran.stdout
