import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.scripts.bet_blockpush_conversion import FILES
from diffusion_policy.scripts.bet_blockpush_conversion import main as convert_bet
from diffusion_policy.scripts.blockpush_abs_conversion import main as convert_to_abs
from diffusion_policy.scripts.generate_bet_blockpush import main as generate

Arrays = dict[str, np.ndarray]


def invoke(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def refused(command: Any, *arguments: object) -> str:
    result = invoke(command, *arguments)
    assert result.exit_code != 0
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def done(command: Any, *arguments: object) -> str:
    result = invoke(command, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def bet(tmp_path: Path) -> Callable[..., Path]:
    """Writes demonstrations as those of Behavior Transformers are: padded to equal length, with a mask."""

    def write(**replaced: np.ndarray) -> Path:
        rng = np.random.default_rng(0)
        mask = np.zeros((3, 10))
        for i, length in enumerate((10, 4, 7)):
            mask[i, :length] = 1
        arrays = {"obs": rng.normal(size=(3, 10, 16)), "action": rng.normal(size=(3, 10, 2)), "mask": mask, **replaced}
        steps = zip(arrays["obs"], arrays["action"], strict=True)
        for obs, action in steps:
            obs[1:, 8:10] = obs[0, 8:10] + action.cumsum(axis=0)[:9]
        for key, name in FILES.items():
            np.save(tmp_path / name, arrays[key])
        return tmp_path

    return write


def test_demonstrations_are_the_same_whatever_the_number_of_processes_and_replay(tmp_path: Path) -> None:
    pytest.importorskip("pybullet", reason="block pushing needs pybullet (pip install 'diffusion_policy[sim]')")
    from diffusion_policy.env.block_pushing.block_pushing_multimodal import BlockPushMultimodal

    paths = {n: tmp_path / f"{n}.zarr" for n in (1, 2)}
    for n, path in paths.items():
        arguments = ("-n", 2, "-c", 50, "-j", n, "--action_noise_std", 0.002)
        assert "2 of 2 episodes succeeded" in done(generate, "-o", path, *arguments)
    first, second = (ReplayBuffer.copy_from_path(path) for path in paths.values())
    for key, width in (("obs", 16), ("action", 2)):
        assert first[key].shape == (first.n_steps, width)
        assert first[key].dtype == np.float32
        np.testing.assert_array_equal(first[key], second[key])
    assert ReplayBuffer.create_from_path(paths[1]).get_chunks() == {"obs": (50, 16), "action": (50, 2)}
    assert "exists already" in refused(generate, "-o", paths[1])

    env = BlockPushMultimodal()
    episode = first.get_episode(1)
    obs, _ = env.reset(seed=200_001)
    for seen, action in zip(episode["obs"], episode["action"], strict=True):
        np.testing.assert_array_equal(np.concatenate(list(obs.values())), seen)
        obs, _, terminated, _, _ = env.step(action)
    assert terminated
    env.close()

    # As absolute actions they lead to the same places.
    done(convert_to_abs, "-i", paths[1], "-o", tmp_path / "abs.zarr")
    converted = ReplayBuffer.copy_from_path(tmp_path / "abs.zarr").get_episode(1)
    np.testing.assert_array_equal(converted["obs"], episode["obs"])
    np.testing.assert_allclose(converted["action"], episode["obs"][:, 8:10] + episode["action"], atol=1e-6)


def test_disturbances_are_done_and_not_recorded(tmp_path: Path) -> None:
    pytest.importorskip("pybullet", reason="block pushing needs pybullet (pip install 'diffusion_policy[sim]')")
    done(generate, "-o", tmp_path / "demo.zarr", "-n", 1, "--disturbance_std", 0.006)
    episode = ReplayBuffer.copy_from_path(tmp_path / "demo.zarr").get_episode(0)
    moved = np.diff(episode["obs"][:, 8:10], axis=0)
    assert np.std(moved - episode["action"][:-1]) == pytest.approx(0.006, rel=0.2)
    assert np.linalg.norm(episode["action"], axis=1).max() < 0.026  # the oracle's own steps, without noise


def test_absent_pybullet_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("diffusion_policy.env.block_pushing")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pybullet", None)
    assert "pip install 'diffusion_policy[sim]'" in refused(generate, "-o", tmp_path / "demo.zarr")


def test_hopeless_settings_leave_no_file(tmp_path: Path) -> None:
    pytest.importorskip("pybullet", reason="block pushing needs pybullet (pip install 'diffusion_policy[sim]')")
    path = tmp_path / "few_steps.zarr"
    assert "none of 1 episodes succeeded" in refused(generate, "-o", path, "-n", 1, "--max_steps", 3)
    assert "less than 1" in refused(generate, "-o", path, "-n", 0)
    assert not path.exists()


@pytest.mark.parametrize("abs_action", [False, True])
def test_bet_demonstrations_are_converted(bet: Callable[..., Path], tmp_path: Path, abs_action: bool) -> None:
    source, output = bet(), tmp_path / "converted.zarr"
    done(convert_bet, "-i", source, "-o", output, *(["--abs_action"] if abs_action else []))
    buffer = ReplayBuffer.copy_from_path(output)
    assert buffer.episode_lengths.tolist() == [10, 4, 7]
    obs, action = (np.load(source / FILES[key]) for key in ("obs", "action"))
    np.testing.assert_array_equal(buffer.get_episode(1)["obs"], obs[1, :4].astype(np.float32))
    expected = obs[1, :4, 8:10] + action[1, :4] if abs_action else action[1, :4]
    np.testing.assert_allclose(buffer.get_episode(1)["action"], expected, atol=1e-6)
    assert "exists already" in refused(convert_bet, "-i", source, "-o", output)


def test_bad_bet_demonstrations_are_refused(bet: Callable[..., Path], tmp_path: Path) -> None:
    output = tmp_path / "converted.zarr"
    assert FILES["obs"] in refused(convert_bet, "-i", tmp_path, "-o", output)
    source = bet(action=np.zeros((3, 9, 2)), obs=np.zeros((3, 10, 16)))
    assert "expected (3, 10, 2)" in refused(convert_bet, "-i", source, "-o", output)
    source = bet(mask=np.array([[1.0] * 10, [0.0] * 10, [1.0] * 10]))
    assert "episode 1" in refused(convert_bet, "-i", source, "-o", output)
    file = bet() / FILES["action"]
    file.write_bytes(file.read_bytes()[:200])
    assert "is damaged" in refused(convert_bet, "-i", tmp_path, "-o", output)
    assert not output.exists()


def test_absolute_conversion_refuses_other_data(tmp_path: Path) -> None:
    output = tmp_path / "abs.zarr"
    refused(convert_to_abs, "-i", tmp_path / "absent.zarr", "-o", output)
    buffer = ReplayBuffer.create_empty_numpy()
    buffer.add_episode({"obs": np.zeros((5, 9)), "action": np.zeros((5, 2))})
    buffer.save_to_path(tmp_path / "other.zarr")
    assert "target_eef_idx 8" in refused(convert_to_abs, "-i", tmp_path / "other.zarr", "-o", output)
    done(convert_to_abs, "-i", tmp_path / "other.zarr", "-o", output, "-t", 7)
