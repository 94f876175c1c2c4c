"""The router as a process, as the command line starts it."""

import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from tests.cluster.processes import Leashed
from tests.cluster.waiting import eventually

_START = "import sys; from gpadapters.cli.router import main; sys.exit(main(sys.argv[1:]))"
_SERVING = re.compile(r"serving on 127\.0\.0\.1:(\d+), admin on 127\.0\.0\.1:(\d+)")

Json = dict[str, Any]


def aggregated(*namespaces: str, mapping: Sequence[Sequence[int]] | None = None, retry: bool = False) -> Json:
    """Return a configuration of pools that each do all the work; the first one is the fastest."""
    last = len(namespaces) - 1
    return {
        "mode": "agg",
        "num_agg_pools": len(namespaces),
        "agg_pool_dynamo_namespaces": list(namespaces),
        "agg_pool_priorities": list(range(len(namespaces))),
        "agg_pool_selection_strategy": {
            "ttft_min_ms": 0,
            "ttft_max_ms": 1000,
            "ttft_resolution": 2,
            "itl_min_ms": 0,
            "itl_max_ms": 100,
            "itl_resolution": 2,
            "agg_pool_mapping": mapping or [[0, 0], [last, last]],
        },
        "enable_priority_retry": retry,
    }


def disaggregated(prefill: Sequence[str], decode: Sequence[str]) -> Json:
    """Return a configuration of pools that each do half of the work."""
    return {
        "mode": "disagg",
        "num_prefill_pools": len(prefill),
        "num_decode_pools": len(decode),
        "prefill_pool_dynamo_namespaces": list(prefill),
        "decode_pool_dynamo_namespaces": list(decode),
        "prefill_pool_selection_strategy": {
            "ttft_min_ms": 0,
            "ttft_max_ms": 1000,
            "ttft_resolution": 2,
            "isl_min": 0,
            "isl_max": 8000,
            "isl_resolution": 1,
            "prefill_pool_mapping": [[0, len(prefill) - 1]],
        },
        "decode_pool_selection_strategy": {
            "itl_min_ms": 0,
            "itl_max_ms": 100,
            "itl_resolution": 2,
            "context_length_min": 0,
            "context_length_max": 8000,
            "context_length_resolution": 1,
            "decode_pool_mapping": [[0, len(decode) - 1]],
        },
    }


class RouterProcess:
    """A router that runs."""

    def __init__(self, folder: Path, config: Json, *, pools: Iterable[str] = (), flags: Sequence[str] = ()) -> None:
        """Start it and wait until it serves."""
        self.config = folder / "router.json"
        self.config.write_text(json.dumps(config))
        named = [f"--pool={pool}" for pool in pools]
        self._process = Leashed(
            "router",
            [
                *(sys.executable, "-c", _START, "--config", str(self.config), "--model-name", "m"),
                *("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--sweep", "0.02", "--drain-linger", "0"),
                *named,
                *flags,
            ],
            log=folder / "router.log",
        )
        self._process.start()
        self.port, self.admin = map(int, eventually(self._ports, within_s=30).groups())  # type: ignore[union-attr]

    @property
    def url(self) -> str:
        """Return where clients go."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return its process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Say whether it runs."""
        return self._process.running

    @property
    def log(self) -> str:
        """Return the end of its log."""
        return self._process.tail()

    def reconfigure(self, text: str) -> None:
        """Write its configuration anew."""
        self.config.write_text(text)

    def stop(self) -> None:
        """Ask it to stop."""
        os.kill(self.pid, signal.SIGTERM)

    def ask_admin(self, path: str) -> tuple[int, str]:
        """Return what the admin port answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def measure(self, name: str, **labels: str) -> float:
        """Return the sum of the series *name* that have *labels*."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = self.ask_admin("/metrics")[1].splitlines()
        found = [line for line in lines if re.match(rf"{name}[{{ ]", line) and all(one in line for one in wanted)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def resident_kib(self) -> int:
        """Return the memory that it has."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))

    def __enter__(self) -> Self:
        """Give it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()

    def _ports(self) -> re.Match[str] | None:
        if not self._process.running:
            raise RuntimeError(self._process.tail())
        return _SERVING.search(self._process.tail(200))
