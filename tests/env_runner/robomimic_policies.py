"""Simple policies for robomimic's tasks."""

from pathlib import Path

import h5py
import torch
from torch import Tensor

from diffusion_policy.common.robomimic_hdf5 import read_rows

Obs = dict[str, Tensor]


class Lifter:
    """Lifts the cube, of whose place it knows from the states `object` and `robot0_eef_pos`, in noisy steps."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self) -> None:
        self.seen: list[Obs] = []

    def reset(self) -> None:
        pass

    def predict_action(self, obs_dict: Obs, generator: list[torch.Generator] | None = None) -> Obs:
        assert generator is not None
        self.seen.append(obs_dict)
        cube, hand = obs_dict["obs"][:, -1, :3], obs_dict["obs"][:, -1, 10:13]
        is_near = ((cube - hand).norm(dim=-1, keepdim=True) < 0.02).float()
        target = cube + torch.tensor([0.0, 0.0, 0.1]) * is_near
        noise = torch.stack([torch.randn(4, 3, generator=g) for g in generator])
        move = (2 * (target - hand) / 0.05).clamp(-1, 1)[:, None] + 0.05 * noise
        gripper = (2 * is_near - 1)[:, None].expand(-1, 4, 1)
        return {"action": torch.cat((move, torch.zeros(len(move), 4, 3), gripper), dim=-1)}


class Replay:
    """Takes the actions of the demonstrations `first`, `first + 1`, ... in the episodes, each its own."""

    device = torch.device("cpu")
    dtype = torch.float64

    def __init__(self, path: Path, transform=lambda action: action) -> None:
        with h5py.File(path) as file:
            self.actions = [torch.from_numpy(transform(read_rows(file, f"data/demo_{i}/actions"))) for i in range(3)]
        self.seen: list[Obs] = []

    def reset(self) -> None:
        pass

    def predict_action(self, obs_dict: Obs, generator: list[torch.Generator] | None = None) -> Obs:
        start = 4 * len(self.seen)
        self.seen.append(obs_dict)
        n = len(next(iter(obs_dict.values())))
        return {
            "action": torch.stack(
                [actions[[min(start + i, len(actions) - 1) for i in range(4)]] for actions in self.actions[:n]]
            )
        }
