"""Rings in one process, and between processes that run into each other."""

import multiprocessing
import time
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
import pytest

from diffusion_policy.shared_memory.shared_memory_ring_buffer import SharedMemoryRingBuffer

BIG = 200_000


def make_ring(
    get_max_k: int = 3, get_time_budget: float = 0.2, put_desired_frequency: float = 10
) -> SharedMemoryRingBuffer:
    return SharedMemoryRingBuffer.create_from_examples(
        None, {"pose": np.zeros(6), "timestamp": 0.0}, get_max_k, get_time_budget, put_desired_frequency
    )


def item(i: float) -> dict[str, Any]:
    return {"pose": np.full(6, i), "timestamp": float(i)}


def test_the_last_items_come_back_oldest_first() -> None:
    ring = make_ring(get_time_budget=1e-3)
    for i in range(20):
        ring.put(item(i))
    ring.get_time_budget = 5.0  # this machine may be busy
    assert ring.count == 20
    assert ring.get()["timestamp"] == 19
    assert ring.get()["pose"].shape == (6,)
    assert ring.get_last_k(3)["timestamp"].tolist() == [17, 18, 19]
    assert ring.get_last_k(2)["pose"][:, 0].tolist() == [18, 19]
    assert ring.get_all()["timestamp"].tolist() == [17, 18, 19]


def test_arrays_given_are_filled() -> None:
    ring = make_ring(get_time_budget=5)
    ring.put(item(3))
    one, two = {"pose": np.zeros(6), "timestamp": np.zeros(())}, {"pose": np.zeros((1, 6)), "timestamp": np.zeros(1)}
    assert ring.get(out=one) is one
    assert ring.get_last_k(1, out=two) is two
    assert (one["timestamp"], two["pose"][0, 5]) == (3, 3)


@pytest.mark.parametrize(
    ("hz", "budget", "k", "size"), [(60, 0.01, 32, 33), (125, 0.2, 128, 166), (500, 0.2, 128, 278)]
)
def test_size_is_that_of_the_original(hz: float, budget: float, k: int, size: int) -> None:
    assert make_ring(k, budget, hz).buffer_size == size


def test_reads_of_what_is_not_there_are_refused() -> None:
    ring = make_ring(get_time_budget=5)
    assert ring.get_all()["pose"].shape == (0, 6)
    with pytest.raises(ValueError, match="only 0 have been put"):
        ring.get()
    ring.put(item(0))
    with pytest.raises(ValueError, match="only 1 have been put"):
        ring.get_last_k(2)
    with pytest.raises(ValueError, match="k=4"):
        ring.get_last_k(4)
    with pytest.raises(ValueError, match="k=0"):
        ring.get_last_k(0)


def test_cleared_items_are_gone() -> None:
    ring = make_ring(get_time_budget=5)
    ring.put(item(0))
    ring.clear()
    assert ring.count == 0
    with pytest.raises(ValueError, match="only 0"):
        ring.get()
    ring.put(item(1))
    assert ring.get_all()["timestamp"].tolist() == [1]


@pytest.mark.parametrize(
    "bad",
    [
        {"pose": np.zeros(6)},
        {"pose": np.zeros(6), "timestamp": 0.0, "more": 0},
        {"pose": np.zeros(1), "timestamp": 0.0},
        {"pose": np.zeros((2, 6)), "timestamp": 0.0},
        {"pose": np.zeros(6), "timestamp": 1j},
    ],
)
def test_bad_items_change_nothing(bad: dict[str, Any]) -> None:
    ring = make_ring(get_time_budget=5)
    ring.put(item(1))
    with pytest.raises(ValueError, match=r"entries|shape"):
        ring.put(bad)
    assert ring.get_all()["timestamp"].tolist() == [1]


def test_objects_cannot_be_items() -> None:
    with pytest.raises(TypeError, match="'name' must be an array or a number, got str"):
        SharedMemoryRingBuffer.create_from_examples(None, {"name": "x"})
    with pytest.raises(ValueError, match="objects"):
        SharedMemoryRingBuffer.create_from_examples(None, {"x": np.array([None])})


def test_too_many_puts_wait_or_raise() -> None:
    """Six slots for three items: the put that overwrites a third one waits for those who began to read them."""
    ring = make_ring()
    start = time.monotonic()
    n_put = ring.buffer_size
    for i in range(n_put):
        ring.put(item(i), wait=False)
    with pytest.raises(TimeoutError, match="put_desired_frequency=10 Hz"):
        ring.put(item(n_put), wait=False)
    assert ring.count == n_put
    ring.put(item(n_put), wait=True)
    assert time.monotonic() - start > 0.19
    assert ring.get_all()["timestamp"].tolist() == [n_put - 2, n_put - 1, n_put]


def test_a_read_beyond_the_budget_raises() -> None:
    ring = make_ring(get_time_budget=1e-9)
    ring.put(item(0))
    with pytest.raises(TimeoutError, match="get_time_budget"):
        ring.get()


def test_a_reader_that_was_held_up_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    example = {"pose": np.zeros(6), "timestamp": 0.0}
    ring = SharedMemoryRingBuffer.create_from_examples(None, example, 3, 0.2, 10, get_attempts=2)
    ring.put(item(7))
    delays = [0.3, 0.0, 0.3, 0.3]
    read = ring._items.read

    def held_up(*args: Any) -> None:
        time.sleep(delays.pop(0))
        read(*args)

    monkeypatch.setattr(ring._items, "read", held_up)
    assert ring.get()["timestamp"] == 7
    with pytest.raises(TimeoutError, match="get_time_budget"):
        ring.get()
    assert not delays


def _put_for_ever(ring: SharedMemoryRingBuffer, stop: Event) -> None:
    ring._leave_readers_time = lambda number, wait: None  # a writer that overtakes its readers all the time
    i = 0
    while not stop.is_set():
        ring.put({"image": np.full(BIG, i % 251, np.uint8), "i": i})
        i += 1


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reads_are_never_torn(method: str) -> None:
    """Three slots of 200 kB that are overwritten as fast as the machine can, while two processes read two of them."""
    context = multiprocessing.get_context(method)
    example = {"image": np.zeros(BIG, np.uint8), "i": 0}
    ring = SharedMemoryRingBuffer.create_from_examples(None, example, 2, get_time_budget=1e-9, put_desired_frequency=1)
    assert ring.buffer_size == 3
    ring.get_time_budget = 60.0
    stop = context.Event()
    writer = context.Process(target=_put_for_ever, args=(ring, stop), daemon=True)
    writer.start()
    try:
        _wait_for(lambda: ring.count > 10)
        overtaken = _count_overtaken(ring)
        start, n_reads, last = time.monotonic(), 0, -1
        while time.monotonic() - start < 1.5:
            read = ring.get_last_k(2)
            n_reads += 1
            assert read["i"][1] == read["i"][0] + 1
            assert read["i"][0] >= last
            last = read["i"][0]
            for image, i in zip(read["image"], read["i"], strict=True):
                assert np.all(image == i % 251)
        assert n_reads > 10
        assert len(overtaken) > n_reads  # so the numbers of the slots are what kept the reads whole
    finally:
        stop.set()
        writer.join(10)
        writer.kill()


def _count_overtaken(ring: SharedMemoryRingBuffer) -> list[int]:
    """Collects an entry for every attempt to copy items."""
    attempts: list[int] = []
    read = ring._items.read

    def counted(first: int, k: int, out: dict[str, Any]) -> None:
        attempts.append(first)
        read(first, k, out)

    ring._items.read = counted  # type: ignore[method-assign]
    return attempts


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
