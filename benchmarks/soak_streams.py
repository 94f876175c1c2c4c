"""Answer whether 1,000 concurrent streams for a minute lose anything, and whether memory stays flat.

Each client asks for a stream, reads all 50 events, compares them byte for byte with what the engine said and asks
again on the same connection, until the time is over; then what is under way is read to its end. An event comes every
100 ms to every stream, so that they all are open at once and what is measured is the router and not the machine.

*lost* counts the streams that broke off or that were not what the engine said. Memory is that of the router: flat
means that after the first seconds, in which connections are made, it grows by no more than a twentieth.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import cast

import uvloop

from benchmarks import _proxies
from benchmarks._load import cpu_seconds, resident_mib
from benchmarks._report import table, verdict
from benchmarks._upstream_sse import events
from benchmarks.data_path import chat

STREAMS = 1_000
SECONDS = 60.0
PAUSE_MS = 100
SETTLED_S = 10.0
MOST_GROWTH = 1.05

_SAID = b"".join(events())
_LAST = b"\r\n0\r\n\r\n"


class Tally:
    """What became of all streams."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.whole = 0
        self.lost = 0
        self.reasons: dict[str, int] = {}
        self.first_byte_s: list[float] = []

    def lose(self, why: str) -> None:
        """Count a stream that was lost."""
        self.lost += 1
        self.reasons[why] = self.reasons.get(why, 0) + 1


class Reader(asyncio.Protocol):
    """A client that asks for one stream after the other."""

    def __init__(self, tally: Tally, until: float) -> None:
        """Begin unconnected."""
        self._tally = tally
        self._until = until
        self._got: list[bytes] = []
        self._asked = 0.0
        self._transport: asyncio.Transport | None = None
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count what it took with it."""
        if not self.ended.done():
            self._tally.lose(f"the connection ended: {exc}")
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take a part of a stream; at its end, look at it and ask for the next one."""
        if not self._got:
            self._tally.first_byte_s.append(time.perf_counter() - self._asked)
        self._got.append(data)
        if not data.endswith(_LAST[-len(data) :]) or not b"".join(self._got[-len(_LAST) :]).endswith(_LAST):
            return
        found = _body(b"".join(self._got))
        if found == _SAID:
            self._tally.whole += 1
        else:
            self._tally.lose(f"other bytes: {found[:80]!r}")
        if self._transport is None:
            return
        if time.perf_counter() < self._until:
            self._ask(self._transport)
        else:
            self.ended.set_result(None)
            self._transport.close()

    def _ask(self, transport: asyncio.Transport) -> None:
        self._got = []
        self._asked = time.perf_counter()
        transport.write(_REQUEST)


def _body(answer: bytes) -> bytes:
    """Return the body that *answer* has in chunks."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        return answer
    parts: list[bytes] = []
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return b"".join(parts)
        parts.append(rest[:length])
        rest = rest[length + 2 :]


def _request() -> bytes:
    body = chat(stream=True, named=False)
    head = f"POST {_proxies.PATH} HTTP/1.1\r\nhost: m\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


_REQUEST = _request()


async def soak(port: int, pid: int, *, streams: int, seconds: float) -> tuple[Tally, list[float]]:
    """Keep *streams* open for *seconds*; return what became of them, and the memory of *pid* each second."""
    tally, loop = Tally(), asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    readers: list[Reader] = []
    for _ in range(streams):
        _, reader = await loop.create_connection(lambda: Reader(tally, until), _proxies.HOST, port)
        readers.append(reader)
    resident: list[float] = []
    ending = asyncio.gather(*(reader.ended for reader in readers))
    while not ending.done() and time.perf_counter() < until + 30:
        if time.perf_counter() < until:
            resident.append(resident_mib(pid))
        await asyncio.wait([ending], timeout=1.0)
    for reader in readers:
        if not reader.ended.done():
            tally.lose("it never ended")
            reader.ended.set_result(None)
    await ending
    return tally, resident


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Do a thousand streams lose anything?")
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "engine").mkdir()
        (folder / "router").mkdir()
        back = _proxies.free_port()
        command = _proxies.script("_upstream_sse.py", back, PAUSE_MS)
        with (
            _proxies.started("engine", command, folder / "engine", back),
            _proxies.running(_proxies.OURS, folder / "router", back) as router,
        ):
            assert router.process is not None
            pid = router.process.pid
            idle, spent = resident_mib(pid), cpu_seconds(pid)
            tally, resident = uvloop.run(soak(router.port, pid, streams=options.streams, seconds=options.seconds))
            spent = cpu_seconds(pid) - spent
    _report(tally, resident, idle=idle, cpu_us=spent * 1e6 / max(1, tally.whole + tally.lost))


def _report(tally: Tally, resident: list[float], *, idle: float, cpu_us: float) -> None:
    settled = resident[min(int(SETTLED_S), len(resident) - 1) :]
    first, last = statistics.median(settled[:5]), statistics.median(settled[-5:])
    taken = sorted(tally.first_byte_s)
    table(
        ("streams", "lost", "RSS idle", "settled", "end", "most MiB", "first byte p50", "p99 ms", "CPU us each"),
        [
            (
                f"{tally.whole:,}",
                tally.lost,
                *(f"{value:.1f}" for value in (idle, first, last, max(resident))),
                *(f"{taken[int(len(taken) * share)] * 1000:.2f}" for share in (0.5, 0.99)),
                f"{cpu_us:.0f}",
            )
        ],
    )
    for why, count in tally.reasons.items():
        print(f"lost {count}: {why}")
    verdict("nothing is lost", holds=tally.lost == 0, found=f"{tally.lost} of {tally.whole + tally.lost:,}")
    verdict("memory is flat", holds=last <= first * MOST_GROWTH, found=f"{last / first:.3f} of what it was settled")


if __name__ == "__main__":
    main()
