import copy
import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.env.robomimic.demonstrations import make_env_meta
from diffusion_policy.env.robomimic.env_meta import check_env_meta, is_legacy, robosuite_kwargs

RECORDED = np.load(Path(__file__).with_name("robosuite_1_4_1.npz"))
LIFT_1_4 = json.loads(str(RECORDED["meta"]))["Lift"]
LIFT_1_2 = {key: value for key, value in LIFT_1_4.items() if key != "env_version"}
LIFT_1_5 = make_env_meta("lift")


@pytest.mark.parametrize("env_meta", [LIFT_1_2, LIFT_1_4, {**LIFT_1_4, "env_version": "1.2.0"}])
def test_controller_of_one_arm_becomes_a_part_that_moves_in_the_worlds_frame(env_meta):
    assert is_legacy(env_meta)
    before = copy.deepcopy(env_meta)
    kwargs = robosuite_kwargs(env_meta)
    assert env_meta == before
    assert kwargs["lite_physics"] is False
    assert kwargs["robots"] == ["Panda"]
    assert not any(name.startswith("camera") for name in kwargs)
    arm = kwargs["controller_configs"]["body_parts"]["right"]
    wanted = {"type": "OSC_POSE", "input_type": "delta", "input_ref_frame": "world", "damping_ratio": 1, "kp": 150}
    assert wanted.items() <= arm.items()
    assert arm["gripper"] == {"type": "GRIP"}
    assert not {"control_delta", "damping", "damping_limits"} & arm.keys()


@pytest.mark.parametrize("env_meta", [LIFT_1_4, LIFT_1_5])
def test_absolute_actions_are_poses_in_the_worlds_frame(env_meta):
    arm = robosuite_kwargs(env_meta, abs_action=True)["controller_configs"]["body_parts"]["right"]
    assert (arm["input_type"], arm["input_ref_frame"]) == ("absolute", "world")


def test_control_delta_false_is_absolute():
    env_meta = copy.deepcopy(LIFT_1_4)
    env_meta["env_kwargs"]["controller_configs"]["control_delta"] = False
    assert robosuite_kwargs(env_meta)["controller_configs"]["body_parts"]["right"]["input_type"] == "absolute"


def test_todays_metadata_stay():
    assert not is_legacy(LIFT_1_5)
    kwargs = robosuite_kwargs(LIFT_1_5)
    assert kwargs["controller_configs"] == LIFT_1_5["env_kwargs"]["controller_configs"]
    assert "lite_physics" not in kwargs


def test_each_of_several_controllers_is_converted_and_mounts_are_renamed():
    env_meta = copy.deepcopy(LIFT_1_4)
    config = env_meta["env_kwargs"]["controller_configs"]
    env_meta["env_kwargs"].update(controller_configs=[config, config], mount_types="default")
    kwargs = robosuite_kwargs(env_meta)
    assert [list(each["body_parts"]) for each in kwargs["controller_configs"]] == [["right"], ["right"]]
    assert kwargs["base_types"] == "default"


def test_joint_controllers_take_no_poses():
    env_meta = copy.deepcopy(LIFT_1_4)
    env_meta["env_kwargs"]["controller_configs"] = {"type": "JOINT_VELOCITY"}
    with pytest.raises(ValueError, match="absolute actions need one of the controllers"):
        robosuite_kwargs(env_meta, abs_action=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_name": None}, "no 'env_name'"),
        ({"env_kwargs": None}, "no 'env_kwargs'"),
        ({"type": 2}, "environment type 2, expected 1, robosuite"),
    ],
)
def test_what_is_no_robosuite_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_env_meta({**LIFT_1_4, **change}, "file.hdf5")
