"""What every test runs under."""

import os

from hypothesis import settings

# Two cores are shared with servers and other workers, so how long an example takes says nothing about the code.
settings.register_profile("gpcore", deadline=None)
if "CI" not in os.environ:  # there, Hypothesis's own "ci" profile makes a red build be about the change, not about luck
    settings.load_profile("gpcore")
