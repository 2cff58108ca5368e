import numpy as np
import pytest
import torch

from diffusion_policy.dataset.mujoco_image_dataset import MujocoImageDataset


def _episodes(image_type=np.uint8):
    rng = np.random.default_rng(0)
    return [
        {
            "img": rng.integers(0, 256, (n, 6, 8, 3)).astype(image_type),
            "robot_tcp_pose": rng.normal(size=(n, 7)),
            "gripper_width": rng.uniform(size=(n, 1)),
            "action": rng.normal(size=(n, 8)),
        }
        for n in (9, 12)
    ]


@pytest.mark.parametrize("image_type", [np.uint8, np.float32])
def test_samples_are_images_tool_and_gripper(write_demonstrations, image_type):
    episodes = _episodes(image_type)
    dataset = MujocoImageDataset(write_demonstrations(episodes), horizon=4)
    sample = dataset[6]  # the first of the second episode
    image = episodes[1]["img"][:4].transpose(0, 3, 1, 2) / np.float32(255)
    torch.testing.assert_close(sample["obs"]["image"], torch.from_numpy(image.astype(np.float32)))
    state = np.concatenate([episodes[1]["robot_tcp_pose"], episodes[1]["gripper_width"]], axis=1)[:4]
    np.testing.assert_allclose(sample["obs"]["agent_pos"], state, rtol=1e-6)
    np.testing.assert_allclose(sample["action"], episodes[1]["action"][:4], rtol=1e-6)


def test_normalizer_fits_what_is_observed(write_demonstrations):
    dataset = MujocoImageDataset(write_demonstrations(_episodes()), horizon=4)
    normalizer = dataset.get_normalizer()
    assert normalizer["agent_pos"].params_dict["scale"].shape == (8,)
    states = torch.cat([dataset[i]["obs"]["agent_pos"] for i in range(len(dataset))])
    normalized = normalizer["agent_pos"].normalize(states)
    torch.testing.assert_close(normalized.amax(0), torch.ones(8))
    assert normalizer["image"].normalize(torch.zeros(1)).item() == -1


def test_other_names_are_given_and_missing_ones_named(write_demonstrations):
    episodes = [{("camera" if key == "img" else key): value for key, value in e.items()} for e in _episodes()]
    path = write_demonstrations(episodes)
    with pytest.raises(KeyError, match=r"has no \['img'\]; it has \['action', 'camera'.*image_key"):
        MujocoImageDataset(path)
    dataset = MujocoImageDataset(path, image_key="camera", state_keys=["robot_tcp_pose"])
    assert dataset[0]["obs"]["agent_pos"].shape == (1, 7)
