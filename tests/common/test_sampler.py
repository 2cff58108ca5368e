import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.sampler import SequenceSampler, create_indices, downsample_mask, get_val_mask


@pytest.fixture(scope="module")
def fixture(compat: Path) -> dict[str, Any]:
    with np.load(compat / "numerics" / "f_sampler.npz") as arrays:
        return {key: arrays[key] for key in arrays.files} | {"meta": json.loads(str(arrays["meta"]))}


def numpy_buffer(episode_ends: list[int]) -> ReplayBuffer:
    n_steps = episode_ends[-1] if episode_ends else 0
    steps = np.arange(n_steps)
    data = {"step": steps, "obs": np.stack([steps, -steps], axis=1).astype(np.float32)}
    return ReplayBuffer({"data": data, "meta": {"episode_ends": np.array(episode_ends, dtype=np.int64)}})


def in_zarr(buffer: ReplayBuffer) -> ReplayBuffer:
    return ReplayBuffer.create_from_group(zarr.open_group(buffer.save_to_store(zarr.storage.MemoryStore())))


class TestAgainstTheOriginal:
    def test_create_indices(self, fixture: dict[str, Any]) -> None:
        raised = 0
        for index, case in enumerate(fixture["meta"]["create_indices"]):
            arguments = (np.array(case["episode_ends"]), case["sequence_length"], np.array(case["episode_mask"]))
            padding = {"pad_before": case["pad_before"], "pad_after": case["pad_after"]}
            if "raises" in case:
                raised += 1
                with pytest.raises(IndexError, match="no window of 16 steps fits"):
                    create_indices(*arguments, **padding)
                continue
            indices = create_indices(*arguments, **padding)
            np.testing.assert_array_equal(indices, fixture[f"out/create_indices/{index}"])
            assert indices.dtype == np.int64
        assert raised == 2

    @pytest.mark.parametrize("backend", ["numpy", "zarr"])
    @pytest.mark.parametrize(
        ("name", "key_first_k"), [("sampler", {}), ("sampler_first_k", {"obs": 2})], ids=["all", "first_k"]
    )
    def test_samples(self, fixture: dict[str, Any], name: str, key_first_k: dict[str, int], backend: str) -> None:
        data = {key: fixture[f"in/{key}"] for key in ("obs", "action", "img")}
        buffer = ReplayBuffer({"data": data, "meta": {"episode_ends": fixture["in/episode_ends"]}})
        if backend == "zarr":
            buffer = in_zarr(buffer)
        sampler = SequenceSampler(buffer, 5, pad_before=1, pad_after=3, key_first_k=key_first_k)
        np.testing.assert_array_equal(sampler.indices, fixture["out/sampler/indices"])
        samples = [sampler.sample_sequence(index) for index in range(len(sampler))]
        batch = sampler.sample_sequences(np.arange(len(sampler)))
        keys = [key for key in data if f"out/{name}/all_{key}" in fixture]
        assert "obs" in keys
        for key in keys:
            expected = fixture[f"out/{name}/all_{key}"]
            np.testing.assert_array_equal(np.stack([sample[key] for sample in samples]), expected)
            np.testing.assert_array_equal(batch[key], expected)
            assert batch[key].dtype == samples[0][key].dtype == expected.dtype

    def test_empty_mask(self, fixture: dict[str, Any]) -> None:
        sampler = SequenceSampler(numpy_buffer([5, 9]), 3, episode_mask=np.zeros(2, dtype=bool))
        expected = fixture["out/sampler_empty/indices"]
        assert (sampler.indices.shape, sampler.indices.dtype) == (expected.shape, expected.dtype)
        assert len(sampler) == 0
        assert sampler.sample_sequences(np.arange(0))["obs"].shape == (0, 3, 2)

    def test_masks(self, fixture: dict[str, Any]) -> None:
        for case in fixture["meta"]["val_mask"]:
            mask = get_val_mask(case["n_episodes"], case["val_ratio"], case["seed"])
            assert np.flatnonzero(mask).tolist() == case["true_idx"]
        train = {
            "~get_val_mask(206,0.02,42)": ~get_val_mask(206, 0.02, 42),
            "~get_val_mask(10,0.2,0)": ~get_val_mask(10, 0.2, 0),
            "~get_val_mask(10,0.0,3)": ~get_val_mask(10, 0.0, 3),
        }
        for case in fixture["meta"]["downsample_mask"]:
            mask = downsample_mask(train[case["mask"]], case["max_n"], case["seed"])
            assert np.flatnonzero(mask).tolist() == case["true_idx"]

    def test_real_pusht_windows(self, fixture: dict[str, Any], real_pusht: Path) -> None:
        facts = fixture["meta"]["pusht"]["unet_lowdim_cfg"]
        buffer = ReplayBuffer.copy_from_path(real_pusht, keys=["action"])
        train = downsample_mask(~get_val_mask(buffer.n_episodes, 0.02, 42), 90, 42)
        sampler = SequenceSampler(buffer, 16, pad_before=1, pad_after=7, episode_mask=train)
        assert len(sampler) == facts["len_train"]
        assert len(SequenceSampler(buffer, 16, 1, 7, episode_mask=~train)) == facts["len_val"]
        np.testing.assert_array_equal(sampler.indices[:20], fixture["out/pusht_lowdim/indices_first20"])
        for index in (0, 1, 1000, 10725):
            expected = fixture[f"out/pusht_lowdim/item{index}/action"]
            np.testing.assert_array_equal(sampler.sample_sequence(index)["action"], expected)


