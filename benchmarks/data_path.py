"""Answer what it costs to go through our router, beside other proxies, with every feature of ours on.

*JSON*: the upstream is nginx, which answers every request with the same 282 bytes. *SSE*: the upstream streams 50
chunks as fast as it can; what is counted are whole streams. Each request is a POST of a chat body of 2 KB. At 64 and
at 512 connections the load comes from CPU 0, and proxy and upstream share CPU 1; with one connection all of them may
use both, and once more all of them are on CPU 1 (*one core*), where no scheduler adds its noise. Every proxy has one
worker. Rounds alternate between the proxies; the table has medians with the least and the most of all rounds, ratios
are medians of the ratios within each round.

Needed: `wrk` and `nginx` from the system's packages, two CPUs, and for the proxies of PyPI an environment that this
makes (`benchmarks/_proxies.py`). What is missing is left out, with the reason.

Ours runs as `gpctl router` with a grid of 8 x 8 over three pools, priorities, retries, breakers, admission, a planner
that is asked, and all metrics. *targets named*: the requests carry targets in the body and a header, and a priority.
*disaggregated*: two grids are asked, and the decode pool is told the prefill endpoint.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks import _proxies
from benchmarks._environment import MissingError
from benchmarks._load import Load, LoadError, Run, pin, resident_mib
from benchmarks._proxies import (
    AIOHTTP,
    ENVOY,
    HOST,
    NGINX,
    NONE,
    OURS,
    OURS_NAMED,
    OURS_SPLIT,
    SGLANG,
    TOY,
    VLLM,
    Running,
)
from benchmarks._report import table, verdict

ROUNDS = 5
SECONDS = 2
NAMES = (NONE, NGINX, TOY, OURS, OURS_NAMED, OURS_SPLIT, ENVOY, VLLM, SGLANG, AIOHTTP)
RIVALS = (ENVOY, VLLM, SGLANG)
JSON, SSE = "JSON", "SSE"

_LOAD_CPU, _PROXY_CPU = (0,), (1,)
_BOTH = (0, 1)


@attrs.frozen
class Case:
    """One kind of answer asked for over so many connections."""

    kind: str
    connections: int
    one_core: bool = False

    @property
    def name(self) -> str:
        """Return the case in words."""
        return f"{self.kind} c={self.connections}{', one core' if self.one_core else ''}"

    @property
    def cpus(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the CPUs of the load, and those of the proxy and its upstream."""
        if self.one_core:
            return _PROXY_CPU, _PROXY_CPU
        return (_BOTH, _BOTH) if self.connections == 1 else (_LOAD_CPU, _PROXY_CPU)


CASES = tuple(
    Case(kind, connections, one_core)
    for kind in (JSON, SSE)
    for connections, one_core in ((1, False), (1, True), (64, False), (512, False))
    if kind == JSON or not one_core
)


# What is asked and answered.


def chat(*, stream: bool, named: bool) -> bytes:
    """Return a body of 2 KB."""
    text = "What does it cost to send this through a proxy, and how much of that is the proxy's own work? "
    body: dict[str, object] = {"model": "m", "stream": stream, "max_tokens": 128, "temperature": 0.7}
    if named:
        body["nvext"] = {"router": {"ttft_target": 300, "itl_target": 40}, "agent_hints": {"priority": 5}}
    body["messages"] = [{"role": "user", "content": ""}]
    missing = 2048 - len(json.dumps(body))
    body["messages"] = [{"role": "user", "content": (text * 30)[:missing]}]
    return json.dumps(body).encode()


def answer() -> str:
    """Return the 282 bytes of the upstream."""
    message = {"role": "assistant", "content": ""}
    found = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 480, "completion_tokens": 8, "total_tokens": 488},
    }
    message["content"] = "Hello. " * 20
    message["content"] = message["content"][: 282 - len(json.dumps(found, separators=(",", ":"))) + 140]
    return json.dumps(found, separators=(",", ":"))


