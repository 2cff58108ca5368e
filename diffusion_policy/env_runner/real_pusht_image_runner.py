"""Evaluation of Push-T policies on a real robot, as far as training goes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_policy.env_runner.base_image_runner import BaseImageRunner

if TYPE_CHECKING:
    from diffusion_policy.policy.base_policy import BasePolicy


class RealPushTImageRunner(BaseImageRunner):
    """Rolls nothing out: a robot is not moved by a training run, `eval_real_robot.py` evaluates on it."""

    def __init__(self, output_dir: str | Path) -> None:
        super().__init__(output_dir)

    def run(self, policy: "BasePolicy") -> dict[str, Any]:
        """Logs nothing."""
        return {}
