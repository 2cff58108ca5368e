import time

from diffusion_policy.common.precise_sleep import precise_sleep, precise_wait


def test_it_ends_within_a_fraction_of_a_millisecond_and_never_early() -> None:
    late = []
    for _ in range(20):
        end = time.monotonic() + 0.005
        precise_wait(end)
        late.append(time.monotonic() - end)
    assert min(late) >= 0
    assert sorted(late)[5] < 0.0005  # the machine may be busy


def test_it_sleeps_for_most_of_the_time() -> None:
    before = time.process_time()
    precise_sleep(0.1, slack_time=0.001)
    assert time.process_time() - before < 0.05


def test_a_time_that_is_past_is_not_waited_for() -> None:
    start = time.monotonic()
    precise_wait(start - 1)
    precise_sleep(-1)
    assert time.monotonic() - start < 0.1


def test_the_clock_is_a_choice() -> None:
    end = time.time() + 0.01
    precise_wait(end, time_func=time.time)
    assert 0 <= time.time() - end < 0.1
