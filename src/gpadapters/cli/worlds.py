"""What a planner works on, by its settings: a cluster or the memory, a ledger, and an election beside it.

Rules of this file: it chooses the adapters and connects them; what they do is theirs. An adapter that was not chosen
is not imported.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import attrs

from gpadapters.audit import JsonLines, appending, printing
from gpadapters.cli.options import Settings
from gpadapters.daemon import World
from gpcore.conditions import Condition
from gpcore.errors import ConfigError
from gpcore.ports import LeaseStore, LedgerStore
from gpcore.testing.stores import MemoryLedger

if TYPE_CHECKING:
    from gpadapters.kubernetes.observer import KubernetesObserver

log = logging.getLogger(__name__)


@attrs.frozen
class Connected:
    """What the planner works on, where it stands for election, and for how long nothing was heard.

    *lacking* says what it runs without, and *notify* is told what begins and ends to hold it back.
    """

    world: World
    lease: LeaseStore | None = None
    silence: Callable[[], float] | None = None
    lacking: Callable[[], Sequence[Condition]] = tuple
    notify: Callable[[Condition, bool], None] = lambda _condition, _over: None


async def connect(chosen: Settings, stack: AsyncExitStack) -> Connected:
    """Connect to what the planner works on, until *stack* is left."""
    lines = JsonLines(printing() if chosen.audit_log is None else appending(chosen.audit_log))
    if chosen.fleet is not None:
        from gpadapters.cli.fleet import cluster  # noqa: PLC0415 (the other world needs no kit)

        memory = cluster(chosen.fleet)
        ledger, lease = await _local(chosen)
        return Connected(World(memory, memory, ledger, (lines,)), lease)
    from gpadapters.kubernetes import cluster as kubernetes  # noqa: PLC0415 (the other world needs no client)
    from gpadapters.kubernetes.here import namespace_here  # noqa: PLC0415

    kubeconfig, context = chosen.kubeconfig, chosen.context
    if kubeconfig is not None and not kubeconfig.is_file():
        raise ConfigError([f"--kubeconfig: {kubeconfig} is no file"])  # the client would take it for an empty one
    home = chosen.home or namespace_here(kubeconfig=kubeconfig, context=context)
    kept_there = chosen.ledger.kind in ("auto", "kubernetes")
    domain = f"{home if kept_there else 'local'}/{chosen.domain}"
    opened = kubernetes.connect(
        chosen.namespaces or (home,),
        domain=domain,
        kubeconfig=kubeconfig,
        context=context,
        release=kubernetes.Release(chosen.release),
    )
    there = await stack.enter_async_context(opened)
    ledger, lease = await _local(chosen)
    refusal = await there.ledger_refused(home, chosen.domain) if kept_there else None
    if kept_there and (refusal is None or chosen.ledger.kind == "kubernetes"):
        ledger, lease = there.ledger(home, chosen.domain), there.lease(home, chosen.domain)
    volatile = isinstance(ledger, MemoryLedger)
    lacking = (_volatile(refusal or "as --ledger memory says"),) if volatile else ()
    for one in lacking:
        log.warning("%s: %s; apply what `gpctl manifests planner` prints to have all of it", one.kind, one.detail)
    observer = there.observer
    elects = chosen.elects and not chosen.no_operation
    world = World(observer, there.executor, ledger, (lines, there.events))
    told = partial(_lacking, observer, lacking)
    notify = await stack.enter_async_context(there.events.noticing(home))
    return Connected(world, lease if elects else None, lambda: observer.watch_age_s, told, notify)


def _lacking(observer: "KubernetesObserver", always: tuple[Condition, ...]) -> tuple[Condition, ...]:
    return (*observer.conditions, *always)


async def _local(chosen: Settings) -> tuple[LedgerStore, LeaseStore | None]:
    """Return the ledger of this machine, and the lease beside it, where several planners can share it.

    A file that cannot be read as a ledger ends the start with PortError: no later moment would make it one.
    """
    if chosen.ledger.file is not None:
        from gpadapters.sqlite.lease import SqliteLease  # noqa: PLC0415 (most planners have no such file)
        from gpadapters.sqlite.ledger import SqliteLedger  # noqa: PLC0415

        file, name = chosen.ledger.file, chosen.domain
        ledger = SqliteLedger(file, name=name)
        await ledger.load()
        return ledger, SqliteLease(file, name=name) if chosen.elects else None
    return MemoryLedger(), None


def _volatile(why: str) -> Condition:
    """Return what cannot be promised with a ledger that ends with this process."""
    return Condition(
        "ledger_volatile",
        f"the ledger is kept in this process alone ({why}), so this is not promised: the ceiling while a second "
        "planner runs, and operations and wishes after a restart",
    )
