from pathlib import Path
from typing import get_args

import pytest

from gpadapters.http import codes, openapi
from gpadapters.http.codes import CODES
from gpcore.decisions import Reason

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PAGES = {"http-codes.md": codes.as_markdown, "http.md": openapi.as_markdown}


def test_every_reason_of_the_core_has_its_code() -> None:
    assert {reason.kind for reason in get_args(Reason)} <= set(CODES)


def test_only_answers_that_are_decided_succeed() -> None:
    decided = {kind for kind, code in CODES.items() if code.http.value == 200}
    assert decided == {"success", "scaling", "above_ceiling", "below_floor", "frozen", "limit_reached"}
    assert {code.status for code in CODES.values()} == {"success", "scaling", "rejected", "error"}


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_of_the_reference_are_current(page: str) -> None:
    assert (REFERENCE / page).read_text() == PAGES[page](), "write it anew: python -m tests.adapters.http.test_codes"


if __name__ == "__main__":
    for page, as_markdown in PAGES.items():
        (REFERENCE / page).write_text(as_markdown())
