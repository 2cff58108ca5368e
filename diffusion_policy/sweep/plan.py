"""What a sweep over seeds runs: one config, fixed when it begins, and what each seed changes in it."""

import copy
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.common.config import ConfigError, flatten, register_resolvers
from diffusion_policy.sweep.run_folders import seed_of

CONFIG_DIR = Path(__file__).parents[1] / "config"
METRICS_PROJECT = "diffusion_policy_metrics"


@dataclass(frozen=True)
class Plan:
    """A sweep over seeds.

    Attributes:
        folder: of the sweep: `config.yaml`, `train_0`, `train_1`, ..., `metrics`.
        config: the resolved config that all seeds share.
        seeds: training seeds; that of `train_i` is the i-th.
        overrides: by seed, what differs from `config`, as Hydra overrides.
        hydra: further overrides that are for Hydra itself.
    """

    folder: Path
    config: dict[str, Any]
    seeds: list[int]
    overrides: list[list[str]]
    hydra: list[str]

    @property
    def run_folders(self) -> list[Path]:
        """Of each seed."""
        return [self.folder / f"train_{i}" for i in range(len(self.seeds))]

    def prepare(self) -> None:
        """Makes the folders and writes `config.yaml`."""
        for folder in self.run_folders:
            folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / "config.yaml") as path:
            OmegaConf.save(OmegaConf.create(self.config), path)

    def train_command(self, i: int) -> list[str]:
        """Trains with the i-th seed."""
        run_dir = _override("hydra.run.dir", str(self.run_folders[i]))
        config = [f"--config-dir={self.folder}", "--config-name=config.yaml"]
        return ["python", "train.py", *config, *self.hydra, *self.overrides[i], run_dir]

    def monitor_command(self, keys: Sequence[str]) -> list[str]:
        """Aggregates the scores `keys`, and logs them to W&B as the runs do, in their group."""
        command = [
            "python",
            "multirun_metrics.py",
            f"--input={self.folder}",
            "--quiet",
            *(f"--key={key}" for key in keys),
        ]
        wandb = self.config["logging"]
        mode = wandb.get("mode", "online")
        if mode == "disabled":
            return command
        options = {"project": METRICS_PROJECT, "group": wandb["group"]} | {
            k: f"{wandb[k]}_metrics" for k in ("name", "id")
        }
        command += ["--use_wandb", *(f"--{key}={value}" for key, value in options.items())]
        return ["env", "WANDB_MODE=offline", *command] if mode == "offline" else command


def parse_seeds(text: str) -> list[int]:
    """The seeds in a text such as `42,43,44`.

    Raises:
        ConfigError: they are not numbers, or not each given once.
    """
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"expected seeds such as 42,43,44, each once, got {text!r}")
    return seeds


def make_plan(
    config_name: str, config_dir: str | os.PathLike[str] | None, seeds: Sequence[int], overrides: Sequence[str]
) -> Plan:
    """Composes the config of a sweep; nothing is written.

    If `multi_run.run_dir` is the folder of an earlier sweep, that is continued: under its W&B names, with this config.

    Args:
        config_dir: where configs are looked for, besides this framework's.
        overrides: Hydra's, for all seeds.

    Raises:
        ConfigError: a config without a folder for sweeps; a folder that holds something else, or other seeds' runs.
        HydraException: a config that does not compose.
    """
    for override in overrides:
        if re.match(r"\+*hydra\.(run|sweep)\.", override):
            raise ConfigError(f"{override}: the folder of a sweep is multi_run.run_dir=FOLDER")
    cfg = _compose(config_name, config_dir, overrides)
    for key in ("multi_run.run_dir", "training.seed", "logging"):
        if OmegaConf.select(cfg, key) is None:
            raise ConfigError(f"{config_name} has no {key}, which a sweep needs: add it, or pass +{key}=...")
    folder = Path(cfg.multi_run.run_dir).resolve()
    name = cfg.multi_run.get("wandb_name_base") or folder.name
    wandb = {"name": name, "id": secrets.token_hex(4), "group": cfg.logging.get("group") or name}
    cfg.logging.update(wandb | _earlier_sweep(folder, seeds))
    shared = _resolved(cfg)
    return Plan(
        folder=folder,
        config=shared,
        seeds=list(seeds),
        overrides=[_differences(shared, _of_seed(cfg, i, seed)) for i, seed in enumerate(seeds)],
        hydra=[override for override in overrides if re.match(r"[+~]*hydra[./]", override)],
    )


def _compose(config_name: str, config_dir: str | os.PathLike[str] | None, overrides: Sequence[str]) -> DictConfig:
    register_resolvers()
    folders = [CONFIG_DIR] if config_dir is None else [CONFIG_DIR, Path(config_dir).resolve()]
    name = config_name.removesuffix(".yaml") + ".yaml"
    folders.sort(key=lambda folder: not (folder / name).exists())  # where the config itself is, Hydra looks first
    searched = [json.dumps(f"file://{folder}") for folder in folders[1:]]
    with initialize_config_dir(str(folders[0]), version_base=None):
        cfg = compose(config_name, overrides=[f"hydra.searchpath=[{','.join(searched)}]", *overrides])
    OmegaConf.set_struct(cfg, False)
    return cfg


def _earlier_sweep(folder: Path, seeds: Sequence[int]) -> dict[str, str]:
    """What W&B knows the sweep by that a folder holds; empty if it is to be a new one."""
    if not folder.exists() or not any(folder.iterdir()):
        return {}
    config = folder / "config.yaml"
    if not config.exists():
        raise ConfigError(f"multi_run.run_dir={folder} holds no sweep (config.yaml), but other files: choose another")
    for i, seed in enumerate(seeds):
        known = seed_of(folder / f"train_{i}")
        if known not in (None, seed):
            raise ConfigError(
                f"{folder}/train_{i} is a run with seed {known}, not {seed}: continue a sweep with the same seeds in "
                "the same order, or choose another multi_run.run_dir"
            )
    known_as = OmegaConf.load(config).logging
    return {key: known_as[key] for key in ("name", "id", "group") if known_as.get(key)}


def _of_seed(cfg: DictConfig, i: int, seed: int) -> dict[str, Any]:
    """The resolved config of a seed: with test episodes of its own, and named in W&B."""
    cfg = copy.deepcopy(cfg)
    cfg.training.seed = seed
    if OmegaConf.select(cfg, "task.env_runner.test_start_seed") is not None:
        cfg.task.env_runner.test_start_seed = (seed + 1) * 100_000
    for key in ("name", "id"):
        cfg.logging[key] = f"{cfg.logging[key]}_train_{i}"
    return _resolved(cfg)


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    container: Any = OmegaConf.to_container(cfg, resolve=True)
    return container


def _differences(shared: Mapping[str, Any], of_seed: Mapping[str, Any]) -> list[str]:
    """What makes the one config of the other, also in values that are derived from the seed."""
    known = dict(flatten(shared)) | {"training.seed": None}  # which is always told
    return [_override(key, value) for key, value in flatten(of_seed) if known[key] != value]


def _override(key: str, value: Any) -> str:
    """In Hydra's grammar, whose scalars, lists and quoted strings are those of JSON."""
    return f"{key}={json.dumps(value, ensure_ascii=False)}"
