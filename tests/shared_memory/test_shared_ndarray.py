"""Arrays between processes, and what of them stays behind when a process is killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.managers import SharedMemoryManager
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.shared_memory.memory_order import _membarrier, fence
from diffusion_policy.shared_memory.shared_memory_util import SharedAtomicCounter
from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray


def _double(array: SharedNDArray[np.float32], counter: SharedAtomicCounter) -> None:
    array.get()[:] *= 2
    counter.add(5)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_started_in_any_way_shares_it(method: str) -> None:
    array = SharedNDArray.create_from_array(None, np.arange(6, dtype=np.float32).reshape(2, 3))
    counter = SharedAtomicCounter(None)
    process = multiprocessing.get_context(method).Process(target=_double, args=(array, counter))
    process.start()
    process.join()
    assert array.get().tolist() == [[0, 2, 4], [6, 8, 10]]
    assert counter.load() == 5
    assert (array.shape, array.dtype) == ((2, 3), np.float32)
    assert repr(array) == "SharedNDArray(shape=(2, 3), dtype=float32)"


def test_named_memory_works_too() -> None:
    with SharedMemoryManager() as manager:
        named = manager.SharedMemory(80)
        SharedNDArray(named, (10,), np.int64).get()[:] = 7
        assert SharedNDArray(named.name, (10,), np.int64).get().tolist() == [7] * 10
        created = SharedNDArray.create_from_shape(manager, (0, 3), np.uint8)
        assert created.get().size == 0
        assert not isinstance(created.shm, SharedMemory)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 88 bytes"):
        SharedNDArray(SharedNDArray.create_from_shape(None, (10,), np.int64).shm, (11,), np.int64)
    with pytest.raises(ValueError, match="objects"):
        SharedNDArray.create_from_shape(None, (1,), object)


def test_a_counter_counts() -> None:
    counter = SharedAtomicCounter(None)
    counter.store(-3)
    counter.add(2**40)
    assert counter.load() == 2**40 - 3
    assert int.from_bytes(counter.buf, sys.byteorder) == 2**40 - 3


def test_both_barriers_work() -> None:
    fence()
    _membarrier()()


KILLED = """
import multiprocessing, os, time
import numpy as np
from diffusion_policy.shared_memory.shared_memory_ring_buffer import SharedMemoryRingBuffer
def hold(ring):
    print(os.getpid(), flush=True)
    time.sleep(60)
if __name__ == "__main__":
    ring = SharedMemoryRingBuffer.create_from_examples(None, {"x": np.zeros(1000)})
    process = multiprocessing.get_context("fork").Process(target=hold, args=(ring,))
    process.start()
    time.sleep(60)
"""


def test_nothing_stays_behind_when_every_process_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    mapped = [Path(f"/proc/{pid}/maps").read_text() for pid in (parent.pid, child)]
    assert all("memfd:diffusion_policy (deleted)" in text for text in mapped)  # nowhere in the file system
    assert not any("/dev/shm/psm_" in text for text in mapped)
    helpers = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert helpers == [str(child)]  # no manager, no tracker
    for pid in (parent.pid, child):
        os.kill(pid, signal.SIGKILL)
    parent.wait()
