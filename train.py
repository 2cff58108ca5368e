"""Trains a policy.

Usage:
    python train.py --config-name=train_diffusion_unet_lowdim_workspace [key=value ...]
    python train.py --config-dir=. --config-name=my_experiment.yaml training.seed=43
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.common.checkpoint_file import CheckpointError
from diffusion_policy.common.config import register_resolvers

CONFIG_DIR = Path(__file__).parent / "diffusion_policy" / "config"
register_resolvers()


@hydra.main(version_base=None, config_path=str(CONFIG_DIR))
def main(cfg: DictConfig) -> None:
    OmegaConf.resolve(cfg)
    workspace = hydra.utils.get_class(cfg._target_)(cfg)
    try:
        workspace.run()
    except KeyboardInterrupt:
        sys.exit(f"Stopped. To continue, add to the same command: hydra.run.dir={workspace.output_dir}")
    except CheckpointError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    # Line by line also into a file, so that a run can be followed from outside.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    main()
