"""A task that a regressor to the mean cannot learn: from any observation, two actions are equally good."""

import torch

from diffusion_policy.model.common.normalizer import LinearNormalizer

ACTION_DIM, OBS_DIM = 2, 3


def demonstrations(n, n_steps, seed):
    """A batch `{"obs": (n, T, 3), "action": (n, T, 2)}`: the first entry of an action is +5 or -5, the same in all
    steps of a window, the second is 5 times that of the observation."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.rand(n, n_steps, OBS_DIM, generator=generator) * 2 - 1
    side = torch.randint(0, 2, (n, 1), generator=generator).float() * 2 - 1
    return {"obs": obs, "action": 5 * torch.stack((side.expand(n, n_steps), obs[..., 1]), dim=-1)}


def fitted_normalizer():
    """Of actions within 10."""
    data = demonstrations(1000, 1, seed=0)
    normalizer = LinearNormalizer()
    normalizer.fit({"obs": data["obs"], "action": torch.tensor([[10.0, 10.0], [-10.0, -10.0]])})
    return normalizer


def error(obs, action):
    """Mean distance `(B, 2)` of actions to the nearer of the good ones; what regresses to the mean is at 5."""
    side = action[:, 0].sign()
    return (action - torch.stack((5 * side, 5 * obs[:, 1]), dim=-1)).norm(dim=-1).mean()
