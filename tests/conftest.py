"""What every test runs under."""

import os

import pytest
from hypothesis import settings
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# Two cores are shared with servers and other workers, so how long an example takes says nothing about the code.
settings.register_profile("gpcore", deadline=None)
if "CI" not in os.environ:  # there, Hypothesis's own "ci" profile makes a red build be about the change, not about luck
    settings.load_profile("gpcore")


class _FilesTogether(LoadScopeScheduling):  # type: ignore[misc] # it has no types
    """Gives a worker a whole file of tests that share what is slow to make, and single tests of all others.

    `xdist_group` would say it at the tests, but with pytest 9.2 pytest-xdist 3.8 does not hear it.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.startswith(("tests/chaos/", "tests/docs/")) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Distribute the tests where they are distributed by groups."""
    return _FilesTogether(config, log) if config.getvalue("dist") == "loadgroup" else None