@st.composite
def episodes(draw: st.DrawFn) -> tuple[list[int], np.ndarray]:
    """Ends of up to five episodes, some of them perhaps empty, and a mask."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    mask = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    return np.cumsum(lengths).tolist(), np.array(mask)


def naive_windows(
    ends: list[int], mask: np.ndarray, length: int, before: int, after: int
) -> list[tuple[list[int], list[int]]]:
    """Indices and rows of each window, by definition: it overlaps its episode and sticks out only as far as allowed."""
    before, after = (min(max(pad, 0), length - 1) for pad in (before, after))
    windows = []
    for start, end, chosen in zip([0, *ends], ends, mask, strict=False):
        for first in range(start - before, end - length + after + 1):
            last = first + length
            if chosen and start < end and first < end and last > start:
                rows = [min(max(row, start), end - 1) for row in range(first, last)]
                real = [max(first, start), min(last, end)]
                windows.append(([*real, real[0] - first, real[1] - first], rows))
    return windows


@settings(deadline=None, max_examples=300)
@given(
    case=episodes(),
    length=st.integers(1, 6),
    before=st.integers(-1, 7),
    after=st.integers(-1, 7),
    first_k=st.integers(0, 7),
    data=st.data(),
)
def test_windows_by_definition(
    case: tuple[list[int], np.ndarray], length: int, before: int, after: int, first_k: int, data: st.DataObject
) -> None:
    ends, mask = case
    windows = naive_windows(ends, mask, length, before, after)
    if mask.any() and not windows:
        with pytest.raises(IndexError, match="no window"):
            create_indices(np.array(ends), length, mask, before, after)
        return
    sampler = SequenceSampler(
        numpy_buffer(ends), length, before, after, key_first_k={"obs": first_k}, episode_mask=mask
    )
    expected = [rows for _, rows in windows]
    assert sampler.indices.tolist() == [indices for indices, _ in windows]
    batch = sampler.sample_sequences(np.arange(len(sampler)))
    assert sampler.window_rows(np.arange(len(sampler))).tolist() == batch["step"].tolist() == expected
    k = data.draw(st.integers(1, length))
    for key in batch:
        shorter = sampler.sample_sequences(np.arange(len(sampler)), first_steps={key: k})
        assert all(
            np.array_equal(shorter[other], batch[other][:, : k if other == key else length], equal_nan=True)
            for other in batch
        )
    for index, rows in enumerate(expected):
        sample = sampler.sample_sequence(index)
        assert sample["step"].tolist() == rows
        read = [float(row) if row - rows[0] < first_k else np.nan for row in rows]
        np.testing.assert_array_equal(sample["obs"][:, 0], read)
        np.testing.assert_array_equal(batch["obs"][index], sample["obs"])


class TestSequenceSampler:
    def test_unpadded_samples_are_views(self) -> None:
        buffer = numpy_buffer([8])
        sampler = SequenceSampler(buffer, 4, pad_before=1)
        assert not np.shares_memory(sampler.sample_sequence(0)["obs"], buffer["obs"])
        for index in range(1, len(sampler)):
            assert np.shares_memory(sampler.sample_sequence(index)["obs"], buffer["obs"])

    def test_integers_beyond_first_k_are_zero(self) -> None:
        sampler = SequenceSampler(numpy_buffer([8]), 4, key_first_k={"step": 2})
        assert sampler.sample_sequence(3)["step"].tolist() == [3, 4, 0, 0]
        assert sampler.sample_sequences(np.array([3]))["step"].tolist() == [[3, 4, 0, 0]]

    def test_only_the_first_k_rows_are_read(self, tmp_path: Path) -> None:
        buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
        buffer.add_episode({"img": np.arange(1, 9)}, chunks={"img": (1,)})
        for row in range(4, 8):
            (tmp_path / "a.zarr" / "data" / "img" / str(row)).write_bytes(b"damaged")
        sampler = SequenceSampler(buffer, 6, key_first_k={"img": 2})
        assert sampler.sample_sequence(2)["img"].tolist() == [3, 4, 0, 0, 0, 0]
        assert sampler.sample_sequences(np.array([2, 0]))["img"].tolist() == [[3, 4, 0, 0, 0, 0], [1, 2, 0, 0, 0, 0]]
        with pytest.raises(ValueError, match="cannot read array data/img"):
            SequenceSampler(buffer, 6).sample_sequence(2)

    def test_only_the_first_steps_are_read(self, tmp_path: Path) -> None:
        buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
        buffer.add_episode({"img": np.arange(1, 9), "step": np.arange(8)}, chunks={"img": (1,)})
        for row in range(4, 8):
            (tmp_path / "a.zarr" / "data" / "img" / str(row)).write_bytes(b"damaged")
        sampler = SequenceSampler(buffer, 6, pad_before=1)
        batch = sampler.sample_sequences(np.array([3, 0]), first_steps={"img": 2})
        assert batch["img"].tolist() == [[3, 4], [1, 1]]  # the second window begins with padding
        assert batch["step"].tolist() == [[2, 3, 4, 5, 6, 7], [0, 0, 1, 2, 3, 4]]

    def test_bad_first_steps(self) -> None:
        sampler = SequenceSampler(numpy_buffer([8]), 4)
        with pytest.raises(ValueError, match=r"'image', which is not sampled; sampled are \['step', 'obs'\]"):
            sampler.sample_sequences(np.array([0]), first_steps={"image": 2})
        for k in (0, 5):
            with pytest.raises(ValueError, match=f"'obs' is {k}, expected 1 to 4"):
                sampler.sample_sequences(np.array([0]), first_steps={"obs": k})

    def test_bad_arguments(self) -> None:
        buffer = numpy_buffer([3, 5])
        with pytest.raises(IndexError, match=r"16 steps .* 2 of at most 3 steps, with 1 .* before and 7"):
            SequenceSampler(buffer, 16, pad_before=1, pad_after=7)
        with pytest.raises(ValueError, match="at least 1, got 0"):
            SequenceSampler(buffer, 0)
        with pytest.raises(ValueError, match=r"shape \(3,\), expected \(2,\)"):
            SequenceSampler(buffer, 2, episode_mask=np.ones(3, dtype=bool))
        with pytest.raises(KeyError, match="nope"):
            SequenceSampler(buffer, 2, keys=["nope"])


def test_val_mask_always_leaves_both_sides() -> None:
    for n_episodes in range(2, 20):
        for ratio in (1e-6, 0.5, 0.99):
            assert 1 <= get_val_mask(n_episodes, ratio).sum() < n_episodes
    assert not get_val_mask(1, 0.5).any()
    assert get_val_mask(0, 0.5).shape == (0,)
