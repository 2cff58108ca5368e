import os
import subprocess
import sys
import threading

import pytest

from diffusion_policy.common.own_thread import in_own_thread


def test_work_is_done_in_a_thread_that_has_ended():
    thread = in_own_thread(threading.current_thread)
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_errors_are_those_of_the_work():
    with pytest.raises(ZeroDivisionError):
        in_own_thread(lambda: 1 / 0)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_openmps_threads_end_with_it():
    script = """
import os, time, torch
from diffusion_policy.common.own_thread import in_own_thread
torch.set_num_threads(3)
compute = lambda: (torch.set_num_threads(3), torch.rand(1 << 20).exp().sum().item())
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
in_own_thread(compute)
deadline = time.monotonic() + 10
while threads() > before and time.monotonic() < deadline:  # they end a little later
    time.sleep(0.01)
between = threads()
compute()
print(before, between, threads())
"""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    before, between, after = map(int, done.stdout.split())
    assert before == between < after
