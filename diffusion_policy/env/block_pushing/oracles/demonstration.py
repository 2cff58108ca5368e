"""Whole episodes by the oracle."""

import numpy as np

from diffusion_policy.env.block_pushing.block_pushing_multimodal import BlockPushMultimodal
from diffusion_policy.env.block_pushing.oracles.multimodal_push_oracle import MultimodalOrientedPushOracle


def demonstrate(
    seed: int, max_steps: int, action_noise_std: float, abs_action: bool, disturbance_std: float = 0.0
) -> dict[str, np.ndarray] | None:
    """One episode, `obs` `(N, 16)` before each `action` `(N, 2)`; None unless both blocks came to targets.

    Args:
        disturbance_std: standard deviation of noise (m) that is done but not recorded: what is recorded mends it, as
            in DART (Laskey et al. 2017), so that policies learn to get back to a block that slips away.
    """
    env = BlockPushMultimodal(abs_action=abs_action)
    try:
        obs, _ = env.reset(seed=seed)
        disturbances = np.random.default_rng(seed)
        oracle = MultimodalOrientedPushOracle(env, action_noise_std=action_noise_std, seed=seed)
        observations, actions = [], []
        for _ in range(max_steps):
            observations.append(np.concatenate(list(obs.values())))
            actions.append(oracle.action(obs))
            disturbance = disturbance_std * disturbances.standard_normal(2)
            obs, _, terminated, _, _ = env.step(actions[-1] + disturbance)
            if terminated:
                return {"obs": np.stack(observations), "action": np.stack(actions)}
        return None
    finally:
        env.close()
