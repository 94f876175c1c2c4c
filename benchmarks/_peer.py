"""The peer: ai-dynamo 1.4.2 in an environment of its own, because it wants older clients than we do.

`python -m benchmarks._peer` makes the environment where it is missing; `nox -s bench` does that first. Where it cannot
be made the benchmarks print our side alone and say why.

Rules of this file: nothing of the peer is imported into our process; what is asked of it goes to a process of its
environment as lines of JSON.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks._environment import Environment, MissingError

VERSION = "1.4.2"
_ENVIRONMENT = Environment(f"ai-dynamo-{VERSION}", f"ai-dynamo {VERSION}")
_ITSELF = (f"ai-dynamo=={VERSION}", f"ai-dynamo-runtime=={VERSION}")
# What its planners, its routers and its mocker import. Its own list also has the inference engines' tools.
_REQUIREMENTS = (
    *("aiohttp<4", "kubernetes>=32.0.1,<33", "msgspec", "pandas", "plotly", "prometheus-client<1", "pydantic<=2.13"),
    *("pyzmq", "redis", "scikit-learn", "scipy", "tqdm", "transformers", "typing-extensions", "uvloop", "zstandard"),
    *("filterpy", "grpcio", "pmdarima", "prometheus-api-client", "prophet", "protobuf"),  # the local planner alone
)


class Peer:
    """A process of the peer's environment that answers each line of JSON with one."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Speak with *process*."""
        self._process = process

    def ask(self, question: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Return the answer to *question*."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{json.dumps(question)}\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise MissingError(f"its process ended with {self._process.wait()}")
        return json.loads(answer)


@contextlib.contextmanager
def running(script: str, *arguments: str) -> Iterator[Peer]:
    """Run *script*, a file beside this one, in the peer's environment."""
    if not _ENVIRONMENT.made.exists():
        raise MissingError(f"no environment for ai-dynamo {VERSION}; `python -m benchmarks._peer` makes it")
    command = [str(_ENVIRONMENT.programs / "python"), str(Path(__file__).with_name(script)), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Peer(process)
        finally:
            process.kill()


def make() -> None:
    """Make the environment with the interpreter that runs us, so that it is the same on both sides."""
    _ENVIRONMENT.make(("--no-deps", *_ITSELF), _REQUIREMENTS)


def main() -> None:
    """Make the environment, or say why there is none; neither is a failure."""
    try:
        make()
    except MissingError as missing:
        print(f"no peer to compare with: {missing}", file=sys.stderr)


if __name__ == "__main__":
    main()
