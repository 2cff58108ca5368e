import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
import zarr
from fixtures import load_fixture

from diffusion_policy.dataset.pusht_image_dataset import PushTImageDataset
from diffusion_policy.env.pusht.state_renderer import render_states

CONFIG = {"horizon": 16, "pad_before": 1, "pad_after": 7}
SHAPE_META = {
    "obs": {"image": {"shape": [3, 96, 96], "type": "rgb"}, "agent_pos": {"shape": [2], "type": "low_dim"}},
    "action": {"shape": [2]},
}


def _shape_meta(image=(3, 96, 96), agent_pos=(2,), action=(2,), **more):
    obs = {"image": {"shape": image, "type": "rgb"}, "agent_pos": {"shape": agent_pos, "type": "low_dim"}, **more}
    return {"obs": obs, "action": {"shape": action}}


def _with_images(episodes, dtype=np.float32, size=8):
    """Episodes with random images in place of drawn ones."""
    rng = np.random.default_rng(0)
    return [{**e, "img": rng.integers(0, 256, (len(e["state"]), size, size, 3)).astype(dtype)} for e in episodes]


@pytest.fixture(scope="module")
def published(real_pusht):
    return PushTImageDataset(str(real_pusht), **CONFIG, seed=42, val_ratio=0.02, max_train_episodes=90)


class TestPublishedDemonstrations:
    def test_lengths_and_items(self, published, compat):
        fixture = load_fixture(compat, "f_sampler")
        facts = fixture.meta["pusht"]["image"]
        assert (len(published), len(published.get_validation_dataset())) == (facts["len_train"], facts["len_val"])
        item = published[1000]
        image = item["obs"]["image"]
        assert (list(image.shape), image.dtype) == (facts["image_shape"], torch.float32)
        assert [image.min().item(), image.max().item()] == facts["image_range"]
        assert hashlib.sha256(image.numpy().tobytes()).hexdigest() == facts["image_sha256"]
        for key, value in (("agent_pos", item["obs"]["agent_pos"]), ("action", item["action"])):
            assert torch.equal(value, fixture.tensor(f"out/pusht_image/item1000/{key}"))

    def test_normalizer(self, published, compat):
        state = published.get_normalizer().state_dict()
        expected = load_fixture(compat, "f_sampler").tensors("out/pusht_image/normalizer/")
        assert state.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-5)

    def test_images_are_bytes(self, published):
        assert published.replay_buffer["img"].dtype == np.uint8
        assert published.replay_buffer["img"].shape == (25650, 96, 96, 3)


