"""`gpctl crd`: the kind of object that a ledger is, to apply once to a cluster.

Rules of this file: it prints; `gpadapters.kubernetes.crd` says what.
"""

import argparse
import sys

from gpadapters.cli.manifests import add_form, printed
from gpadapters.kubernetes.crd import definition


def main(arguments: list[str]) -> int:
    """Run `gpctl crd`."""
    given = parser().parse_args(arguments)
    sys.stdout.write(printed([definition()], given.output))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of `gpctl crd`."""
    made = argparse.ArgumentParser(
        prog="gpctl crd",
        usage="gpctl crd [-o yaml|json]",
        description="Print the CustomResourceDefinition of GPULedger, where the planner writes down what it promises "
        "before it does it.",
        epilog="Apply with: gpctl crd | kubectl apply -f -",
        allow_abbrev=False,
    )
    add_form(made, "it")
    return made
