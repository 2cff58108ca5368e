"""From steps to poses: what robomimic's demonstrations have as actions, and what position control needs."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from diffusion_policy.common.robomimic_hdf5 import check_steps, demo_names, open_robomimic, read_env_args, read_rows
from diffusion_policy.env.robomimic.env_meta import check_env_meta
from diffusion_policy.env.robomimic.robosuite_env import RobosuiteEnv

Errors = dict[str, float]
"""Largest errors of a replay: of the `state` (norm), of the hand's `pos` (m) and its `rot` (rad)."""


class RobomimicAbsoluteActionConverter:
    """Converts the actions of a dataset's demonstrations: each becomes the pose that the controller made of it.

    Args:
        dataset_path: demonstrations in robomimic's layout (HDF5) whose actions are steps.
        algo_name: accepted for compatibility.

    Raises:
        ValueError: the file is damaged, or not of robosuite.
    """

    def __init__(self, dataset_path: str | Path, algo_name: str = "bc") -> None:
        env_meta = check_env_meta(read_env_args(dataset_path), str(dataset_path))
        self.path = dataset_path
        with open_robomimic(dataset_path) as file:
            self.names = demo_names(file)
            shapes = check_steps(file, self.names, ["actions", "states", "obs/robot0_eef_pos", "obs/robot0_eef_quat"])
        self.env = RobosuiteEnv(env_meta)
        self.abs_env = RobosuiteEnv(env_meta, abs_action=True)
        if shapes["actions"] != (self.env.action_dim,):
            raise ValueError(
                f"{dataset_path}: actions have shape {list(shapes['actions'])}, but the environment takes "
                f"[{self.env.action_dim}]"
            )

    def __len__(self) -> int:
        return len(self.names)

    def convert_actions(self, states: NDArray[Any], actions: NDArray[Any]) -> NDArray[np.float64]:
        """Poses `(N, n * 7)` for actions `(N, n * 7)` in the states `(N, S)` that they were taken in."""
        converted = []
        for state, action in zip(states, actions, strict=True):
            self.env.set_state(state)
            converted.append(self.env.absolute_action(action))
        return np.stack(converted)

    def convert_idx(self, idx: int) -> NDArray[np.float64]:
        """The actions of a demonstration as poses, `(N, n * 7)`."""
        demo = self._demo(idx)
        self.env.reset_to(demo["states"][0], demo["model"])
        return self.convert_actions(demo["states"], demo["actions"])

    def convert_and_eval_idx(self, idx: int) -> tuple[NDArray[np.float64], dict[str, Errors]]:
        """As `convert_idx`, and how far replays of the demonstration end up from it: of its own actions, by
        'delta_max_error', and of the converted ones, by 'abs_max_error'."""
        demo = self._demo(idx)
        converted = self.convert_idx(idx)
        self.abs_env.reset_to(demo["states"][0], demo["model"])
        pose = demo["robot0_eef_pos"], demo["robot0_eef_quat"]
        errors = {
            "delta_max_error": self.evaluate_rollout_error(self.env, demo["states"], demo["actions"], *pose),
            "abs_max_error": self.evaluate_rollout_error(self.abs_env, demo["states"], converted, *pose),
        }
        return converted, errors

    @staticmethod
    def evaluate_rollout_error(
        env: RobosuiteEnv,
        states: NDArray[Any],
        actions: NDArray[Any],
        robot0_eef_pos: NDArray[Any],
        robot0_eef_quat: NDArray[Any],
        metric_skip_steps: int = 1,
    ) -> Errors:
        """Plays `actions` `(N, Da)` from `states[0]` on, and compares with what was recorded.

        Args:
            metric_skip_steps: so many steps at the beginning do not count.
        """
        env.reset_to(states[0])
        played: list[tuple[NDArray[Any], ...]] = []
        for action in actions[:-1]:
            obs, *_ = env.step(action)
            played.append((env.get_state(), obs["robot0_eef_pos"], obs["robot0_eef_quat"]))
        state, position, quaternion = (np.stack(values)[metric_skip_steps:] for values in zip(*played, strict=True))
        recorded = slice(1 + metric_skip_steps, None)
        turn = Rotation.from_quat(quaternion) * Rotation.from_quat(robot0_eef_quat[recorded]).inv()
        return {
            "state": float(np.linalg.norm(state - states[recorded], axis=-1).max()),
            "pos": float(np.linalg.norm(position - robot0_eef_pos[recorded], axis=-1).max()),
            "rot": float(turn.magnitude().max()),
        }

    def close(self) -> None:
        """Frees the simulations."""
        self.env.close()
        self.abs_env.close()

    def _demo(self, idx: int) -> dict[str, Any]:
        """What was recorded of a demonstration."""
        name = f"data/{self.names[idx]}"
        keys = ("states", "actions", "obs/robot0_eef_pos", "obs/robot0_eef_quat")
        with open_robomimic(self.path) as file:
            demo = {key.removeprefix("obs/"): read_rows(file, f"{name}/{key}") for key in keys}
            return {**demo, "model": file[name].attrs.get("model_file")}
