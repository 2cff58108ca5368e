"""Backbones for images: torchvision's, with random or pretrained weights."""

import difflib
import os
import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models

DOWNLOAD_TIMEOUT = 20.0
"""Longest silence of the server of pretrained weights (s)."""


def get_resnet(name: str, weights: str | None = None, **kwargs: Any) -> nn.Module:
    """A backbone `(N, 3, H, W)` to `(N, D)`: torchvision's model without its last layer.

    Args:
        name: `resnet18`, `resnet34`, `resnet50` or any other of torchvision's models that end in a layer `fc`.
        weights: None for random ones; a name of torchvision's such as `IMAGENET1K_V1`; `r3m`; or the path of a
            file with a `state_dict` of torchvision's or R3M's layout.
        kwargs: further arguments of torchvision's model.

    Raises:
        ValueError: there is no such model or no such weights; the message names those there are.
        FileNotFoundError: the weights are neither in the cache nor to be had; the message says how to get them.
    """
    if weights == "r3m":
        return get_r3m(name, **kwargs)
    build = _builder(name)
    if weights is None or _is_path(weights):
        model = _without_classifier(build(weights=None, **kwargs), name)
        return model if weights is None else _load(model, Path(weights))
    known = models.get_model_weights(build)
    if weights not in ("DEFAULT", *known.__members__):
        raise ValueError(
            f"weights={weights!r} of {name} is neither a file nor one of r3m, DEFAULT, {', '.join(known.__members__)}"
        )
    enum = known[weights]
    try:
        with _socket_timeout(DOWNLOAD_TIMEOUT):
            model = build(weights=enum, **kwargs)
    except (URLError, OSError) as error:
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(enum.url).name)
        raise FileNotFoundError(
            f"weights {weights} of {name} are not in the cache and could not be downloaded ({error}). Download "
            f"{enum.url} on a machine with network, then put it at {cached}, or pass its path as weights"
        ) from error
    return _without_classifier(model, name)


def get_r3m(name: str, **kwargs: Any) -> nn.Module:
    """A backbone pretrained by R3M (Nair et al. 2022): `resnet18`, `resnet34` or `resnet50`.

    Reads the file that the R3M library keeps at `~/.r3m/r3m_18/model.pt` (and so on); that library is not needed.
    """
    numbers = {"resnet18": "18", "resnet34": "34", "resnet50": "50"}
    if name not in numbers:
        raise ValueError(f"R3M has no {name!r}, only {', '.join(numbers)}")
    path = Path.home() / ".r3m" / f"r3m_{numbers[name]}" / "model.pt"
    if not path.exists():
        raise FileNotFoundError(
            f"R3M's weights of {name} are not at {path}: get model.pt of r3m_{numbers[name]} as the R3M project says "
            "and put it there, or pass its path as weights"
        )
    return _load(_without_classifier(_builder(name)(weights=None, **kwargs), name), path)


def _builder(name: str) -> Any:
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "for example resnet18, resnet34, resnet50"
        raise ValueError(f"torchvision has no model {name!r}: {hint}")
    return models.get_model_builder(name)


def _without_classifier(model: nn.Module, name: str) -> nn.Module:
    if not isinstance(getattr(model, "fc", None), nn.Module):
        raise ValueError(f"{name} has no last layer `fc` to take off: use a ResNet, ResNeXt, RegNet or the like")
    model.fc = nn.Identity()
    return model


def _is_path(weights: str) -> bool:
    return os.sep in weights or Path(weights).suffix != "" or Path(weights).exists()


def _load(model: nn.Module, path: Path) -> nn.Module:
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} holds no plain weights (a file of tensors is expected): {error}") from error
    try:
        model.load_state_dict(_backbone_weights(content))
    except RuntimeError as error:
        raise ValueError(f"the weights of {path} do not fit: {error}") from error
    return model


def _backbone_weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The backbone's part of a file: torchvision's layout, or R3M's, which is wrapped and nested."""
    weights = content.get("r3m", content.get("state_dict", content))
    weights = {key.removeprefix("module."): value for key, value in weights.items()}
    if any(key.startswith("convnet.") for key in weights):
        weights = {k.removeprefix("convnet."): v for k, v in weights.items() if k.startswith("convnet.")}
    return {key: value for key, value in weights.items() if not key.startswith("fc.")}


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
