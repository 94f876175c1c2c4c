"""A planner of one's own: asks for as many prefill replicas as each line of its input says."""

import asyncio
import sys

from gpadapters.dynamo.client import DynamoPlannerClient
from gpadapters.dynamo.runtime import joined
from gpcore.pools import ParticipantId, Role
from gpcore.requests import Claimed, ScaleRequest, Target


async def main(infra: str, namespace: str, name: str) -> None:
    caller, participant = Claimed(f"{namespace}-{name}"), ParticipantId(namespace, name)
    async with joined() as runtime:
        client = DynamoPlannerClient(runtime, infra, timeout_s=25.0)
        line = "3"
        while line:
            said = await client.scale(ScaleRequest(caller, participant, (Target(Role.PREFILL, int(line)),)))
            sys.stdout.write(f"{said.status} {int(line)}\n")
            sys.stdout.flush()
            line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


asyncio.run(main(*sys.argv[1:]))
