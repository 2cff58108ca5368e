"""A task that a regressor to the mean cannot learn: from any observation, two actions are equally good."""

import torch

from diffusion_policy.model.common.normalizer import LinearNormalizer

ACTION_DIM, OBS_DIM = 2, 3
SIDE = 8.0
"""Where the good actions are, left and right; the mean of them is as far from both."""
REACH = 5.0


def demonstrations(n, n_steps, seed):
    """A batch `{"obs": (n, T, 3), "action": (n, T, 2)}` of observations within 1.

    The first entry of an action is SIDE or -SIDE, the same in all steps of a window; the second is REACH times the
    second of the observation.
    """
    generator = torch.Generator().manual_seed(seed)
    obs = torch.rand(n, n_steps, OBS_DIM, generator=generator) * 2 - 1
    side = torch.randint(0, 2, (n, 1), generator=generator).float() * 2 - 1
    return {"obs": obs, "action": torch.stack((SIDE * side.expand(n, n_steps), REACH * obs[..., 1]), dim=-1)}


def fitted_normalizer():
    """Of actions within 10."""
    data = demonstrations(1000, 1, seed=0)
    normalizer = LinearNormalizer()
    normalizer.fit({"obs": data["obs"], "action": torch.tensor([[10.0, 10.0], [-10.0, -10.0]])})
    return normalizer


def error(obs, action):
    """Mean distance of actions `(B, 2)` to the nearer of the good ones, given observations `(B, 3)`."""
    good = torch.stack((SIDE * action[:, 0].sign(), REACH * obs[:, 1]), dim=-1)
    return (action - good).norm(dim=-1).mean()
