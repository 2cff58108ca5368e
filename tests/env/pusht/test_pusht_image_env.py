import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from diffusion_policy.env.pusht.pusht_image_env import PushTImageEnv

SEEDS = [0, 1, 2, 100000, 100001, 100002, 100003, 100004]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("legacy", [True, False])
def test_observations_of_seeds(original, original_rendering, seed, legacy):
    name = f"image/{'legacy' if legacy else 'nonlegacy'}/seed{seed}"
    expected = original_rendering[name]
    env = PushTImageEnv(legacy=legacy)
    obs, _ = env.reset(seed=seed)
    assert obs["image"].mean() == pytest.approx(expected["reset"]["image_mean"], abs=1e-5)
    np.testing.assert_array_equal(obs["agent_pos"], np.float32(expected["reset"]["agent_pos"]))
    for action, step in zip(original["out/actions"], expected["steps"], strict=True):
        obs, reward, *_ = env.step(action)
        assert obs in env.observation_space
        assert obs["image"].mean() == pytest.approx(step["image_mean"], abs=1e-5)
        np.testing.assert_array_equal(obs["agent_pos"], np.float32(step["agent_pos"]))
        assert reward == pytest.approx(step["reward"], abs=1e-12)
    assert env.render().mean() == pytest.approx(expected["render_after"]["mean"], abs=1e-3)


@pytest.mark.parametrize("seed", [0, 100000])
def test_pixels(original, seed):
    """The observation shows no action, what `render` returns does."""
    prefix = f"out/image/legacy/seed{seed}/"
    env = PushTImageEnv(legacy=True)
    obs, _ = env.reset(seed=seed)
    assert np.abs(obs["image"] * 255 - original[prefix + "reset_image_u8"]).max() < 1.01
    for action in original["out/actions"]:
        obs, *_ = env.step(action)
    assert np.abs(obs["image"] * 255 - original[prefix + "last_image_u8"]).max() < 1.01
    assert np.abs(env.render().astype(int) - original[prefix + "render_after_u8"]).max() <= 1


def test_render_follows_a_state_set_by_hand():
    env = PushTImageEnv()
    env.reset(seed=0)
    before = env.render()
    env._set_state([400, 400, 100, 100, 0])
    assert not np.array_equal(env.render(), before)


def test_image_size():
    obs, _ = PushTImageEnv(render_size=32).reset(seed=0)
    assert obs["image"].shape == (3, 32, 32)
    assert obs["image"].dtype == np.float32


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasium_accepts_it():
    check_env(PushTImageEnv())
