import numpy as np
import pytest
from omegaconf import OmegaConf

from diffusion_policy.common.cv2_util import get_image_transform
from diffusion_policy.real_world.real_inference_util import get_real_obs_dict, get_real_obs_resolution

META = {
    "obs": {
        "camera_1": {"shape": (3, 24, 32), "type": "rgb"},
        "robot_eef_pose": {"shape": (2,), "type": "low_dim"},
        "robot_joint": {"shape": (6,), "type": "low_dim"},
    },
    "action": {"shape": (2,)},
}


@pytest.fixture
def env_obs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "camera_0": np.zeros((2, 48, 64, 3), np.uint8),
        "camera_1": rng.integers(0, 256, (2, 48, 80, 3), dtype=np.uint8),
        "robot_eef_pose": rng.normal(size=(2, 6)),
        "robot_joint": rng.normal(size=(2, 6)),
        "timestamp": np.arange(2.0),
    }


def test_observations_are_as_in_training(env_obs: dict[str, np.ndarray]) -> None:
    obs = get_real_obs_dict(env_obs, META)
    assert list(obs) == list(META["obs"])
    scale = get_image_transform((80, 48), (32, 24))
    expected = np.stack([scale(image) for image in env_obs["camera_1"]]).transpose(0, 3, 1, 2) / np.float32(255)
    assert obs["camera_1"].dtype == np.float32
    np.testing.assert_allclose(obs["camera_1"], expected, rtol=1e-6)
    np.testing.assert_array_equal(obs["robot_eef_pose"], env_obs["robot_eef_pose"][:, :2])
    np.testing.assert_array_equal(obs["robot_joint"], env_obs["robot_joint"])


def test_floats_stay_as_they_are(env_obs: dict[str, np.ndarray]) -> None:
    images = np.random.default_rng(1).random((2, 24, 32, 3), np.float32)
    obs = get_real_obs_dict({**env_obs, "camera_1": images}, META)
    np.testing.assert_array_equal(obs["camera_1"], images.transpose(0, 3, 1, 2))


def test_x_and_y_are_taken_however_the_shape_is_written(env_obs: dict[str, np.ndarray]) -> None:
    """The original takes a whole pose where a plain list asks for two numbers."""
    as_lists = OmegaConf.to_container(OmegaConf.create(META))
    for meta in (as_lists, OmegaConf.create(META)):
        assert get_real_obs_dict(env_obs, meta)["robot_eef_pose"].shape == (2, 2)


def test_what_does_not_fit_is_refused(env_obs: dict[str, np.ndarray]) -> None:
    with pytest.raises(KeyError, match="the policy needs 'robot_joint', which the robot lacks"):
        get_real_obs_dict({key: value for key, value in env_obs.items() if key != "robot_joint"}, META)
    with pytest.raises(ValueError, match=r"'robot_joint' has steps of shape \(7,\), the policy needs \(6,\)"):
        get_real_obs_dict({**env_obs, "robot_joint": np.zeros((2, 7))}, META)
    with pytest.raises(ValueError, match=r"expected images \(To, H, W, 3\)"):
        get_real_obs_dict({**env_obs, "camera_1": np.zeros((2, 3, 24, 32))}, META)


def test_resolution_is_that_of_all_cameras() -> None:
    assert get_real_obs_resolution(META) == (32, 24)
    two = {**META, "obs": {**META["obs"], "camera_3": {"shape": (3, 24, 24), "type": "rgb"}}}
    with pytest.raises(ValueError, match="expected cameras of one size"):
        get_real_obs_resolution(two)
    with pytest.raises(ValueError, match="expected cameras of one size"):
        get_real_obs_resolution({**META, "obs": {"robot_joint": {"shape": (6,)}}})
