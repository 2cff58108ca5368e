"""What a process that dies while it writes leaves behind: whole episodes, and a buffer to append to."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from diffusion_policy.common.replay_buffer import ReplayBuffer

# Starts a writer at once for each line on stdin, and writes its process id.
WRITER = """
import os, sys
sys.path.insert(0, sys.argv[2])
from diffusion_policy.common.replay_buffer import ReplayBuffer
from test_replay_backend import episode
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        buffer = ReplayBuffer.create_from_path(sys.argv[1], mode="a")
        while True:
            buffer.add_episode(episode(buffer.n_episodes), compressors="disk")
            if buffer.n_episodes % 7 == 0:
                buffer.pop_episode()
                buffer.pop_episode()
                buffer.add_episode(episode(buffer.n_episodes), compressors="disk")
                buffer.add_episode(episode(buffer.n_episodes), compressors="disk")
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""


def episode(index: int) -> dict[str, np.ndarray]:
    """The episode that any writer puts at this index: 1 to 11 steps."""
    length = 1 + index * 7 % 11
    steps = 1000 * index + np.arange(length)
    return {"step": steps, "obs": np.stack([steps, -steps, steps / 7], axis=1).astype(np.float32)}


def assert_whole(path: Path, n_episodes: int | None = None) -> int:
    """Every episode is as written; returns how many there are."""
    buffer = ReplayBuffer.copy_from_path(path)
    if n_episodes is not None:
        assert buffer.n_episodes == n_episodes
    for index in range(buffer.n_episodes):
        got = buffer.get_episode(index)
        assert got.keys() == episode(index).keys()
        for key, value in episode(index).items():
            np.testing.assert_array_equal(got[key], value)
    return buffer.n_episodes


