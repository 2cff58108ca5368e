from pathlib import Path

import hydra
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from robot_checkpoints import HIGH, LOW, policy_config, write_robot_policy
from tiny import tiny
from tiny_policies import served

from diffusion_policy.common.checkpoint_file import CheckpointError
from diffusion_policy.common.config import register_resolvers
from diffusion_policy.real_world.robot_policy import ControlSettings, LocalPolicy, ServedPolicy, executed


@pytest.fixture
def env_obs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = {f"camera_{i}": rng.integers(0, 256, (2, 24, 32, 3), dtype=np.uint8) for i in range(3)}
    pose = np.tile([0.45, 0.25, 0.02, 3.1, 0, 0], (2, 1))
    return {**images, "robot_eef_pose": pose, "timestamp": np.array([1.0, 1.1])}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_robot_policy(tmp_path_factory.mktemp("policy") / "policy.ckpt", name="train_diffusion_unet_real_image")


def _is_in_range(actions: np.ndarray) -> bool:
    margin = 0.5 * np.subtract(HIGH, LOW)
    return bool((np.subtract(LOW, margin) < actions).all() and (actions < np.add(HIGH, margin)).all())


def test_a_checkpoint_answers_with_all_that_it_predicts_from_now_on(checkpoint: Path, env_obs: dict) -> None:
    policy = LocalPolicy(str(checkpoint), "cpu", steps_per_inference=6)
    assert policy.settings == ControlSettings(6, 0, False)
    assert (policy.n_obs_steps, policy.shape_meta["action"]["shape"]) == (2, [2])
    policy.reset()
    actions = policy.predict(env_obs)
    assert (actions.shape, actions.dtype) == ((7, 2), np.float64)  # of a horizon of 8 steps, the first of which is past
    assert _is_in_range(actions)
    with pytest.raises(KeyError, match="the policy needs 'camera_1', which the robot lacks"):
        policy.predict({key: value for key, value in env_obs.items() if key != "camera_1"})


def test_changes_of_position_are_told_by_the_config(tmp_path: Path) -> None:
    path = write_robot_policy(tmp_path / "delta.ckpt", task={"dataset": {"delta_action": True}})
    assert LocalPolicy(str(path), "cpu", 6).settings.delta_action


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.ckpt"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        LocalPolicy(str(path), "cpu", 6)


def test_other_schedules_take_no_more_steps_than_they_have() -> None:
    policy = hydra.utils.instantiate(OmegaConf.create(policy_config()))
    policy.noise_scheduler.register_to_config(num_train_timesteps=10)
    executed(policy, OmegaConf.create({}), 6)
    assert policy.num_inference_steps == 10


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("train_ibc_dfo_real_hybrid_workspace", ControlSettings(1, 1, False)),
        ("train_robomimic_real_image_workspace", ControlSettings(1, 1, False)),
        ("train_diffusion_transformer_real_hybrid_workspace", ControlSettings(6, 0, False)),
    ],
)
def test_kinds_of_policies_are_executed_as_the_originals(
    repository: Path, config: str, expected: ControlSettings
) -> None:
    register_resolvers()
    with initialize_config_dir(str(repository / "diffusion_policy/config"), version_base=None):
        cfg = compose(config, overrides=tiny(config))
    OmegaConf.resolve(cfg)
    policy = hydra.utils.instantiate(cfg.policy)
    assert executed(policy, cfg, steps_per_inference=6) == expected
    if "ibc" in config:
        assert (policy.pred_n_iter, policy.pred_n_samples) == (5, 4096)
    if "transformer" in config:
        assert (policy.num_inference_steps, policy.n_action_steps) == (16, cfg.horizon - cfg.n_obs_steps + 1)


def test_a_served_policy_answers_as_one_here(checkpoint: Path, env_obs: dict) -> None:
    with served(checkpoint) as (port, _, _):
        policy = ServedPolicy(f"ws://127.0.0.1:{port}", steps_per_inference=6)
        assert policy.settings == ControlSettings(4, 0, False)  # no more than it answers with
        assert policy.n_obs_steps == 2
        policy.reset()
        actions = policy.predict(env_obs)
        assert actions.shape == (4, 2)
        assert _is_in_range(actions)
        policy.close()
    with pytest.raises(ConnectionError, match="no policy server at"):
        ServedPolicy("ws://127.0.0.1:9", 6, connect_timeout=0.5)
