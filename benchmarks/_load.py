"""Load by wrk, and what a proxy costs meanwhile as the kernel counts it.

Rules of this file: one run is one `Run`; a run with a failed request is an error, because refusals are fast; numbers
of a process are those of all its threads and children.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from benchmarks._environment import MissingError
from benchmarks._proxies import HOST, PATH

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
%s
wrk.body = [==[%s]==]
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write("\\n", string.format(
    '{"requests": %%d, "took_us": %%d, "failed": %%d, "p50_us": %%d, "p99_us": %%d}',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)), "\\n")
end
"""


class LoadError(Exception):
    """A run in which requests failed."""


@attrs.frozen
class Run:
    """What one run found."""

    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float | None
    """CPU microseconds of the proxy for each answer."""


@attrs.frozen
class Load:
    """POST *body* with *headers* again and again."""

    script: Path

    @classmethod
    def of(cls, folder: Path, name: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> "Load":
        """Write the script that wrk reads."""
        said = "\n".join(f'wrk.headers["{header}"] = "{value}"' for header, value in headers)
        path = folder / f"{name}.lua"
        path.write_text(_SCRIPT % (said, body.decode()))
        return cls(path)

    def run(self, port: int, pid: int | None, *, connections: int, seconds: int, cpus: Iterable[int]) -> Run:
        """Load *port* from *cpus* and return what came of it; *pid* is the proxy's."""
        taskset, wrk = shutil.which("taskset"), shutil.which("wrk")
        if taskset is None or wrk is None:
            raise MissingError("no `taskset` or no `wrk`; the system's packages util-linux and wrk have them")
        flags = ("-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(self.script))
        before = cpu_seconds(pid) if pid else 0.0
        done = subprocess.run(
            (taskset, "-c", ",".join(map(str, cpus)), wrk, *flags, f"http://{HOST}:{port}{PATH}"),
            check=True,
            capture_output=True,
            text=True,
        )
        spent = cpu_seconds(pid) - before if pid else None
        found = json.loads(done.stdout.strip().splitlines()[-1])
        answers = found["requests"]
        if found["failed"] or not answers:
            raise LoadError(f"{found['failed']} requests failed and {answers} did not")
        per_answer = None if spent is None else spent * 1e6 / answers
        return Run(answers / (found["took_us"] / 1e6), found["p50_us"], found["p99_us"], per_answer)


def processes(pid: int) -> Iterator[int]:
    """Yield *pid* and all its children."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from processes(int(child))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of *pid* and all its children."""
    tasks = [task for one in processes(pid) for task in Path(f"/proc/{one}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_mib(pid: int, line: str = "VmRSS") -> float:
    """Return the memory of *pid* and all its children."""
    return sum(_kib(one, line) for one in processes(pid)) / 1024


def _kib(pid: int, line: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(one.split()[1] for one in status if one.startswith(line)))


def pin(pid: int, cpus: Iterable[int]) -> None:
    """Let *pid*, all its children and all their threads run on *cpus* only."""
    wanted = set(cpus)
    for one in processes(pid):
        for task in Path(f"/proc/{one}/task").iterdir():
            os.sched_setaffinity(int(task.name), wanted)
