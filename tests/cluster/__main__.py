"""The fake operator as a process of its own: `python -m tests.cluster KUBECONFIG VERSION`, steered by lines of JSON."""

import sys
from pathlib import Path

from tests.cluster.operator import main

main(Path(sys.argv[1]), sys.argv[2])
