"""`python -m gpadapters.dynamo.global_router` stands in for `python -m dynamo.global_router`: the same flags and
environment, and the same endpoints.
"""  # noqa: D205

import sys
from collections.abc import Sequence

from gpadapters import cli


def main(arguments: Sequence[str]) -> int:
    """Run `gpctl router` over Dynamo's runtime, unless *arguments* say over what."""
    chosen = any(argument.partition("=")[0] == "--transport" for argument in arguments)
    return cli.main(["router", *([] if chosen else ["--transport", "dynamo"]), *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
