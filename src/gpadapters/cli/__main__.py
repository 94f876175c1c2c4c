"""`python -m gpadapters.cli` is `gpctl`."""

import sys

from gpadapters.cli import main

if __name__ == "__main__":
    sys.exit(main())
