"""How training steps may be run, `training.step` and `training.precision`, and what a device allows of it."""

import os
import shutil
import sys

import torch

from diffusion_policy.common.config import ConfigError

STEPS = ("auto", "eager", "compile", "graph")
PRECISIONS = ("auto", "float32", "bf16")


def choose_step(choice: str, device: torch.device) -> str:
    """How steps run on a device.

    Args:
        choice: `training.step`.
        device: what is trained on.

    Returns:
        "eager", operation by operation; "compile", with a compiled loss; "graph", as a CUDA graph; or "auto", as a
        CUDA graph where the step can be captured.

    Raises:
        ConfigError: the choice cannot be had, with the reason.
    """
    _check("step", choice, STEPS)
    if choice == "auto" and device.type != "cuda":
        return "eager"
    if choice == "graph" and device.type != "cuda":
        raise ConfigError(f"training.step=graph needs a GPU to train on, training.device is {device}; use auto")
    if choice == "compile" and device.type == "cpu":
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise ConfigError(f"training.step=compile needs a C++ compiler, and there is no {compiler}; use auto")
    return choice


def choose_precision(choice: str, device: torch.device) -> torch.dtype:
    """In what a training loss and its gradients are computed; weights and optimizer are float32 always.

    Args:
        choice: `training.precision`; "auto" is bf16 on a GPU that computes in it, else float32.
        device: what is trained on.

    Raises:
        ConfigError: there is no such choice.
    """
    _check("precision", choice, PRECISIONS)
    if choice == "auto" and device.type == "cuda":
        with torch.cuda.device(device):
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if choice == "bf16" else torch.float32


def _check(key: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise ConfigError(f"training.{key} must be one of {', '.join(choices)}, got {choice!r}")
