import multiprocessing
import queue
import time
from typing import Any

import numpy as np
import pytest

from diffusion_policy.shared_memory.shared_memory_queue import Empty, Full, SharedMemoryQueue

N = 5_000


def make_queue(buffer_size: int = 4) -> SharedMemoryQueue:
    return SharedMemoryQueue.create_from_examples(None, {"cmd": 0, "pose": np.zeros(6)}, buffer_size)


def item(i: int) -> dict[str, Any]:
    return {"cmd": i, "pose": np.full(6, i, float)}


def test_first_in_first_out_around_the_end() -> None:
    commands = make_queue(4)
    for i in range(30):
        commands.put(item(2 * i))
        commands.put(item(2 * i + 1))
        assert commands.qsize() == 2
        assert commands.get()["cmd"] == 2 * i
        assert commands.get()["pose"].tolist() == [2 * i + 1] * 6
    assert commands.empty()


def test_full_and_empty_are_those_of_queue() -> None:
    assert (Empty, Full) == (queue.Empty, queue.Full)
    commands = make_queue(2)
    with pytest.raises(Empty):
        commands.get()
    with pytest.raises(Empty):
        commands.get_all()
    commands.put(item(0))
    commands.put(item(1))
    with pytest.raises(Full):
        commands.put(item(2))
    with pytest.raises(Empty, match="holds 2"):
        commands.get_k(3)
    assert commands.get_all()["cmd"].tolist() == [0, 1]


def test_several_items_at_once() -> None:
    commands = make_queue(4)
    commands.put(item(-1))
    commands.get()
    for i in range(4):
        commands.put(item(i))
    out = {"cmd": np.zeros(3, int), "pose": np.zeros((3, 6))}
    assert commands.get_k(3, out) is out
    assert out["cmd"].tolist() == [0, 1, 2]
    assert commands.qsize() == 1
    commands.clear()
    assert commands.empty()


@pytest.mark.parametrize("bad", [{"cmd": 0}, {"cmd": 0, "pose": np.zeros(5)}, {"cmd": 0.5, "pose": np.zeros(6)}])
def test_bad_items_are_not_added(bad: dict[str, Any]) -> None:
    commands = make_queue()
    with pytest.raises(ValueError, match=r"entries|shape"):
        commands.put(bad)
    assert commands.empty()


def _put_all(commands: SharedMemoryQueue) -> None:
    i = 0
    while i < N:
        try:
            commands.put(item(i))
            i += 1
        except Full:
            time.sleep(0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_gets_every_item_whole(method: str) -> None:
    commands = make_queue(8)
    producer = multiprocessing.get_context(method).Process(target=_put_all, args=(commands,), daemon=True)
    producer.start()
    received = 0
    while received < N:
        try:
            got = commands.get_all()
        except Empty:
            assert producer.exitcode in (None, 0)
            time.sleep(0)
            continue
        expected = np.arange(received, received + len(got["cmd"]))
        assert np.array_equal(got["cmd"], expected)
        assert np.array_equal(got["pose"], np.repeat(expected[:, None], 6, axis=1))
        received += len(expected)
    producer.join(10)
    assert producer.exitcode == 0
