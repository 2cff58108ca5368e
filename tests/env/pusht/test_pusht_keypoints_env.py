import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from diffusion_policy.env.pusht.pusht_keypoints_env import PushTKeypointsEnv

SEEDS = [0, 1, 2, 100000, 100001, 100002, 100003, 100004]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("legacy", [True, False])
def test_observations_of_seeds(original, seed, legacy):
    prefix = f"out/kp/{'legacy' if legacy else 'nonlegacy'}/seed{seed}/"
    env = PushTKeypointsEnv(legacy=legacy, **PushTKeypointsEnv.genenerate_keypoint_manager_params())
    np.testing.assert_allclose(env.reset(seed=seed)[0], original[prefix + "reset_obs"], rtol=0, atol=1e-12)
    for step, action in enumerate(original["out/actions"]):
        obs, *_ = env.step(action)
        assert obs in env.observation_space
        np.testing.assert_allclose(obs, original[prefix + "obs"][step], rtol=0, atol=1e-12)


def test_agent_keypoints_and_random_visibility(original):
    """Hidden positions are given, their mask is drawn from the seed."""
    prefix = "out/kp_agent_keypoints_vis0.5/seed0/"
    env = PushTKeypointsEnv(legacy=True, agent_keypoints=True, keypoint_visible_rate=0.5, draw_keypoints=True)
    np.testing.assert_allclose(env.reset(seed=0)[0], original[prefix + "reset_obs"], rtol=0, atol=1e-12)
    obs, *_ = env.step(original["out/actions"][0])
    np.testing.assert_allclose(obs, original[prefix + "obs1"], rtol=0, atol=1e-12)

    expected = original[prefix + "render_u8"].copy()
    # The original draws hidden keypoints at the image's corner. Here they are not drawn.
    for pixel in ((0, 0), (0, 1), (1, 0)):
        assert expected[pixel].tolist() == [255, 127, 14]
        expected[pixel] = env.render()[pixel]
    assert np.abs(env.render().astype(int) - expected).max() <= 1


def test_image(original):
    env = PushTKeypointsEnv(legacy=True)
    env.reset(seed=0)
    env.step(original["out/actions"][0])
    assert np.abs(env.render().astype(int) - original["out/kp/legacy/seed0/render_u8"]).max() <= 1


def test_keypoints_are_those_published(demonstrations):
    """They were computed after setting each recorded state twice, which lets contacts push the block a little."""
    states, keypoints = demonstrations.data["state"], demonstrations.data["keypoint"]
    env = PushTKeypointsEnv()
    for episode, (start, end) in enumerate(demonstrations.bounds):
        env.reset_to_state = states[start]
        env.reset(seed=0)
        for t in range(start, end):
            env._set_state(states[t])
            env._set_state(states[t])
            error = np.abs(env._get_obs()[:18].reshape(9, 2) - keypoints[t]).max()
            assert error < 5e-5, f"episode {episode}, step {t - start}"


def test_own_keypoints():
    corners = np.array([[-60.0, 0.0], [60.0, 0.0]])
    env = PushTKeypointsEnv(
        reset_to_state=[50, 60, 256, 256, np.pi / 2],
        local_keypoint_map={"block": corners},
        color_map={"block": (255, 0, 0)},
        draw_keypoints=True,
        render_size=512,
    )
    obs, _ = env.reset(seed=0)
    np.testing.assert_allclose(obs, [256, 196, 256, 316, 50, 60] + 6 * [1], atol=1e-9)
    assert env.observation_space.shape == (12,)
    assert env.render()[196, 256].tolist() == [255, 0, 0]


def test_own_colors_of_the_standard_keypoints():
    env = PushTKeypointsEnv(color_map={"block": (1, 2, 3), "agent": (4, 5, 6)})
    assert env.kp_manager.color_map["agent"] == (4, 5, 6)
    assert env.kp_manager.local_keypoint_map["block"].shape == (9, 2)


def test_reset_again_draws_another_mask():
    env = PushTKeypointsEnv(keypoint_visible_rate=0.5)
    first, second = env.reset(seed=5)[0], env.reset()[0]
    np.testing.assert_array_equal(first[:20], second[:20])
    assert not np.array_equal(first[20:], second[20:])
    np.testing.assert_array_equal(env.reset(seed=5)[0], first)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasium_accepts_it():
    check_env(PushTKeypointsEnv(keypoint_visible_rate=0.5))
