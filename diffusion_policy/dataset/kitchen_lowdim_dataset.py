"""Demonstrations of the kitchen, with joint velocities as actions, as relay policy learning has them."""

from pathlib import Path

import numpy as np

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.data_checks import check_finite
from diffusion_policy.dataset.lowdim_dataset import ObsActionDataset
from diffusion_policy.env.kitchen.state import N_ROBOT, OBS_DIM

FILES = ("observations_seq.npy", "actions_seq.npy", "existence_mask.npy")


class KitchenLowdimDataset(ObsActionDataset):
    """`obs` `(T, 60)`: joints of robot (9) and objects (21), goal (30); `action` `(T, 9)`: normalised joint velocity.

    Args:
        dataset_dir: folder with `observations_seq.npy` and `actions_seq.npy`, padded to the longest of the episodes,
            and `existence_mask.npy` `(E, T)`, 1 for steps that exist; or all of them by step first, `(T, E, ...)`.
        For the others see ReplayBufferDataset.
    """

    range_eps = 5e-2  # most objects hardly move

    def __init__(
        self,
        dataset_dir: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        seed: int = 42,
        val_ratio: float = 0.0,
    ) -> None:
        super().__init__(
            _load(Path(dataset_dir)),
            horizon=horizon,
            pad_before=pad_before,
            pad_after=pad_after,
            seed=seed,
            val_ratio=val_ratio,
            max_train_episodes=None,
        )


def _load(folder: Path) -> ReplayBuffer:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}: set task.dataset_dir to the folder of the kitchen's "
            "demonstrations, or make some: python -m diffusion_policy.scripts.generate_kitchen_demos -o data/kitchen"
        )
    obs, action, mask = (np.load(folder / name) for name in FILES)
    for name, array, dim in zip(FILES, (obs, action), (OBS_DIM, N_ROBOT), strict=False):
        if array.ndim != 3 or array.shape != (*mask.shape, dim):
            raise ValueError(
                f"{folder / name} has shape {array.shape}, expected {(*mask.shape, dim)}, as {FILES[2]} is {mask.shape}"
            )
    if _is_by_step(mask, folder):
        obs, action, mask = obs.swapaxes(0, 1), action.swapaxes(0, 1), mask.T
    buffer = ReplayBuffer.create_empty_numpy()
    for e, length in enumerate(mask.astype(bool).sum(axis=1).tolist()):
        if length:
            episode = {"obs": obs[e, :length], "action": action[e, :length]}
            buffer.add_episode({key: value.astype(np.float32) for key, value in episode.items()})
    check_finite(buffer, str(folder))
    return buffer


def _is_by_step(mask: np.ndarray, folder: Path) -> bool:
    """Whether steps come first: steps that exist come before those that do not, within an episode."""
    exists = mask.astype(bool)
    episode_first, step_first = (bool((each[:, :-1] >= each[:, 1:]).all()) for each in (exists, exists.T))
    if episode_first == step_first and episode_first:  # all episodes are equally long, or sorted by their lengths
        n_episodes = len(np.load(folder / "all_init_qpos.npy")) if (folder / "all_init_qpos.npy").exists() else None
        return mask.shape[0] != n_episodes and mask.shape[1] == n_episodes
    if not (episode_first or step_first):
        raise ValueError(f"{folder / FILES[2]} has gaps within episodes: existing steps must come before the padding")
    return step_first
