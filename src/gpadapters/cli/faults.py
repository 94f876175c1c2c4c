"""What ends a command early.

Rules of this file: nothing is imported, so that a command which only asks a planner need not load the core.
"""

OK = 0
FAILED = 1
USAGE = 2
LATE = 3


class CommandError(Exception):
    """Tell *problems* on stderr, one line each, and end with *code*."""

    def __init__(self, *problems: str, code: int = FAILED) -> None:
        self.problems = problems
        self.code = code
        super().__init__("; ".join(problems))
