"""A demonstrator of both ways to do everything: which block first, and which target for it."""

import gymnasium
import numpy as np

from diffusion_policy.env.block_pushing.block_pushing import Obs
from diffusion_policy.env.block_pushing.oracles import oriented_push_oracle as oriented_push_oracle_module
from diffusion_policy.env.block_pushing.oracles.pushing_info import FloatArray

NAMES = (("block", "block2"), ("target", "target2"))


class MultimodalOrientedPushOracle(oriented_push_oracle_module.OrientedPushOracle):
    """Pushes each block of a BlockPushMultimodal to a target of its own; each reset draws the order and the targets.

    Args:
        env: a BlockPushMultimodal, or a wrapper of it.
        goal_dist_tolerance: a block so near to its target is left there (m); below the env's tolerance.
        action_noise_std, seed: as for OrientedPushOracle.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        goal_dist_tolerance: float = 0.04,
        action_noise_std: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self._goal_dist_tolerance = goal_dist_tolerance
        super().__init__(env, action_noise_std, seed)

    def reset(self) -> None:
        """Begins an episode."""
        super().reset()
        self._to_push = self._choose_goal_order()

    def _choose_goal_order(self) -> list[tuple[str, str]]:
        """Pairs of block and target, in the order of the pushes: each of the four ways as likely."""
        blocks, targets = (self._rng.permutation(names).tolist() for names in NAMES)
        return list(zip(blocks, targets, strict=True))

    def _action(self, obs: Obs) -> FloatArray:
        while self._to_push:
            block, target = self._to_push[0]
            if self._get_action_info(obs, block, target).distance_to_target > self._goal_dist_tolerance:
                return self._get_action_for_block_target(obs, block, target)
            del self._to_push[0]
            self._is_pushing = False
        return np.zeros(2)
