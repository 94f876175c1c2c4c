"""Joining Dynamo: which discovery and which transport it takes is said by the environment, as for every Dynamo process.

Rules of this file: the environment is read by the runtime itself, so whatever a version of it understands works here.
The runtime is imported when it is joined; everything else of this adapter is importable without it.
"""

import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from gpcore.errors import PortError

T = TypeVar("T")
Runtime = Any
"""Dynamo's `DistributedRuntime`; the package ships no types that reach here."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* to its end on uvloop, which comes with the runtime and hands answers over to it a third faster."""
    import uvloop  # noqa: PLC0415 (as the runtime, installed for this transport alone)

    return uvloop.run(main)


@contextlib.asynccontextmanager
async def joined() -> AsyncIterator[Runtime]:
    """Join Dynamo while the body runs, and leave its discovery afterwards; a process can do that once."""
    from dynamo.runtime import dynamo_worker  # noqa: PLC0415 (it is large, and installed for this transport alone)

    runtimes: list[Runtime] = []

    async def keep(runtime: Runtime) -> None:
        runtimes.append(runtime)

    try:
        await dynamo_worker()(keep)()
    except Exception as exc:
        raise PortError(f"Dynamo's runtime does not start: {exc}") from exc
    (runtime,) = runtimes
    try:
        yield runtime
    finally:
        runtime.shutdown()
