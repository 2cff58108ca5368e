import numpy as np

from diffusion_policy.real_world.observations import aligned_observation, last_before

KEYS = {"ActualTCPPose": "robot_eef_pose"}


def _frames(timestamps: np.ndarray) -> dict[str, np.ndarray]:
    """Images whose value is their index."""
    return {"timestamp": timestamps, "color": np.arange(len(timestamps), dtype=np.uint8)[:, None, None, None]}


def test_last_before_is_strict() -> None:
    timestamps = np.array([1.0, 2.0, 3.0])
    assert last_before(timestamps, np.array([0.5, 1.0, 1.5, 2.0, 3.0, 9.0])).tolist() == [0, 0, 0, 0, 1, 2]


def test_moments_end_at_the_newest_frame_of_any_camera() -> None:
    """Each gets the last frame strictly before it, of cameras that are not in step."""
    frames = {0: _frames(10 + np.arange(8) / 30), 1: _frames(10.02 + np.arange(8) / 30)}
    states = {
        "ActualTCPPose": np.arange(40.0)[:, None] * np.ones(6),
        "ActualQ": np.zeros((40, 6)),
        "robot_receive_timestamp": 10 + np.arange(40) * 0.008,
    }
    obs = aligned_observation(frames, states, KEYS, n_obs_steps=2, dt=0.1)
    newest = 10.02 + 7 / 30
    np.testing.assert_allclose(obs["timestamp"], [newest - 0.1, newest])
    assert obs["camera_0"].ravel().tolist() == [4, 7]
    assert obs["camera_1"].ravel().tolist() == [3, 6]  # at the newest frame itself: the one before
    assert obs.keys() == {"camera_0", "camera_1", "robot_eef_pose", "timestamp"}
    rows = obs["robot_eef_pose"][:, 0]
    received = states["robot_receive_timestamp"][rows.astype(int)]
    assert (received < obs["timestamp"]).all()
    assert (received + 0.008 >= obs["timestamp"]).all()
