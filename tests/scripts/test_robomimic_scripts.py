import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from robomimic_data import write_random

from diffusion_policy.common.robomimic_hdf5 import demo_names
from diffusion_policy.env.robomimic.absolute_action_converter import RobomimicAbsoluteActionConverter
from diffusion_policy.scripts.episode_lengths import main as episode_lengths
from diffusion_policy.scripts.generate_robomimic_demos import main as generate
from diffusion_policy.scripts.robomimic_dataset_action_comparison import main as compare
from diffusion_policy.scripts.robomimic_dataset_conversion import main as convert


def _run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_demonstrations_succeed_and_have_robomimics_layout(lift_demos):
    with h5py.File(lift_demos) as file:
        assert json.loads(file["data"].attrs["env_args"])["env_name"] == "Lift"
        names = demo_names(file)
        assert len(names) == 3
        demos = [file["data"][name] for name in names]
        assert file["data"].attrs["total"] == sum(demo.attrs["num_samples"] for demo in demos)
        for demo in demos:
            n = demo.attrs["num_samples"]
            assert {demo[key].shape[0] for key in ("actions", "states", "rewards", "dones")} == {n}
            assert demo["rewards"][-1] == 1
            assert "<mujoco" in demo.attrs["model_file"]
            assert np.abs(demo["actions"]).max() <= 1
            assert demo["obs/agentview_image"].shape == (n, 84, 84, 3)
            np.testing.assert_array_equal(demo["obs/object"][1:], demo["next_obs/object"][:-1])
        assert not np.allclose(demos[0]["states"][0], demos[1]["states"][0])


def test_the_other_experts_succeed(tmp_path):
    for task, env_name in (("can", "PickPlaceCan"), ("square", "NutAssemblySquare")):
        output = tmp_path / f"{task}.hdf5"
        result = _run(generate, "--task", task, "--n_demos", 1, "--seed", 3, "--output", output, "--workers", 1)
        assert result.exit_code == 0, result.output
        with h5py.File(output) as file:
            assert json.loads(file["data"].attrs["env_args"])["env_name"] == env_name
            assert file["data/demo_0/rewards"][-1] == 1
            assert file["data/demo_0/obs/object"].shape[1] == 14


def test_converted_actions_replay_the_demonstrations(lift_demos, lift_abs_demos):
    converter = RobomimicAbsoluteActionConverter(lift_demos)
    assert len(converter) == 3
    actions, errors = converter.convert_and_eval_idx(1)
    converter.close()
    for error in errors.values():
        assert error["pos"] < 0.003
        assert error["rot"] < 0.02
    with h5py.File(lift_abs_demos) as file:
        np.testing.assert_allclose(file["data/demo_1/actions"], actions, atol=1e-9)
        # the hand is never farther from where it is told to go than a step asks for
        assert np.abs(actions[:, :3] - file["data/demo_1/obs/robot0_eef_pos"]).max() < 0.051


def test_comparison_of_actions(lift_demos, lift_abs_demos, tmp_path):
    same = _run(compare, "-i", lift_abs_demos, "-o", lift_abs_demos)
    assert same.exit_code == 0, same.output
    assert same.output.count("largest 0.000000") == 3
    assert "largest 0.000000" not in _run(compare, "-i", lift_demos, "-o", lift_abs_demos).output.splitlines()[0]
    other = _run(compare, "-i", lift_demos, "-o", write_random(tmp_path / "other.hdf5"))
    assert other.exit_code != 0
    assert "differ in their actions" in other.output


def test_lengths_of_episodes(repository):
    result = _run(episode_lengths, "-i", repository / "assets" / "pusht_demo.zarr.zip")
    statistics = json.loads(result.output)
    assert statistics["sum"] == pytest.approx(statistics["n_steps"] * 0.1)
    assert statistics["min"] <= statistics["median"] <= statistics["max"]
    assert "no dataset at" in _run(episode_lengths, "-i", "absent.zarr").output


def test_outputs_are_never_overwritten_and_bad_inputs_named(lift_demos, tmp_path):
    before = lift_demos.stat().st_mtime_ns
    refused = [
        (_run(generate, "--task", "lift", "--output", lift_demos), "exists already"),
        (_run(generate, "--task", "transport", "--output", tmp_path / "x.hdf5"), "'transport' is not one of"),
        (_run(convert, "-i", lift_demos, "-o", lift_demos), "exists already"),
        (_run(convert, "-i", lift_demos, "-o", tmp_path / "absent" / "x.hdf5"), "does not exist: make it"),
        (_run(convert, "-i", tmp_path / "absent.hdf5", "-o", tmp_path / "x.hdf5"), "no dataset at"),
        (_run(convert, "-i", write_random(tmp_path / "y.hdf5"), "-o", tmp_path / "x.hdf5"), "has no 'env_args'"),
    ]
    for result, message in refused:
        assert result.exit_code != 0
        assert message in result.output
    assert not (tmp_path / "x.hdf5").exists()
    assert lift_demos.stat().st_mtime_ns == before
