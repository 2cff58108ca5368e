import time

import pytest

from diffusion_policy.real_world.cycle_clock import CycleClock

ATTEMPTS = 5
"""Of which one must be in time: in the others the machine may have let this process wait."""


def test_cycles_do_not_drift() -> None:
    lateness = []
    for _ in range(ATTEMPTS):
        clock = CycleClock(0.02)
        begun = time.time()
        for i in range(20):
            assert clock.index == i
            time.sleep(0.005)
            clock.next()
        lateness.append(time.time() - begun - 0.4)
        assert clock.time_of(20) == pytest.approx(begun + 0.4, abs=0.005)
    assert all(late > -0.005 for late in lateness)
    assert min(lateness) < 0.03


def test_a_cycle_can_begin_in_the_future() -> None:
    lateness = []
    for _ in range(ATTEMPTS):
        start = time.time() + 0.1
        clock = CycleClock(0.05, start)
        clock.index = -1
        clock.next()
        first = time.time() - start
        clock.wait(before_end=0.03)
        lateness.append((first, time.time() - start - 0.02))
    assert all(min(late) > -0.005 for late in lateness)
    assert any(first < 0.02 and second < 0.015 for first, second in lateness)


def test_a_late_loop_leaves_out_what_it_missed() -> None:
    clock = CycleClock(0.01)
    time.sleep(0.015)  # a little late: it hurries
    clock.next()
    assert (clock.index, clock.n_missed) == (1, 0)
    time.sleep(0.2)
    clock.next()
    assert clock.n_missed >= 15
    assert clock.time_of(clock.index + 1) > time.time() - 0.01
