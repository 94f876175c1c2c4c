"""Callers that want this and that for a while.

Rules of this file: what is asked for comes from a seed; when it is answered does not.
"""

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.chaos.lanes import Lane

ROLES = ("prefill", "decode")


@contextmanager
def callers(here: Lane, names: Sequence[str], *, count: int, most: int, seed: int) -> Iterator[Counter[str]]:
    """Let *count* callers ask for up to *most* replicas of *names* while the body runs; give the answers by status.

    Each asks again until it is answered, whatever happens. Who is not answered when the body has ended and everything
    could be answered again raises.
    """
    ended, answers = threading.Event(), Counter[str]()

    def call(number: int) -> Counter[str]:
        chance, mine = random.Random(f"{seed} {number}"), Counter[str]()  # noqa: S311 - the same wishes on every run
        while not ended.is_set():
            wanted = {role: chance.randint(0, most) for role in chance.sample(ROLES, chance.choice((1, 1, 2)))}
            mine[here.ask(chance.choice(names), **wanted)["status"]] += 1
        return mine

    with ThreadPoolExecutor(count) as threads:
        calling = [threads.submit(call, number) for number in range(count)]
        try:
            yield answers
        finally:
            ended.set()
        for one in calling:
            answers += one.result()
