"""Trains a policy.

Usage:
    python train.py --config-name=train_diffusion_unet_lowdim_workspace [key=value ...]
    python train.py --config-dir=. --config-name=my_experiment.yaml training.seed=43
    torchrun --nproc_per_node=4 train.py --config-name=...    (on four GPUs)
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.common.config import register_resolvers
from diffusion_policy.workspace.launch import launch, train

CONFIG_DIR = Path(__file__).parent / "diffusion_policy" / "config"
register_resolvers()


@hydra.main(version_base=None, config_path=str(CONFIG_DIR))
def main(cfg: DictConfig) -> None:
    OmegaConf.resolve(cfg)
    train(cfg, HydraConfig.get().runtime.output_dir)


if __name__ == "__main__":
    # Line by line also into a file, so that a run can be followed from outside.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    launch(main)
