"""Hydra configs: the `eval` resolver, leaves by key, and instantiation that explains what is wrong with a config."""

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf


class ConfigError(ValueError):
    """A config that cannot be used, with the key at fault and what to do."""


def register_resolvers() -> None:
    """Makes `${eval:'...'}` available: a Python expression, evaluated. A config is code, like `_target_`."""
    OmegaConf.register_new_resolver("eval", eval, replace=True)


def check_keys(section: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuses keys that nothing would read, which are nearly always misspelt.

    Raises:
        ConfigError: naming the key, what it may have been meant to be, and the keys there are.
    """
    known = list(known)
    for key in section:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"unknown key {key!r} in {where}: {hint}It takes {', '.join(sorted(known))}")


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a config by their dotted key, as written in an override."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix, node


def instantiate(cfg: DictConfig, where: str, **kwargs: Any) -> Any:
    """`hydra.utils.instantiate`, after checking that the target takes the arguments.

    Args:
        cfg: a node with `_target_`.
        where: its path in the config, for errors.
        kwargs: further arguments of the constructor.

    Raises:
        ConfigError: for a target that does not exist or an argument that it does not take.
    """
    _check_target(cfg, where, kwargs)
    for key in map(str, cfg):
        if isinstance(cfg[key], DictConfig) and "_target_" in cfg[key]:
            _check_target(cfg[key], f"{where}.{key}", {})
    try:
        return hydra.utils.instantiate(cfg, **kwargs)
    except InstantiationException as error:
        # The constructor's own error says what is wrong; Hydra's wraps it in a page of its own.
        if error.__cause__ is None:
            raise
        error.__cause__.add_note(f"While building {where} of the config.")
        raise error.__cause__ from None


def _check_target(cfg: DictConfig, where: str, kwargs: dict[str, Any]) -> None:
    if "_target_" not in cfg:
        raise ConfigError(f"{where} has no _target_: name the class to build")
    name: str = cfg["_target_"]
    try:
        target = hydra.utils.get_object(name)
    except Exception as error:
        raise ConfigError(f"{where}._target_={name} cannot be imported: {error}") from error
    parameters = inspect.signature(target).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    keys = [key for key in map(str, cfg) if not key.startswith("_")]
    check_keys([*keys, *kwargs], [p.name for p in parameters], f"{where} ({name})")