class TestSamples:
    def test_shapes_and_values(self, few_episodes, write_demonstrations):
        dataset = PushTImageDataset(write_demonstrations(_with_images(few_episodes)), 4, pad_before=1, pad_after=2)
        buffer = dataset.replay_buffer
        assert (len(buffer["img"]), buffer["img"].dtype) == (95, np.uint8)
        sample = dataset[0]
        rows = [0, 0, 1, 2]
        assert {key: value.dtype for key, value in sample["obs"].items()} == {
            "image": torch.float32,
            "agent_pos": torch.float32,
        }
        np.testing.assert_array_equal(sample["obs"]["image"], np.moveaxis(buffer["img"][rows], -1, 1) / np.float32(255))
        np.testing.assert_array_equal(sample["obs"]["agent_pos"], buffer["state"][rows, :2])
        np.testing.assert_array_equal(sample["action"], buffer["action"][rows])

    @pytest.mark.parametrize("n_obs_steps", [None, 1, 3])
    def test_batch_is_the_stack_of_its_samples(self, few_episodes, write_demonstrations, n_obs_steps):
        path = write_demonstrations(_with_images(few_episodes))
        dataset = PushTImageDataset(path, **CONFIG, n_obs_steps=n_obs_steps)
        indices = [0, 5, len(dataset) - 1, 5]
        batch = dataset.get_batch(indices)
        samples = [dataset[i] for i in indices]
        n_read = n_obs_steps or 16
        assert batch["obs"]["image"].shape == (4, n_read, 3, 8, 8)
        assert batch["obs"]["image"].is_contiguous()
        assert batch["obs"]["agent_pos"].shape == (4, n_read, 2)
        assert batch["action"].shape == (4, 16, 2)
        assert torch.equal(batch["action"], torch.stack([sample["action"] for sample in samples]))
        for key, value in batch["obs"].items():
            assert torch.equal(value, torch.stack([sample["obs"][key] for sample in samples]))

    def test_fewer_obs_steps_are_the_first_ones(self, few_episodes, write_demonstrations):
        path = write_demonstrations(_with_images(few_episodes))
        all_steps = PushTImageDataset(path, **CONFIG, val_ratio=0.3)
        first = PushTImageDataset(path, **CONFIG, val_ratio=0.3, n_obs_steps=2)
        for fewer, full in ((first, all_steps), (first.get_validation_dataset(), all_steps.get_validation_dataset())):
            assert len(fewer) == len(full) > 0
            for i in (0, 20, len(full) - 1):
                for key, value in fewer[i]["obs"].items():
                    assert torch.equal(value, full[i]["obs"][key][:2])

    def test_windows_keep_their_bytes_until_they_are_transformed(self, few_episodes, write_demonstrations):
        dataset = PushTImageDataset(write_demonstrations(_with_images(few_episodes)), **CONFIG, n_obs_steps=2)
        windows = dataset.get_windows([0, 7])
        assert (windows["img"].dtype, windows["img"].shape) == (torch.uint8, (2, 2, 8, 8, 3))
        on_another_device = dataset.transform({key: value.to("meta") for key, value in windows.items()})
        assert on_another_device["obs"]["image"].device.type == "meta"
        assert on_another_device["obs"]["image"].shape == (2, 2, 3, 8, 8)

    def test_bytes_load_as_they_are(self, few_episodes, write_demonstrations):
        episodes = _with_images(few_episodes, dtype=np.uint8)
        dataset = PushTImageDataset(write_demonstrations(episodes), horizon=2)
        np.testing.assert_array_equal(dataset.replay_buffer["img"], np.concatenate([e["img"] for e in episodes]))

    def test_normalizer_spans_all_positions(self, few_episodes, write_demonstrations):
        dataset = PushTImageDataset(write_demonstrations(_with_images(few_episodes)), max_train_episodes=1)
        normalizer = dataset.get_normalizer()
        actions = normalizer["action"].normalize(dataset.get_all_actions())
        positions = normalizer["agent_pos"].normalize(dataset.replay_buffer["state"][:, :2])
        for values in (actions, positions):
            torch.testing.assert_close(values.amin(0), -torch.ones(2))
            torch.testing.assert_close(values.amax(0), torch.ones(2))
        assert normalizer["image"].normalize(torch.tensor([0.0, 1.0])).tolist() == [-1, 1]


class TestWithoutImages:
    def test_they_are_drawn(self, few_episodes, write_demonstrations):
        dataset = PushTImageDataset(write_demonstrations(few_episodes), horizon=2, shape_meta=SHAPE_META)
        expected = render_states(np.concatenate([e["state"] for e in few_episodes]))
        assert expected.shape == (95, 96, 96, 3)
        np.testing.assert_array_equal(dataset.replay_buffer["img"], expected)

    def test_in_the_size_of_shape_meta(self, few_episodes, write_demonstrations):
        dataset = PushTImageDataset(write_demonstrations(few_episodes), shape_meta=_shape_meta(image=(3, 48, 48)))
        assert dataset[0]["obs"]["image"].shape == (1, 3, 48, 48)

    @pytest.mark.parametrize("image", [(3, 48, 64), (1, 96, 96)])
    def test_but_square_and_coloured(self, few_episodes, write_demonstrations, image):
        with pytest.raises(ValueError, match=r"'image' has steps of shape \[.*\], but shape_meta.obs.image.shape is"):
            PushTImageDataset(write_demonstrations(few_episodes), shape_meta=_shape_meta(image=image))


