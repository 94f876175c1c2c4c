"""Dynamo as clients see it: its own frontend, pools of its own mockers behind its own routers, and our router between.

Rules of this file: everything but the router is Dynamo's own. Who served a request is told by the logs of the pools'
routers, which have its id.
"""

import contextlib
import itertools
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import httpx
from openai import OpenAI

from tests.cluster.processes import Leashed
from tests.cluster.waiting import eventually
from tests.dynamo import environments, model
from tests.dynamo.plane import READY_WITHIN_S, Plane, running

NAMESPACE = "front"
MODEL = "served"
_WORDS = 3_000
_ROUTER = r"serving \S+ as front\.global_router"


_PORTS = itertools.count(20_000 + os.getpid() % 100 * 100)  # processes of tests begin apart


def free_port() -> int:
    """Return a port that nobody listens on, of those that the runtime takes for its own page; each one once."""
    for port in _PORTS:
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    raise AssertionError


@attrs.define(eq=False)
class Serving:
    """A Dynamo whose frontend serves one model from the pools of one configuration."""

    plane: Plane
    config: Mapping[str, Any]
    port: int = attrs.field(factory=free_port)
    system_port: int = attrs.field(factory=free_port)
    router: Leashed = attrs.field(init=False)
    client: OpenAI = attrs.field(init=False)
    """It never tries again."""
    _files: Path = attrs.field(init=False)
    workers: dict[str, Leashed] = attrs.field(factory=dict)
    routers: dict[str, Leashed] = attrs.field(factory=dict)
    _running: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        """Start the frontend and the router, and no pool yet."""
        self._files = words(self.plane.folder / "model")
        (self.plane.folder / "router.json").write_text(json.dumps(self.config))
        flags = ("--http-host", "127.0.0.1", "--http-port", str(self.port), "--namespace", NAMESPACE)
        frontend = self._stock("frontend", "dynamo.frontend", *flags)
        self.router = self.another("router", DYN_SYSTEM_PORT=str(self.system_port))
        with contextlib.ExitStack() as stack:
            frontend.start()
            stack.callback(frontend.kill)
            stack.enter_context(running(self.router, _ROUTER))
            eventually(lambda: MODEL in self.models(), within_s=READY_WITHIN_S, every_s=0.1)
            where = f"http://127.0.0.1:{self.port}/v1"
            self.client = stack.enter_context(OpenAI(base_url=where, api_key="none", max_retries=0, timeout=120))
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill everything."""
        for process in (*self.routers.values(), *self.workers.values()):
            process.kill()
        self._running.close()

    def another(self, name: str, **environ: str) -> Leashed:
        """Return our router, with the flags that its peer's would have and the module's name in the place of its."""
        flags = ("--config", str(self.plane.folder / "router.json"), "--model-name", MODEL, "--namespace", NAMESPACE)
        ours = ("--model-path", str(self._files), "--drain-linger", "1", "--wait-for-replica", "60")
        return self.plane.ours(name, "gpadapters.dynamo.global_router", *flags, *ours, **environ)

    def succeed(self, name: str) -> None:
        """Start our router anew, as *name*, after the end of the one before."""
        self.router = self.another(name, DYN_SYSTEM_PORT=str(self.system_port))
        self._running.enter_context(running(self.router, _ROUTER))

    def start(self, namespace: str, *flags: str, component: str = "backend") -> None:
        """Start the pool *namespace*: a worker and the router in front of it."""
        endpoint = f"{namespace}.{component}.generate"
        model_flags = ("--model-path", str(self._files), "--model-name", f"{namespace}-model", "--block-size", "64")
        worker = ("--endpoint", f"dyn://{endpoint}", "--speedup-ratio", "1", *model_flags, *flags)
        self.workers[namespace] = self._stock(f"worker-{namespace}", "dynamo.mocker", *worker)
        router = ("--endpoint", endpoint, "--router-block-size", "64")
        self.routers[namespace] = self._stock(f"router-{namespace}", "dynamo.router", *router)
        self.workers[namespace].start()
        self.routers[namespace].start()

    def models(self) -> list[str]:
        """Return what the frontend lists."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/v1/models", timeout=5)
        except httpx.TransportError:
            return []
        return [one["id"] for one in answer.json()["data"]]

    def asks(self, *, ttft: float = 100.0, itl: float = 10.0, priority: int | None = None) -> dict[str, Any]:
        """Return what a request says that wants these targets."""
        hints = {} if priority is None else {"agent_hints": {"priority": priority}}
        return {"nvext": {"router": {"ttft_target": ttft, "itl_target": itl}, **hints}}

    def stream(self, tokens: int, **asks: Any) -> Iterator[Any]:  # noqa: ANN401 (targets, as `asks` takes them)
        """Stream a chat of *tokens* tokens."""
        said = [{"role": "user", "content": "one two three"}]
        return iter(
            self.client.chat.completions.create(
                model=MODEL,
                messages=said,  # type: ignore[arg-type]
                max_tokens=tokens,
                stream=True,
                extra_body=self.asks(**asks),
            )
        )

    def served(self, identity: str) -> set[str]:
        """Return the pools whose routers have seen the request that an answer with this *identity* is of."""
        request = identity.removeprefix("chatcmpl-").removeprefix("cmpl-")
        return {name for name, router in self.routers.items() if request in router.log.read_text(errors="replace")}

    def metric(self, name: str, **labels: str) -> float:
        """Return one number of our router's, from the runtime's own page."""
        page = httpx.get(f"http://127.0.0.1:{self.system_port}/metrics", timeout=5).text
        lines = [line for line in page.splitlines() if re.match(rf"{name}[{{ ]", line)]
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if all(f'{k}="{v}"' in line for k, v in labels.items())
        )

    def _stock(self, name: str, module: str, *arguments: str) -> Leashed:
        path = environments.stock(self.plane.version)["PYTHONPATH"]
        return self.plane.stock(name, "-m", module, *arguments, PYTHONPATH=path)


def words(folder: Path) -> Path:
    """Write a model whose every token is a word, also those that the mocker makes up."""
    model.write(folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    known = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {**known, **{f"w{at}": at for at in range(len(known), _WORDS)}}
    path.write_text(json.dumps(tokenizer))
    return folder


def text(chunks: Sequence[Any]) -> str:
    """Return what the chunks of a stream say together."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
