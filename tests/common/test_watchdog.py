import multiprocessing
import time

import pytest

from diffusion_policy.common.watchdog import Watchdog


def _work(steps, pause, timeout_sec):
    with Watchdog(timeout_sec) as watchdog:
        for _ in range(steps):
            time.sleep(pause)
            watchdog.beat()
    time.sleep(0.5)  # outside the block nothing is watched


@pytest.mark.parametrize(
    ("steps", "pause", "timeout_sec", "exitcode"),
    [(1, 60, 0.2, 1), (10, 0.05, 2, 0), (2, 0.3, None, 0)],
    ids=["hangs", "works", "unwatched"],
)
def test_ends_a_process_that_stands_still_and_no_other(steps, pause, timeout_sec, exitcode):
    process = multiprocessing.get_context("fork").Process(target=_work, args=(steps, pause, timeout_sec))
    process.start()
    process.join(30)
    assert process.exitcode == exitcode
