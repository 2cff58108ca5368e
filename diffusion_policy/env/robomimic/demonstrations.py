"""Demonstrations by scripted experts, as robomimic's files have them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.env.robomimic.env_meta import ROBOSUITE_TYPE, EnvMeta
from diffusion_policy.env.robomimic.experts import EXPERTS
from diffusion_policy.env.robomimic.robosuite_env import RobosuiteEnv

ENV_NAMES = {"lift": "Lift", "can": "PickPlaceCan", "square": "NutAssemblySquare"}
"""robosuite's environment by task."""

CAMERAS = {"agentview": (84, 84), "robot0_eye_in_hand": (84, 84)}
"""(height, width) in px, those of robomimic's files."""

MAX_STEPS = 400
_AFTER_SUCCESS = 5  # steps that a demonstration goes on
_OBSERVED = ("object", "eef_pos", "eef_quat", "gripper_qpos", "gripper_qvel", "joint_pos", "joint_vel")


@dataclass(frozen=True)
class Demonstration:
    """An episode that succeeds.

    Attributes:
        model: MJCF.
        arrays: `actions` `(N, 7)`, `states`, `rewards`, `dones`, `obs/<key>` and `next_obs/<key>` by name.
    """

    model: str
    arrays: dict[str, NDArray[Any]]


def make_env_meta(task: str) -> EnvMeta:
    """`env_args` of the demonstrations of a task: those of robomimic's files, for robosuite 1.5.

    Raises:
        ValueError: there is no expert for the task.
    """
    if task not in ENV_NAMES:
        raise ValueError(f"there is no scripted expert for {task!r}; there are {', '.join(ENV_NAMES)}")
    arm = {
        "type": "OSC_POSE",
        "input_max": 1,
        "input_min": -1,
        "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
        "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
        "kp": 150,
        "damping_ratio": 1,
        "impedance_mode": "fixed",
        "kp_limits": [0, 300],
        "damping_ratio_limits": [0, 10],
        "position_limits": None,
        "orientation_limits": None,
        "uncouple_pos_ori": True,
        "input_type": "delta",
        "input_ref_frame": "world",
        "interpolation": None,
        "ramp_ratio": 0.2,
        "gripper": {"type": "GRIP"},
    }
    kwargs = {
        "robots": ["Panda"],
        "controller_configs": {"type": "BASIC", "body_parts": {"right": arm}},
        "control_freq": 20,
        "ignore_done": True,
        "use_object_obs": True,
        "reward_shaping": False,
        "camera_names": list(CAMERAS),
        "camera_heights": CAMERAS["agentview"][0],
        "camera_widths": CAMERAS["agentview"][1],
        "camera_depths": False,
    }
    return {"env_name": ENV_NAMES[task], "env_version": "1.5.2", "type": ROBOSUITE_TYPE, "env_kwargs": kwargs}


def demonstrate(env: RobosuiteEnv, seed: int) -> Demonstration | None:
    """What the expert does in the episode of a seed; None if it fails."""
    obs = env.reset(seed)
    model = env.get_model()
    records: dict[str, list[Any]] = {name: [] for name in ("actions", "states", "rewards", "dones")}
    observations = [_observed(obs)]
    success_steps = 0
    for action in EXPERTS[env.name](env, np.random.default_rng([seed, 1])):
        records["states"].append(env.get_state())
        obs, reward, _, _ = env.step(action)
        success_steps += env.is_success()
        records["actions"].append(action)
        records["rewards"].append(reward)
        records["dones"].append(int(env.is_success()))
        observations.append(_observed(obs))
        if success_steps > _AFTER_SUCCESS or len(observations) > MAX_STEPS:
            break
    if success_steps <= _AFTER_SUCCESS:
        return None
    arrays = {name: np.array(values) for name, values in records.items()}
    for prefix, part in (("obs", observations[:-1]), ("next_obs", observations[1:])):
        arrays |= {f"{prefix}/{key}": np.stack([each[key] for each in part]) for key in part[0]}
    return Demonstration(model, arrays)


def _observed(obs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    kept = {key for key in obs if key.endswith("_image") or key.removeprefix("robot0_") in _OBSERVED}
    return {key: obs[key] for key in sorted(kept)}