@contextlib.contextmanager
def upstream(kind: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Run what answers; yield its port and its process."""
    port = _proxies.free_port()
    place = folder / f"upstream-{kind}"
    place.mkdir()
    streams = kind == SSE
    command = _proxies.script("_upstream_sse.py", port) if streams else _proxies.nginx_command(place, _server(port))
    with _proxies.started(f"upstream of {kind}", command, place, port) as process:
        yield port, process.pid


def _server(port: int) -> str:
    return f"""
    server {{
        listen {HOST}:{port} backlog=4096;
        location / {{ return 200 '{answer()}'; }}
        location = /v1/pools {{ return 200 '{{"pools":[]}}'; }}
        location = /v1/budget {{ return 200 '{{}}'; }}
    }}"""


# Measuring.


@attrs.define
class Found:
    """What was found of one proxy: its runs by case and round, and its memory by kind."""

    runs: dict[Case, dict[int, Run]] = attrs.field(factory=dict)
    resident: dict[str, float] = attrs.field(factory=dict)

    def median(self, case: Case, what: Callable[[Run], float]) -> float:
        """Return the median of *what* over the rounds of *case*."""
        return statistics.median(map(what, self.runs[case].values()))


Results = dict[str, Found]


def measure(names: Iterable[str], cases: Sequence[Case], *, rounds: int, seconds: int) -> Results:
    """Run every case with every proxy, *rounds* times in alternation."""
    results: Results = {name: Found() for name in names}
    for kind in dict.fromkeys(case.kind for case in cases):
        with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
            folder = Path(temporary)
            port, pid = stack.enter_context(upstream(kind, folder))
            serving = list(_serving(stack, results, folder, port))
            loads = _loads(folder, kind)
            _compare_answers(serving, kind)
            chosen = [case for case in cases if case.kind == kind]
            for number in range(rounds + 1):  # the first one warms up
                for case in chosen if number else chosen[-1:]:
                    pin(pid, case.cpus[1])
                    for proxy in serving[number % len(serving) :] + serving[: number % len(serving)]:
                        run = _run(proxy, case, loads[proxy.name == OURS_NAMED], seconds if number else 1)
                        if run is not None and number:
                            results[proxy.name].runs.setdefault(case, {})[number] = run
                print(f"{kind}: round {number} of {rounds}", file=sys.stderr, flush=True)
            for proxy in serving:
                if proxy.process is not None:
                    results[proxy.name].resident[kind] = resident_mib(proxy.process.pid)
    return results


def _serving(stack: contextlib.ExitStack, names: Iterable[str], folder: Path, port: int) -> Iterator[Running]:
    """Start every proxy that is there, on one CPU, so that each makes as many threads as it would for one."""
    for name in names:
        try:
            yield stack.enter_context(_proxies.running(name, folder, port))
        except (MissingError, TimeoutError) as missing:
            print(f"without {name}: {missing}", file=sys.stderr, flush=True)


def _loads(folder: Path, kind: str) -> tuple[Load, Load]:
    """Return what asks as most do, and what names its targets."""
    streams = kind == SSE
    plain = Load.of(folder, "plain", chat(stream=streams, named=False))
    named = Load.of(folder, "named", chat(stream=streams, named=True), [("x-slo-ttft-ms", "250")])
    return plain, named


def _compare_answers(serving: Iterable[Running], kind: str) -> None:
    """Say so if a proxy does not pass on what the upstream answers."""
    wanted: bytes | None = None
    for proxy in serving:
        _, body = _proxies.ask(proxy.port, chat(stream=kind == SSE, named=False))
        wanted = wanted or body
        if body != wanted:
            print(f"{proxy.name} changes the answer: {len(body)} bytes of {len(wanted)}", file=sys.stderr, flush=True)


def _run(proxy: Running, case: Case, load: Load, seconds: int) -> Run | None:
    ours, theirs = case.cpus
    pid = proxy.process.pid if proxy.process else None
    if pid is not None:
        pin(pid, theirs)
    try:
        return load.run(proxy.port, pid, connections=case.connections, seconds=seconds, cpus=ours)
    except LoadError as error:
        print(f"{proxy.name}, {case.name}: {error}", file=sys.stderr, flush=True)
        return None


# Saying it.

Cells = list[Sequence[object]]


def report(results: Results, cases: Iterable[Case]) -> Iterator[tuple[str, Sequence[str], Cells]]:
    """Yield a title, a head and the rows of each table."""
    for case in cases:
        unit = "requests/s" if case.kind == JSON else "streams/s"
        head = ("proxy", unit, "least - most", "x Envoy", "p50 ms", "p99 ms", "added p50 us", "CPU us each", "RSS MiB")
        rows: Cells = [_row(results, name, case) for name in results if results[name].runs.get(case)]
        yield case.name, head, rows


def _row(results: Results, name: str, case: Case) -> Sequence[object]:
    found = results[name]
    rates = [run.rate for run in found.runs[case].values()]
    cpu = [run.cpu_us for run in found.runs[case].values() if run.cpu_us is not None]
    alone = case.kind == JSON and case.connections == 1  # with others there it is how long one waits for them
    added = _added(results, name, case) if alone and name != NONE else None
    return (
        name,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} - {max(rates):,.0f}",
        _shown(ratio(results, name, ENVOY, case), ".2f"),
        f"{found.median(case, lambda run: run.p50_us) / 1000:.3f}",
        f"{found.median(case, lambda run: run.p99_us) / 1000:.3f}",
        _shown(added, ".0f"),
        _shown(statistics.median(cpu) if cpu else None, ".0f"),
        _shown(found.resident.get(case.kind), ".0f"),
    )


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def ratio(results: Results, name: str, other: str, case: Case) -> float | None:
    """Return the median, over the rounds, of how many times more *name* answered than *other*."""
    pairs = _pairs(results, name, other, case)
    return statistics.median(ours.rate / theirs.rate for ours, theirs in pairs) if pairs else None


def _pairs(results: Results, name: str, other: str, case: Case) -> list[tuple[Run, Run]]:
    """Return what both found in each round of which both have something."""
    ours, theirs = (results.get(one, Found()).runs.get(case, {}) for one in (name, other))
    return [(run, theirs[number]) for number, run in ours.items() if number in theirs]


def _added(results: Results, name: str, case: Case) -> float | None:
    """Return the median of what a proxy adds to the median latency without one, each within its round."""
    pairs = _pairs(results, name, NONE, case)
    return statistics.median(run.p50_us - without.p50_us for run, without in pairs) if pairs else None


def judge(results: Results, cases: Iterable[Case]) -> Iterator[tuple[str, bool, str]]:
    """Yield each goal, whether it is met, and what was found."""
    for case in cases:
        if case.kind == JSON and case.connections == 64:
            yield from _more(results, case, dict.fromkeys(RIVALS, 1.0))
        if case.kind == SSE:
            yield from _more(results, case, {VLLM: 1.0, SGLANG: 1.0, ENVOY: 0.6})
        if case.kind == JSON and case.connections == 1:
            added = {name: _added(results, name, case) for name in (OURS, *RIVALS)}
            known = {name: value for name, value in added.items() if value is not None}
            if OURS in known and len(known) > 1:
                holds = known[OURS] < min(value for name, value in known.items() if name != OURS)
                found = ", ".join(f"{name} {value:.0f} us" for name, value in known.items())
                yield f"{case.name}: less added to the median latency than {_those(known)}", holds, found


def _those(known: Iterable[str]) -> str:
    return ", ".join(name for name in known if name != OURS)


def _more(results: Results, case: Case, bounds: Mapping[str, float]) -> Iterator[tuple[str, bool, str]]:
    for name, bound in bounds.items():
        found = ratio(results, OURS, name, case)
        if found is not None:
            claim = f"more than {name}" if bound == 1.0 else f"at least {bound:g} of {name}"
            yield f"{case.name}: {claim}", found >= bound, f"{found:.2f}"


_PAGE = """---
orphan: true
---

# The data path beside other proxies

One run of `nox -s bench -- data_path` on a machine of 2 cores that others used heavily at the same time: trust the
ratios and the CPU time of an answer, not the rates. Ratios are medians within rounds, everything else medians over
{rounds} rounds of {seconds} s each. `--write` makes this page.

{about}
"""


def _write(path: Path, page: str, tables: Iterable[tuple[str, Sequence[str], Cells]], goals: Iterable[str]) -> None:
    """Write all of it as a page of the documentation."""
    parts = [page]
    for title, head, rows in tables:
        lines = [_markdown(head), _markdown(["---", *["---:"] * (len(head) - 1)]), *map(_markdown, rows)]
        parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    parts.append("## Goals\n\n" + "\n".join(f"- {goal}" for goal in goals) + "\n")
    path.write_text("\n".join(parts))


def _markdown(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="What does the way through the router cost?")
    parser.add_argument("cases", nargs="*", default=[""], help='words that a case has to have, such as "JSON c=64"')
    parser.add_argument("--proxies", nargs="*", default=[""], help="words that a proxy has to have")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--write", type=Path, help="write a page of Markdown, too")
    options = parser.parse_args()
    _proxies.main()
    cases = [case for case in CASES if any(words in case.name for words in options.cases)]
    names = [name for name in NAMES if any(words in name for words in options.proxies)]
    try:
        results = measure(names, cases, rounds=options.rounds, seconds=options.seconds)
    except MissingError as missing:
        print(f"nothing measured: {missing}", file=sys.stderr)
        return
    tables, goals = list(report(results, cases)), list(judge(results, cases))
    for title, head, rows in tables:
        print(f"\n{title}")
        table(head, rows)
    print()
    for claim, holds, found in goals:
        verdict(claim, holds=holds, found=found)
    if options.write:
        about = (__doc__ or "").partition("\n\n")[2]
        said = [f"{'met' if holds else '**missed**'}: {claim}: {found}" for claim, holds, found in goals]
        _write(options.write, _PAGE.format(rounds=options.rounds, seconds=options.seconds, about=about), tables, said)


if __name__ == "__main__":
    main()