class TestBadInput:
    def test_values(self, few_episodes, write_demonstrations):
        episodes = _with_images(few_episodes)
        episodes[1]["img"][3, 0, 0, 1] = np.nan
        with pytest.raises(ValueError, match=r"'img' has the value nan at step 43 \(episode 1\)"):
            PushTImageDataset(write_demonstrations(episodes))
        episodes[0]["img"] /= 255
        with pytest.raises(ValueError, match=r"'img' has the value .* at step 0 .*those in \[0, 1\] times 255"):
            PushTImageDataset(write_demonstrations(episodes))
        episodes[0]["state"] = np.full_like(episodes[0]["state"], np.inf)
        with pytest.raises(ValueError, match="'state' has NaN or infinite values, first at step 0"):
            PushTImageDataset(write_demonstrations(episodes))

    def test_shapes(self, few_episodes, write_demonstrations):
        path = write_demonstrations(_with_images(few_episodes))
        PushTImageDataset(path, shape_meta=_shape_meta(image=(3, 8, 8)))
        with pytest.raises(ValueError, match=r"'image' has steps of shape \[8, 8, 3\], but shape_meta.obs.image"):
            PushTImageDataset(path, shape_meta=SHAPE_META)
        with pytest.raises(ValueError, match=r"'agent_pos' has steps of shape \[2\]"):
            PushTImageDataset(path, shape_meta=_shape_meta(image=(3, 8, 8), agent_pos=(3,)))
        with pytest.raises(ValueError, match=r"'action' has steps of shape \[2\]"):
            PushTImageDataset(path, shape_meta=_shape_meta(image=(3, 8, 8), action=(7,)))
        wrist = {"shape": (3, 8, 8), "type": "rgb"}
        with pytest.raises(ValueError, match="camera 'wrist', which the dataset lacks"):
            PushTImageDataset(path, shape_meta=_shape_meta(image=(3, 8, 8), wrist=wrist))

    def test_images_that_are_none(self, few_episodes, write_demonstrations):
        episodes = [{**e, "img": e["state"]} for e in few_episodes]
        with pytest.raises(ValueError, match=r"'img' has shape \(95, 5\), expected images"):
            PushTImageDataset(write_demonstrations(episodes))

    @pytest.mark.parametrize("n_obs_steps", [0, 17])
    def test_obs_steps(self, few_episodes, write_demonstrations, n_obs_steps):
        with pytest.raises(ValueError, match=f"n_obs_steps is {n_obs_steps}, expected 1 to 16"):
            PushTImageDataset(write_demonstrations(few_episodes), **CONFIG, n_obs_steps=n_obs_steps)

    def test_missing_data_say_how_to_get_them(self, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            PushTImageDataset(str(tmp_path / "pusht_cchi_v7_replay.zarr"))
        assert "download_dataset pusht" in caught.value.__notes__[0]

    def test_missing_state_is_named(self, few_episodes, write_demonstrations):
        path = write_demonstrations([{"action": e["action"]} for e in few_episodes])
        with pytest.raises(KeyError, match="'state'"):
            PushTImageDataset(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from /proc")
def test_images_stored_as_floats_never_exist_as_floats(tmp_path):
    n_steps = 4000
    root = zarr.open_group(tmp_path / "large.zarr", mode="w", zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    shape = (n_steps, 96, 96, 3)
    data.create_array("img", shape=shape, dtype="float32", chunks=(100, *shape[1:]), fill_value=7)
    for key, width in (("state", 5), ("action", 2)):
        data.create_array(key, shape=(n_steps, width), dtype="float32", chunks=(n_steps, width))
    meta.create_array("episode_ends", shape=(1,), dtype="int64", chunks=(1,))[:] = n_steps
    code = """
import sys
from diffusion_policy.dataset.pusht_image_dataset import PushTImageDataset

def peak():
    return next(int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
dataset = PushTImageDataset(sys.argv[1], horizon=16)
dataset.get_normalizer()
assert dataset.replay_buffer["img"].min() == dataset.replay_buffer["img"].max() == 7
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large.zarr")], capture_output=True, text=True, check=True
    )
    n_bytes = np.prod(shape) / 1e6  # 111 MB; as float32 444 MB
    assert n_bytes < float(done.stdout) < 2 * n_bytes
