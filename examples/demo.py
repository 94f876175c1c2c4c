"""The main job in eight requests: a real planner daemon, its HTTP API, and what it does with a GPU budget.

Run by `python3 noxfile.py demo`. Everything that is said here is asserted too, so this file fails if it is not true.
The daemon works on a cluster in its own memory (examples/fleet.yaml); on Kubernetes nothing but its flags differs.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

Json = dict[str, Any]

FLEET = Path(__file__).with_name("fleet.yaml")
GPCTL = [sys.executable, "-m", "gpadapters.cli"]
PLANNER = [
    *("--environment", "memory", "--fleet", str(FLEET), "--listen", "127.0.0.1:0"),
    *("--managed-namespaces", "llm-chat", "llm-code"),
    *("--min-total-gpus", "14", "--max-total-gpus", "16"),
]
HTTP = build_opener(ProxyHandler({}))  # the daemon is on this machine, whatever proxy is set


def story(url: str) -> None:
    """Ask for this and that, and check every answer."""
    tell("Two models share between 14 and 16 GPUs. They use 14:")
    show("get", "pools", server=url)

    tell("1. chat wants one more decode replica. It fits alone:")
    answer = scale(url, "llm/chat", decode=5)
    assert (answer["status"], answer["current_replicas"]["decode"]) == ("success", 5), answer

    tell("2. chat wants four more prefill replicas. That would be 19 GPUs:")
    refused = scale(url, "llm/chat", prefill=6)
    assert (refused["status"], refused["reason"]["kind"]) == ("rejected", "above_ceiling"), refused
    assert "the largest count that fits is 3" in refused["message"], refused

    tell("3. code gives four GPUs back. Alone that would leave 11, but the planner remembers what chat wished:")
    answer = scale(url, "llm/code", decode=0)
    assert answer["status"] == "scaling", answer
    assert [[one["after"] for one in step] for step in answer["plan"]] == [[0], [5]], answer
    tell("   chat gets as many as the floor needs, and not before code's GPUs are seen free:")
    ended = eventually(url, f"/v1/operations/{answer['operation_id']}", "success")
    print(f"   {ended['status']}: {ended['message']}")

    tell("4. Somebody who is not managed wants something:")
    answer = scale(url, "llm/chat", decode=6, caller="llm-batch", expected=403)
    assert "llm-batch not authorized" in answer["message"], answer

    tell("5. code asks for what it has already. Nothing is written:")
    answer = scale(url, "llm/code", prefill=2)
    assert (answer["status"], answer["plan"]) == ("success", []), answer

    tell("6. What if chat asked for another decode replica? A dry run changes nothing and remembers nothing:")
    answer = ask(url, "/v1/decide", body("llm/chat", decode=6))
    print(f"   {answer['message']}")
    assert (answer["status"], answer["total_after"]) == ("approved", 15), answer

    tell("7. chat gives three decode replicas back. That would leave 11 GPUs in use, and there is a floor:")
    answer = scale(url, "llm/chat", decode=2)
    assert (answer["status"], answer["reason"]["kind"]) == ("rejected", "below_floor"), answer
    assert "the smallest count that fits is 3, with llm/chat/prefill 5 to 6" in answer["message"], answer

    tell("8. Why was the second request refused?")
    assert "above_ceiling" in show("explain", refused["decision_id"], server=url)

    tell("This is how it stands now:")
    assert len(show("get", "pools", server=url).splitlines()) == 5
    assert show("get", "budget", server=url).splitlines()[-1].split()[:4] == ["14", "16", "14", "2"]
    show("get", "decisions", server=url)


def scale(url: str, participant: str, *, caller: str = "", expected: int = 200, **asked: int) -> Json:
    """Send a scale request as Dynamo's local planners do, and print the answer."""
    request = body(participant, **asked)
    answer = ask(url, "/v1/scale", request | ({"caller_namespace": caller} if caller else {}), expected=expected)
    print(f"   {answer['status']}: {answer['message']}")
    for at, step in enumerate(answer["plan"], start=1):
        changes = ", ".join(f"{one['participant']}/{one['role']} {one['before']} to {one['after']}" for one in step)
        print(f"   step {at}: {changes}")
    return answer


def body(participant: str, **asked: int) -> Json:
    """Return a request of the local planner of *participant*."""
    namespace, name = participant.split("/")
    return {
        "caller_namespace": f"{namespace}-{name}",
        "graph_deployment_name": name,
        "k8s_namespace": namespace,
        "target_replicas": [{"sub_component_type": role, "desired_replicas": n} for role, n in asked.items()],
    }


def ask(url: str, path: str, document: Json | None = None, *, expected: int = 200) -> Json:
    """Send one HTTP request, and return the answer's document."""
    data = None if document is None else json.dumps(document).encode()
    request = Request(url + path, data, {"Content-Type": "application/json"})  # noqa: S310 (http, to this machine)
    try:
        with HTTP.open(request, timeout=10) as response:
            status, content = response.status, response.read()
    except HTTPError as refusal:
        with refusal:
            status, content = refusal.code, refusal.read()
    assert status == expected, (status, content)
    answer: Json = json.loads(content)
    return answer


def eventually(url: str, path: str, status: str) -> Json:
    """Ask until the answer has *status*."""
    deadline = time.monotonic() + 10
    while (answer := ask(url, path))["status"] != status:
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    return answer


def show(*arguments: str, server: str) -> str:
    """Run a command of gpctl against the daemon, and print what it prints."""
    print(f"   $ gpctl {' '.join(arguments)}")
    environment = os.environ | {"GPCTL_SERVER": server}
    shown = subprocess.run([*GPCTL, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    print("".join(f"   {line}\n" for line in shown.splitlines()), end="")
    return shown


def tell(line: str) -> None:
    """Print a line of the story."""
    print(f"\n{line}", flush=True)


@contextmanager
def daemon() -> Iterator[str]:
    """Run the planner and yield the URL that it listens on; it is gone afterwards."""
    print(f"$ gpctl planner {' '.join(PLANNER).replace(str(FLEET), 'examples/fleet.yaml')}")
    with subprocess.Popen([*GPCTL, "planner", *PLANNER], stderr=subprocess.PIPE, text=True) as planner:
        try:
            yield _ready(planner)
        finally:
            planner.terminate()
            planner.communicate(timeout=15)
    assert planner.returncode == 0, f"the planner ended with {planner.returncode}"


def _ready(planner: subprocess.Popen[str]) -> str:
    assert planner.stderr is not None
    lines = []
    for line in planner.stderr:
        lines.append(line)
        if ready := re.search(r"ready.* (http://\S+)", line):
            return ready[1]
    raise AssertionError("".join(lines))


if __name__ == "__main__":
    with daemon() as where:
        story(where)
    print("The planner has stopped. All of this was checked on the way.")
