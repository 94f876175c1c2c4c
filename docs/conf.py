"""How Sphinx builds the documentation; `python3 noxfile.py docs` does."""

import tomllib
from pathlib import Path

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _project["name"]
release = version = _project["version"]
author = "The gpcore authors"
project_copyright = author

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
exclude_patterns = ["_build", "changes/*"]
nitpicky = False  # the types of attrs and numpy are not in an inventory that can be reached offline

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "imported-members": True}

myst_heading_anchors = 3
suppress_warnings = ["myst.strikethrough"]
