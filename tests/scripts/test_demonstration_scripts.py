import numpy as np
from click.testing import CliRunner

from diffusion_policy.common.checkpoint_file import read_checkpoint
from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.demonstration_recorder import recorded_keypoints_env
from diffusion_policy.policy.policy_loading import load_policy
from diffusion_policy.scripts.export_policy import main as export_policy
from diffusion_policy.scripts.generate_pusht_demonstrations import main as generate


def test_generated_demonstrations_are_successes_that_replay(repository, tmp_path):
    output = tmp_path / "demo.zarr.zip"
    arguments = ["-c", f"{repository}/assets/pusht_demo.ckpt", "-o", str(output), "-n", "6", "-d", "cpu"]
    result = CliRunner().invoke(generate, arguments)
    assert result.exit_code == 0, result.output
    buffer = ReplayBuffer.copy_from_path(str(output))
    assert f"{buffer.n_episodes} of 6 episodes succeeded" in result.output
    env = recorded_keypoints_env(legacy=False)
    episode = buffer.get_episode(0)
    env.unwrapped.reset_to_state = episode["state"][0]
    env.reset(seed=0)
    for action in episode["action"]:
        _, _, terminated, _, info = env.step(action)
    assert terminated
    for key, values in info["demonstration"].items():
        assert values.shape == episode[key].shape
        assert values.dtype == np.float32
    again = CliRunner().invoke(generate, arguments)
    assert again.exit_code != 0
    assert "exists already" in again.output


def test_exported_policy_is_the_evaluated_one_alone(repository, tmp_path):
    source, target = repository / "assets" / "pusht_demo.ckpt", tmp_path / "policy.ckpt"
    assert CliRunner().invoke(export_policy, [str(source), str(target)]).exit_code == 0
    assert list(read_checkpoint(target)["state_dicts"]) == ["ema_model"]
    load_policy(target, "cpu")
    missing = CliRunner().invoke(export_policy, [str(tmp_path / "absent.ckpt"), str(target)])
    assert missing.exit_code != 0
    assert "no checkpoint at" in missing.output
