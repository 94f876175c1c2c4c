from pathlib import Path
from typing import get_args

from gpadapters.http.codes import CODES, as_markdown
from gpcore.decisions import Reason

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "http-codes.md"


def test_every_reason_of_the_core_has_its_code() -> None:
    assert {reason.kind for reason in get_args(Reason)} <= set(CODES)


def test_only_answers_that_are_decided_succeed() -> None:
    decided = {kind for kind, code in CODES.items() if code.http.value == 200}
    assert decided == {"success", "scaling", "above_ceiling", "below_floor"}
    assert {code.status for code in CODES.values()} == {"success", "scaling", "rejected", "error"}


def test_the_page_of_the_reference_is_current() -> None:
    assert PAGE.read_text() == as_markdown(), "write it anew: python -m tests.adapters.http.test_codes"


if __name__ == "__main__":
    PAGE.write_text(as_markdown())
