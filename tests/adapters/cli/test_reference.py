from pathlib import Path

from gpadapters.cli.reference import as_markdown

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "gpctl.md"


def test_the_page_of_the_reference_is_current() -> None:
    assert PAGE.read_text() == as_markdown(), "write it anew: python -m tests.adapters.cli.test_reference"


if __name__ == "__main__":
    PAGE.write_text(as_markdown())
