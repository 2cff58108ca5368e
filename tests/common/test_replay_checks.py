from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from diffusion_policy.common.replay_buffer import ReplayBuffer


def numpy_root(ends: Any, **data: Any) -> dict[str, dict[str, np.ndarray]]:
    return {
        "data": {key: np.asarray(value) for key, value in data.items()},
        "meta": {"episode_ends": np.asarray(ends)},
    }


def zarr_root(ends: Any, **data: Any) -> zarr.Group:
    root = zarr.create_group({}, zarr_format=2)
    for key, value in data.items():
        root.require_group("data").create_array(key, data=np.asarray(value))
    root.require_group("meta").create_array("episode_ends", data=np.asarray(ends))
    return root


@pytest.mark.parametrize("root", [numpy_root, zarr_root])
class TestDamagedBuffers:
    @pytest.mark.parametrize(
        ("ends", "message"),
        [
            ([5, 3], "at index 1 it is 3 after 5"),
            ([-2, 3], "at index 0 it is -2"),
            ([2.5, 3.0], "1-D integer array, got shape .* of float64"),
            ([[3]], "1-D integer array"),
        ],
    )
    def test_episode_ends(self, root: Any, ends: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            ReplayBuffer(root(ends, a=np.zeros(10)))

    def test_too_few_rows(self, root: Any) -> None:
        with pytest.raises(ValueError, match=r"ends at step 5, but these arrays have fewer rows: \{'b': \(3,\)\}"):
            ReplayBuffer(root([2, 5], a=np.zeros(5), b=np.zeros(3)))
        with pytest.raises(ValueError, match="fewer rows"):
            ReplayBuffer(root([2, 5], a=np.zeros(5), b=1.0))

    def test_missing_parts(self, root: Any) -> None:
        broken = root([2], a=np.zeros(2))
        del broken["meta"]["episode_ends"]
        with pytest.raises(ValueError, match="no array meta/episode_ends"):
            ReplayBuffer(broken)
        for group in ("meta", "data"):
            broken = root([2], a=np.zeros(2))
            del broken[group]
            with pytest.raises(ValueError, match=f"no group '{group}'"):
                ReplayBuffer(broken)


def test_numpy_arrays_must_all_end_with_the_last_episode() -> None:
    with pytest.raises(ValueError, match=r"must have 5 rows, .*\{'b': 7\}"):
        ReplayBuffer(numpy_root([2, 5], a=np.zeros(5), b=np.zeros(7)))


def test_arrays_without_episode_ends_are_no_empty_buffer(tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.create_group("data").create_array("a", data=np.zeros(3))
    for mode in ("r", "r+", "a"):
        with pytest.raises(ValueError, match=r"no (group 'meta'|array meta/episode_ends)"):
            ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode=mode)
    np.testing.assert_array_equal(root["data/a"][:], np.zeros(3))


@pytest.mark.parametrize("backend", ["numpy", "zarr"])
class TestBadEpisodes:
    @pytest.fixture
    def buffer(self, backend: str) -> ReplayBuffer:
        empty = ReplayBuffer.create_empty_numpy() if backend == "numpy" else ReplayBuffer.create_empty_zarr()
        empty.add_episode({"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.arange(3)})
        return empty

    @pytest.mark.parametrize(
        ("episode", "message"),
        [
            ({}, "at least one key"),
            ({"a": np.zeros((2, 2), np.float32), "b": np.zeros(3, int)}, r"equally many steps, .*'a': 2, 'b': 3"),
            ({"a": np.zeros((0, 2), np.float32), "b": np.zeros(0, int)}, "at least one step"),
            ({"a": np.zeros((1, 3), np.float32), "b": np.zeros(1, int)}, r"shape \(3,\), the buffer \(2,\)"),
            ({"a": np.zeros((1, 2), np.float32)}, r"keys \['a'\], the buffer \['a', 'b'\]"),
            ({"a": np.zeros((1, 2)), "b": [1], "c": [1]}, "exactly the same keys"),
            ({"a": np.zeros((1, 2)), "b": np.zeros(1, int)}, r"float64, .*\.astype\('float32'\)"),
            ({"a": np.zeros((1, 2), np.float32), "b": [1.5]}, r"float64, .*\.astype\('int64'\)"),
            ({"a": 1.0, "b": 1}, r"'a' must be an array \(steps, \.\.\.\)"),
            ({"a": np.array([None]), "b": [1]}, "array .* of numbers, got object"),
        ],
    )
    def test_rejected_and_nothing_changed(self, buffer: ReplayBuffer, episode: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            buffer.add_episode(episode)
        assert buffer.episode_ends.tolist() == [3]
        assert buffer["a"][:].ravel().tolist() == list(range(6))
        buffer.add_episode({"a": np.ones((1, 2), np.float32), "b": [9]})
        assert buffer["b"][:].tolist() == [0, 1, 2, 9]

    def test_bad_chunks_of_the_first_episode(self, backend: str) -> None:
        empty = ReplayBuffer.create_empty_zarr()
        with pytest.raises(ValueError, match=r"chunks \(0, 2\) do not fit an array of shape \(3, 2\)"):
            empty.add_episode({"a": np.zeros((3, 2))}, chunks={"a": (0, 2)})
        assert list(empty.keys()) == []
