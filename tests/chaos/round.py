"""One round: the plan is played, calm returns, everything has to settle, and what is found is judged."""

from __future__ import annotations

import time
from pathlib import Path

from redis.exceptions import RedisError

from tests.chaos.evidence import gather
from tests.chaos.plan import plan
from tests.chaos.report import Report, report
from tests.chaos.stage import Stage
from tests.chaos.trouble import Trouble
from tests.chaos.verdict import TERMINAL
from workers.simulator.running import run_in_thread
from workers.simulator.settings import Settings

# A claim on a download holds for 30 s, and JARAI is left alone for up to a minute after it was out of order.
SETTLE_SECONDS = 120.0
_BUSY = (
    "jarai:dirty",
    "jarai:ask",
    "jarai:download",
    "jarai:claims",
    "jarai:progress",
    "jarai:attempts",
    "jarai:tries",
)


def play(seed: int, seconds: float, folder: Path, settle_seconds: float = SETTLE_SECONDS) -> Report:
    """`folder` is made, and holds all logs and data afterwards. RuntimeError when the deployment does not come up."""
    actions = plan(seed, seconds)
    with (
        run_in_thread(Settings(seed=seed)) as simulator,
        Stage.open(folder, simulator) as stage,
        Trouble.begin(stage) as trouble,
    ):
        trouble.perform(actions, seconds)
        trouble.calm()
        began = time.monotonic()
        stage.wait_until(lambda: _is_over(stage, trouble), settle_seconds)
        calm_seconds = time.monotonic() - began
        return report(seed, seconds, actions, gather(stage, trouble.tracked), calm_seconds, stage.processes.ended)


def _is_over(stage: Stage, trouble: Trouble) -> bool:
    """JARAI has said its last word, everything is settled, and nothing is left to do."""
    if trouble.tracked[202] < trouble.started or stage.simulator.counters()["pending"]:
        return False
    try:
        with stage.redis as redis:
            if redis.exists(*_BUSY):
                return False
    except RedisError:
        return False
    if not all(shown["settled"] for shown in stage.productions().values()):
        return False
    return all(one["status"] in TERMINAL for one in stage.simulator.truth()["productions"])
