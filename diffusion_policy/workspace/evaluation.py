"""Evaluation of a checkpoint in simulation, as `eval.py` does it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.common.atomic_file import atomic_path
from diffusion_policy.common.checkpoint_file import CheckpointError
from diffusion_policy.common.config import instantiate
from diffusion_policy.common.distributed import first_only
from diffusion_policy.common.report import write_report
from diffusion_policy.common.safe_config import UnsafeConfigError
from diffusion_policy.common.safe_targets import Part, check_part
from diffusion_policy.common.statistics import summarize_scores
from diffusion_policy.env_runner.base_runner import BaseRunner
from diffusion_policy.policy.policy_loading import load_policy

ENV_PACKAGES = ("", "gymnasium_robotics")
"""That the id of an environment may name; the first is none."""
RUNNER = Part("runner", ("diffusion_policy.env_runner",), (BaseRunner,))


def evaluate(
    checkpoint: str,
    output_dir: str,
    device: str,
    overrides: Mapping[str, Any],
    precision: str = "float32",
    trust: bool = False,
) -> str:
    """Rolls a checkpoint's policy out and writes scores, videos and a report to `output_dir`.

    Args:
        checkpoint: path of the checkpoint.
        output_dir: made if absent.
        device: "auto", "cpu", "cuda:0", ...
        overrides: of the runner's arguments in the checkpoint's config, e.g. `n_test`.
        precision: that actions are sampled in, "float32" or "bf16".
        trust: let the checkpoint's config build and run whatever it names.

    Returns:
        The scores as a text table.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or has no simulation that it may build.
    """
    policy, cfg = load_policy(checkpoint, device, trust)
    if precision == "bf16":
        policy.inference_dtype = torch.bfloat16
    runner_cfg = OmegaConf.select(cfg, "task.env_runner")
    if not isinstance(runner_cfg, DictConfig):
        raise CheckpointError(f"{checkpoint} names no simulation to roll out in (task.env_runner of its config)")
    if not trust:
        try:
            check_part(OmegaConf.to_container(runner_cfg), RUNNER, "task.env_runner")
            _check_environment(runner_cfg.get("env_id"))
        except UnsafeConfigError as error:
            raise CheckpointError(f"{checkpoint} was refused: {error}. --trust builds it all the same") from error
    OmegaConf.update(cfg, "task.env_runner", dict(overrides), merge=True)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    env_runner = instantiate(runner_cfg, "task.env_runner", output_dir=output_dir)
    try:
        result = env_runner.run(policy)
    finally:
        env_runner.close()
    write_eval_log(Path(output_dir, "eval_log.json"), result)
    write_report(output_dir)
    if not result:
        return f"{type(env_runner).__name__} rolls nothing out: there are no scores"
    return score_table(result) if summarize_scores(result) else metric_table(result)


def _check_environment(env_id: Any) -> None:
    """Refuses the id of a gymnasium environment that would have any module imported, `module:name`."""
    package, _, _ = str(env_id).rpartition(":")
    if package not in ENV_PACKAGES:
        raise UnsafeConfigError(f"task.env_runner.env_id={env_id} of the config would import {package}")


def score_table(result: Mapping[str, Any]) -> str:
    """Mean of the best rewards and strict success for each kind of episode, with 95 % intervals."""
    lines = [f"{'':8}{'episodes':>9}  {'mean max reward':<26}{'strict success':<24}"]
    for prefix, scores in summarize_scores(result).items():
        mean = "{:.3f} [{:.3f}, {:.3f}]".format(scores["mean"], *scores["mean_interval"])
        success = "{:.0%} [{:.0%}, {:.0%}]".format(scores["success_rate"], *scores["success_interval"])
        lines.append(f"{prefix:<8}{scores['n']:>9}  {mean:<26}{success:<24}")
    return "\n".join(line.rstrip() for line in lines)


def metric_table(result: Mapping[str, Any]) -> str:
    """The numbers of a runner that scores episodes otherwise than by their best reward, one a line."""
    return "\n".join(f"{key:<32}{value:.3f}" for key, value in result.items() if isinstance(value, float))


@first_only
def write_eval_log(path: Path, result: Mapping[str, Any]) -> None:
    """Writes what a runner returned as JSON, videos by their path."""
    plain = {key: getattr(value, "_path", value) for key, value in result.items()}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain, indent=2, sort_keys=True, default=float))
