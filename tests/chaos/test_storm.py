from pathlib import Path

import pytest

from tests.chaos.lanes import lane
from tests.chaos.soak import pools, soak
from tests.cluster import ApiServer, Behaviour, FakeOperator

POOLS = 200
SPARE = 24
SECONDS = 60.0
MOST_GROWTH = 1.25

pytestmark = pytest.mark.timeout(300)


def test_four_planners_in_bad_weather_are_never_over_and_lose_nothing(
    cluster: ApiServer, operator: FakeOperator, tmp_path: Path
) -> None:
    operator.behave(Behaviour(relay_s=0.05, termination_s=0.3))
    deployments, gpus = pools(POOLS)
    with lane(cluster, tmp_path, ceiling=gpus + SPARE, floor=gpus // 2, deployments=deployments) as here:
        soaked = soak(here, seconds=SECONDS, callers_at_once=8, seed=1, death_every_s=12.0)
    found, answers = soaked.found, soaked.answers
    assert (found.asked.over, found.promised.over) == (0, 0), str(soaked)
    assert found.asked.highest > gpus + SPARE // 2, "the ceiling was never near"
    assert min(answers["success"], answers["rejected"]) > 0, str(soaked)
    assert soaked.deaths
    assert {"delayed", "late", "dropped", "unanswered", "doubled", "reordered"} <= set(soaked.faults)
    assert soaked.growth < MOST_GROWTH, str(soaked)
