"""`gpctl crd`: the kind of object that a ledger is, to apply once to a cluster.

Rules of this file: it prints; `gpadapters.kubernetes.crd` says what.
"""

import argparse
import sys

from gpadapters.cli.manifests import as_json, as_yaml
from gpadapters.kubernetes.crd import definition


def main(arguments: list[str]) -> int:
    """Run `gpctl crd`."""
    given = parser().parse_args(arguments)
    sys.stdout.write(as_json([definition()]) if given.output == "json" else as_yaml([definition()]))
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
    made.add_argument(
        "--output",
        "-o",
        choices=["yaml", "json"],
        default="yaml",
        metavar="{yaml,json}",
        help="how to print it (default: yaml)",
    )
    return made
