import time

import pytest

from diffusion_policy.real_world.cycle_clock import CycleClock


def test_cycles_do_not_drift() -> None:
    clock = CycleClock(0.02)
    begun = time.time()
    for i in range(20):
        assert clock.index == i
        time.sleep(0.005)
        clock.next()
    assert time.time() - begun == pytest.approx(0.4, abs=0.03)
    assert clock.time_of(20) == pytest.approx(begun + 0.4, abs=0.005)


def test_a_cycle_can_begin_in_the_future() -> None:
    start = time.time() + 0.1
    clock = CycleClock(0.05, start)
    clock.index = -1
    clock.next()
    assert time.time() == pytest.approx(start, abs=0.02)
    clock.wait(before_end=0.03)
    assert time.time() == pytest.approx(start + 0.02, abs=0.015)


def test_a_late_loop_leaves_out_what_it_missed() -> None:
    clock = CycleClock(0.01)
    time.sleep(0.015)  # a little late: it hurries
    clock.next()
    assert (clock.index, clock.n_missed) == (1, 0)
    time.sleep(0.2)
    clock.next()
    assert clock.n_missed >= 15
    assert clock.time_of(clock.index + 1) > time.time() - 0.01
