"""Demonstrations of the kitchen as they were recorded, with joint positions as actions."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffusion_policy.common.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.data_checks import check_finite
from diffusion_policy.dataset.lowdim_dataset import ObsActionDataset
from diffusion_policy.env.kitchen.kitchen_util import parse_mjl_logs
from diffusion_policy.env.kitchen.state import N_QPOS, N_ROBOT, SIMULATION_STEPS, with_noise


class KitchenMjlLowdimDataset(ObsActionDataset):
    """`obs` `(T, 60)`: joints of robot (9) and objects (21) with noise, 30 zeros for the goal; `action` `(T, 9)`:
    the joint positions that the motors were told (rad, m).

    Args:
        dataset_dir: folder of folders of `.mjl` files, one an episode, of which every 40th record, 0.08 s, is a step.
        abs_action: must be true: the recordings have positions only.
        robot_noise_ratio: of the noise on observations, as the simulation adds; drawn once, with `seed`.
        For the others see ReplayBufferDataset.
    """

    range_eps = 5e-2  # most objects hardly move

    def __init__(
        self,
        dataset_dir: str,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        abs_action: bool = True,
        robot_noise_ratio: float = 0.0,
        seed: int = 42,
        val_ratio: float = 0.0,
    ) -> None:
        if not abs_action:
            raise ValueError(
                "abs_action is False, but recordings (.mjl) have joint positions as actions: use "
                "KitchenLowdimDataset (task=kitchen_lowdim) for velocities"
            )
        super().__init__(
            _load(Path(dataset_dir), robot_noise_ratio, seed),
            horizon=horizon,
            pad_before=pad_before,
            pad_after=pad_after,
            seed=seed,
            val_ratio=val_ratio,
            max_train_episodes=None,
        )


def _load(folder: Path, robot_noise_ratio: float, seed: int) -> ReplayBuffer:
    paths = sorted(folder.glob("*/*.mjl"))
    if not paths:
        raise FileNotFoundError(
            f"no */*.mjl in {folder}: set task.dataset.dataset_dir to the folder kitchen_demos_multitask of the "
            "kitchen's demonstrations, or make some: "
            "python -m diffusion_policy.scripts.generate_kitchen_demos -o data/kitchen --mjl"
        )
    generator = np.random.default_rng(seed)
    buffer = ReplayBuffer.create_empty_numpy()
    for path in tqdm(paths, desc="reading recordings", leave=False):
        log = parse_mjl_logs(path, skipamount=SIMULATION_STEPS)
        if (log["nq"], log["nu"]) != (N_QPOS, N_ROBOT):
            raise ValueError(
                f"{path} has {log['nq']} positions and {log['nu']} motors, the kitchen {N_QPOS} and {N_ROBOT}"
            )
        observed = with_noise(log["qpos"], robot_noise_ratio, generator)
        obs = np.concatenate([observed, np.zeros_like(observed)], axis=1).astype(np.float32)
        buffer.add_episode({"obs": obs, "action": log["ctrl"]})
    check_finite(buffer, str(folder))
    return buffer
