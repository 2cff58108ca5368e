"""What rollouts of Push-T share, whatever the policy observes."""

import numpy as np

from diffusion_policy.env_runner.base_runner import RolloutRunner
from diffusion_policy.env_runner.episode import Rollout


class PushTRunner(RolloutRunner):
    """Scores an episode by its best coverage of the goal, in units of the 95 % that count as success."""

    def metrics(self, rollouts: list[Rollout]) -> dict[str, float]:
        """Adds the share of episodes that reached the goal: more than 95 % of it covered at some step."""
        success_rate = float(np.mean([rollout.terminated for rollout in rollouts]))
        return {**super().metrics(rollouts), "success_rate": success_rate}
