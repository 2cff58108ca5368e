"""What the config of a stranger's checkpoint may have built: networks, noise schedules and the like, nothing else."""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from diffusion_policy.common.config import ConfigError
from diffusion_policy.common.safe_config import UnsafeConfigError

KNOWN = ("diffusion_policy", "torch.nn", "torch.optim", "diffusers.schedulers", "torchvision", "robomimic")
"""Packages that a config may name classes of."""
_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_SHORT_SCHEDULER = re.compile(r"diffusers\.\w+Scheduler", re.ASCII)
_BACKBONES = "diffusion_policy.model.vision.model_getter"
_FACTORIES = {f"{_BACKBONES}.get_resnet", f"{_BACKBONES}.get_r3m"}
_FETCHING = {f"robomimic.models.base_nets.{name}" for name in ("R3MConv", "MVPConv")}
_LARGEST_INTEGER = 1_000_000


@dataclass(frozen=True)
class Part:
    """A part of a config: what it is called, the packages whose classes it may name, and their base classes."""

    name: str
    packages: tuple[str, ...]
    bases: tuple[type, ...]


def check_names(cfg: Any) -> None:
    """Refuses a config that names a `_target_` outside the known packages, anywhere; imports nothing.

    Raises:
        UnsafeConfigError: naming it and where it is.
    """
    for where, name in _targets(cfg, ""):
        if not _is_within(name, KNOWN):
            raise UnsafeConfigError(f"{where}={name[:200]} of the config is outside {', '.join(KNOWN)}")


def check_part(cfg: Any, part: Part, where: str) -> None:
    """Refuses a part of a config that would build anything but classes defined in the packages that it needs.

    A name is followed through modules only, to one attribute at their end, and what is found must be a class that
    one of the packages defines: `diffusion_policy.common.config.hydra.utils.get_method` does not pass.

    Raises:
        UnsafeConfigError: naming the target and where it is.
        ConfigError: a package that it needs is not installed.
    """
    for place, name in _targets(cfg, where):
        if name in _FACTORIES and _is_within(name, part.packages):
            continue
        try:
            is_fitting = _is_within(name, part.packages) and name not in _FETCHING and _is_class_of(name, part)
        except ImportError as error:
            raise ConfigError(f"{place}={name[:200]} of the config cannot be imported: {error}") from error
        if not is_fitting:
            raise UnsafeConfigError(
                f"{place}={name[:200]} of the config is no class that a {part.name} is made of "
                f"(those of {', '.join(part.packages)})"
            )


def check_sizes(cfg: Any, where: str) -> None:
    """Refuses numbers that would keep a constructor busy for hours.

    Raises:
        UnsafeConfigError: naming the key.
    """
    if isinstance(cfg, dict | list):
        for key, value in cfg.items() if isinstance(cfg, dict) else enumerate(cfg):
            check_sizes(value, f"{where}.{key}")
    elif isinstance(cfg, int) and abs(cfg) > _LARGEST_INTEGER:
        raise UnsafeConfigError(f"{where} of the config is larger than {_LARGEST_INTEGER}")


def without_pretrained_weights(cfg: Any) -> Any:
    """A policy's config whose networks start at random: a checkpoint has all weights, and a file may be gone.

    For the config of a stranger it also means that building opens no file and fetches nothing.
    """
    if isinstance(cfg, list):
        return [without_pretrained_weights(each) for each in cfg]
    if not isinstance(cfg, dict):
        return cfg
    node = {key: without_pretrained_weights(each) for key, each in cfg.items()}
    if node.get("_target_") in _FACTORIES:
        node |= {"_target_": f"{_BACKBONES}.get_resnet", "weights": None}
    if node.get("pretrained"):
        node["pretrained"] = False
    return node


def _targets(cfg: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every `_target_`, with its path."""
    if isinstance(cfg, dict):
        if "_target_" in cfg:
            place = f"{where}._target_".lstrip(".")
            name = cfg["_target_"]
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise UnsafeConfigError(f"{place}={str(name)[:200]} of the config is not the name of a class")
            yield place, name
        for key, value in cfg.items():
            yield from _targets(value, f"{where}.{key}")
    elif isinstance(cfg, list):
        for i, value in enumerate(cfg):
            yield from _targets(value, f"{where}.{i}")


def _is_within(name: str, packages: tuple[str, ...]) -> bool:
    if _SHORT_SCHEDULER.fullmatch(name):
        return "diffusers.schedulers" in packages
    return any(name.startswith(f"{package}.") for package in packages)


@cache
def _is_class_of(name: str, part: Part) -> bool:
    module_name, _, attribute = name.rpartition(".")
    module = _module(module_name)
    found = getattr(module, attribute, None) if module else None
    return (
        inspect.isclass(found)
        and issubclass(found, part.bases)
        and _is_within(f"{found.__module__}.{found.__name__}", part.packages)
    )


def _module(name: str) -> ModuleType | None:
    """A module by its name, if the modules that hold it are all there; attributes are not followed."""
    try:
        if importlib.util.find_spec(name) is None:
            return None
    except ModuleNotFoundError:
        return None
    return importlib.import_module(name)
