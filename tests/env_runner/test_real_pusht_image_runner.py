from pathlib import Path

from diffusion_policy.env_runner.base_image_runner import BaseImageRunner
from diffusion_policy.env_runner.real_pusht_image_runner import RealPushTImageRunner


def test_nothing_is_rolled_out(tmp_path: Path) -> None:
    runner = RealPushTImageRunner(output_dir=tmp_path)
    assert isinstance(runner, BaseImageRunner)
    assert runner.run(policy=None) == {}
    runner.close()