def test_killed_at_random_moments(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    chance = random.Random(0)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        counts = []
        for _ in range(15):
            writer.stdin.write("\n")
            writer.stdin.flush()
            pid = int(writer.stdout.readline())
            deadline = time.monotonic() + 20
            while not (path / "meta" / "episode_ends" / ".zarray").exists():
                assert time.monotonic() < deadline
            time.sleep(chance.uniform(0.0, 0.25))
            os.kill(pid, signal.SIGKILL)
            assert writer.stdout.readline() == "gone\n"
            counts.append(assert_whole(path))
        writer.stdin.close()
    assert max(counts) > 5
    buffer = ReplayBuffer.create_from_path(path, mode="r+")
    buffer.add_episode(episode(buffer.n_episodes))
    assert_whole(path, counts[-1] + 1)


class Died(Exception):
    pass


class MortalStore(LocalStore):
    """A folder whose writer dies in place of its n-th write or deletion, and does nothing more."""

    writes_left = 10**9
    in_flight = 0

    async def _live(self, write: Coroutine[Any, Any, None]) -> None:
        type(self).writes_left -= 1
        if self.writes_left < 0:
            write.close()
            raise Died
        type(self).in_flight += 1
        try:
            await write
        finally:
            type(self).in_flight -= 1

    async def set(self, key: str, value: Any) -> None:
        await self._live(super().set(key, value))

    async def delete(self, key: str) -> None:
        await self._live(super().delete(key))

    async def delete_dir(self, prefix: str) -> None:
        await self._live(super().delete_dir(prefix))


def add_next(buffer: ReplayBuffer) -> None:
    buffer.add_episode(episode(buffer.n_episodes))


def recode(buffer: ReplayBuffer) -> None:
    buffer.set_chunks({"obs": (7, 3)})


@pytest.mark.parametrize(
    ("n_before", "act", "n_after"),
    [
        pytest.param(0, add_next, 1, id="first episode of a new buffer"),
        pytest.param(1, add_next, 2, id="append that replaces the chunk of ends"),
        pytest.param(2, add_next, 3, id="append"),
        pytest.param(3, ReplayBuffer.drop_episode, 2, id="drop"),
        pytest.param(2, recode, 2, id="change chunks and compressor"),
    ],
)
def test_dying_at_any_write(tmp_path: Path, n_before: int, act: Callable[[ReplayBuffer], None], n_after: int) -> None:
    for _ in range(n_before):
        add_next(ReplayBuffer.create_from_path(tmp_path / "before.zarr", mode="a"))
    seen, path = set(), tmp_path / "a.zarr"
    for n_writes in itertools.count():
        if n_before:
            shutil.copytree(tmp_path / "before.zarr", path)
        MortalStore.writes_left = n_writes
        with contextlib.suppress(Died):
            act(ReplayBuffer.create_empty_zarr(storage=MortalStore(path)))
        while MortalStore.in_flight:  # of two writes at a time, one may go on a little after the other died
            time.sleep(0.001)
        died, MortalStore.writes_left = MortalStore.writes_left < 0, 10**9
        if n_before:
            seen.add(assert_whole(path))
        buffer = ReplayBuffer.create_from_path(path, mode="a")
        n_episodes = buffer.n_episodes
        seen.add(n_episodes)
        add_next(buffer)
        assert_whole(path, n_episodes + 1)
        assert list(buffer.keys()) == ["obs", "step"]
        shutil.rmtree(path)
        if not died:
            break
    assert n_writes > 3
    assert seen == {n_before, n_after}


@pytest.mark.parametrize("debris", [".zattrs", ".zgroup.0123.partial", "data/.zattrs", "meta/episode_ends/.zattrs"])
def test_killed_while_the_groups_were_created(tmp_path: Path, debris: str) -> None:
    path = tmp_path / "a.zarr"
    if "/" in debris:
        zarr.create_group(path, zarr_format=2)
    (path / debris).parent.mkdir(parents=True, exist_ok=True)
    (path / debris).write_text("{}")
    ReplayBuffer.create_from_path(path, mode="a").add_episode(episode(0))
    assert_whole(path, 1)


def test_a_first_episode_that_never_finished_does_not_bind_the_next(tmp_path: Path) -> None:
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    buffer.data.create_array("step", data=np.zeros((4, 2), dtype=np.float32))
    buffer.data.create_array("old", data=np.zeros((3,)))
    assert ReplayBuffer.create_from_path(tmp_path / "a.zarr")["step"].shape == (0, 2)
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    buffer.add_episode(episode(0))
    assert_whole(tmp_path / "a.zarr", 1)


def test_leftover_rows_are_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    buffer = ReplayBuffer.create_from_path(path, mode="a")
    for index in range(3):
        buffer.add_episode(episode(index))
    array = zarr.open_array(path / "data" / "obs", mode="r+")
    array.resize((buffer.n_steps + 50, 3))
    array[buffer.n_steps :] = 1
    reader = ReplayBuffer.create_from_path(path)
    assert reader["obs"].shape == (reader.n_steps, 3)
    np.testing.assert_array_equal(reader.get_episode(-1)["obs"], episode(2)["obs"])
    reader.save_to_path(tmp_path / "b.zarr")
    assert_whole(tmp_path / "b.zarr", 3)
    assert zarr.open_array(tmp_path / "b.zarr" / "data" / "obs", mode="r").shape == (buffer.n_steps, 3)
    assert len(ReplayBuffer.copy_from_path(path)["obs"]) == buffer.n_steps


def test_numpy_arrays_grow_without_copying_each_time() -> None:
    buffer = ReplayBuffer.create_empty_numpy()
    moves, address = 0, 0
    for index in range(200):
        buffer.add_episode(episode(index))
        moves += address != buffer["obs"].__array_interface__["data"][0]
        address = buffer["obs"].__array_interface__["data"][0]
    assert moves < 20
    for index in range(200):
        np.testing.assert_array_equal(buffer.get_episode(index)["obs"], episode(index)["obs"])


def test_appending_leaves_the_arrays_that_the_user_gave_untouched() -> None:
    mine = np.arange(10.0)
    buffer = ReplayBuffer({"data": {"a": mine[:4]}, "meta": {"episode_ends": np.array([4])}})
    buffer.add_episode({"a": [-1.0, -2.0]})
    assert buffer["a"].tolist() == [0, 1, 2, 3, -1, -2]
    assert mine.tolist() == list(range(10))
