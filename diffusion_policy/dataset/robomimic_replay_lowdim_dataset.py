"""robomimic's demonstrations as states."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.common.robomimic_hdf5 import check_steps, demo_names, open_robomimic, read_rows
from diffusion_policy.dataset.data_checks import check_finite
from diffusion_policy.dataset.lowdim_dataset import ObsActionDataset
from diffusion_policy.dataset.robomimic_actions import action_normalizer, check_action_dim, converted_actions
from diffusion_policy.model.common.normalize_util import array_to_stats, get_max_abs_normalizer_from_stat
from diffusion_policy.model.common.normalizer import LinearNormalizer

OBS_KEYS = ("object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")

normalizer_from_stat = get_max_abs_normalizer_from_stat  # the original's name for it


class RobomimicReplayLowdimDataset(ObsActionDataset):
    """`obs` is the observations `obs_keys` one after another `(Do,)`, `action` as stored or, if absolute, converted.

    Args:
        dataset_path: demonstrations in robomimic's layout (HDF5).
        obs_keys: which observations.
        abs_action: the stored actions are poses, `(7,)` or `(14,)` with axis-angles; they become `(10,)` or `(20,)`.
        rotation_rep: what stands for the rotations then, see AbsoluteActions.
        use_legacy_normalizer: scale absolute actions by their largest entry, as old checkpoints do.
        For the others see ReplayBufferDataset.
    """

    def __init__(
        self,
        dataset_path: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        obs_keys: Sequence[str] = OBS_KEYS,
        abs_action: bool = False,
        rotation_rep: str = "rotation_6d",
        use_legacy_normalizer: bool = False,
        seed: int = 42,
        val_ratio: float = 0.0,
        max_train_episodes: int | None = None,
    ) -> None:
        self.abs_action = abs_action
        self.use_legacy_normalizer = use_legacy_normalizer
        replay_buffer = _load(dataset_path, list(obs_keys), abs_action, rotation_rep)
        check_finite(replay_buffer, dataset_path)
        super().__init__(
            replay_buffer,
            horizon=horizon,
            pad_before=pad_before,
            pad_after=pad_after,
            seed=seed,
            val_ratio=val_ratio,
            max_train_episodes=max_train_episodes,
        )

    def get_normalizer(self, mode: str = "limits", **kwargs: Any) -> LinearNormalizer:
        """Observations scaled by their largest entry, actions as `action_normalizer` says; no arguments matter."""
        normalizer = LinearNormalizer()
        stat = array_to_stats(self.replay_buffer["action"])
        normalizer["action"] = action_normalizer(stat, self.abs_action, self.use_legacy_normalizer)
        normalizer["obs"] = normalizer_from_stat(array_to_stats(self.replay_buffer["obs"]))
        return normalizer


def _load(path: str, obs_keys: list[str], abs_action: bool, rotation_rep: str) -> ReplayBuffer:
    """`obs` `(N, Do)` and `action` `(N, Da)`, float32, in memory."""
    parts: dict[str, list[np.ndarray]] = {"obs": [], "action": []}
    with open_robomimic(path) as file:
        names = demo_names(file)
        shapes = check_steps(file, names, ["actions", *(f"obs/{key}" for key in obs_keys)])
        check_action_dim(shapes["actions"], abs_action, path)
        for name in tqdm(names, desc=f"reading {path}", mininterval=1, leave=False):
            obs = [read_rows(file, f"data/{name}/obs/{key}") for key in obs_keys]
            parts["obs"].append(np.concatenate([o.reshape(len(o), -1) for o in obs], axis=-1).astype(np.float32))
            action = read_rows(file, f"data/{name}/actions")
            parts["action"].append(converted_actions(action, abs_action, rotation_rep))
    ends = np.cumsum([len(action) for action in parts["action"]])
    data = {key: np.concatenate(arrays) for key, arrays in parts.items()}
    return ReplayBuffer({"data": data, "meta": {"episode_ends": ends}})
