"""State of an experiment and its checkpoints."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from diffusion_policy.common.checkpoint_file import read_checkpoint, write_checkpoint


class BaseWorkspace:
    """Holds what an experiment needs to be continued; subclasses add models, optimizers and `run()`.

    Every attribute with a `state_dict` (models, optimizers, schedules, averages) belongs to a checkpoint, and
    so do the plain attributes named in `include_keys`.
    """

    include_keys: tuple[str, ...] = ()
    exclude_keys: tuple[str, ...] = ()

    def __init__(self, cfg: DictConfig, output_dir: str | None = None) -> None:
        self.cfg = cfg
        self._output_dir = output_dir

    @property
    def output_dir(self) -> str:
        """Folder of the run: as given, else Hydra's."""
        return self._output_dir or HydraConfig.get().runtime.output_dir

    def run(self) -> None:
        """Carries the experiment out."""
        raise NotImplementedError(f"{type(self).__name__} has no run()")

    def get_checkpoint_path(self, tag: str = "latest") -> Path:
        """Where a checkpoint of this run lies."""
        return Path(self.output_dir, "checkpoints", f"{tag}.ckpt")

    def state(self, exclude_keys: Iterable[str] | None = None, include_keys: Iterable[str] | None = None) -> dict:
        """The content of a checkpoint: config, states of the parts, and plain values."""
        excluded = set(self.exclude_keys if exclude_keys is None else exclude_keys)
        included = self.include_keys if include_keys is None else include_keys
        parts = {key: value for key, value in vars(self).items() if key not in excluded and _has_state(value)}
        return {
            "cfg": OmegaConf.to_container(self.cfg, resolve=True),
            "state_dicts": {key: _state_of(value) for key, value in parts.items()},
            "values": {key: getattr(self, key) for key in included},
        }

    def save_checkpoint(
        self,
        path: str | os.PathLike[str] | None = None,
        tag: str = "latest",
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
    ) -> str:
        """Writes a checkpoint atomically and returns its absolute path."""
        target = self.get_checkpoint_path(tag) if path is None else Path(path)
        write_checkpoint(target, self.state(exclude_keys, include_keys))
        return str(target.absolute())

    def load_payload(
        self,
        payload: dict[str, Any],
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Takes over the content of a checkpoint; `kwargs` go to the modules' `load_state_dict`.

        Parts that this workspace does not have, such as a schedule outside of `run()`, are left out.
        """
        excluded = set(exclude_keys or ())
        for key, value in payload["state_dicts"].items():
            part = getattr(self, key, None)
            if part is not None and key not in excluded:
                part.load_state_dict(value, **(kwargs if isinstance(part, nn.Module) else {}))
        included = payload["values"] if include_keys is None else include_keys
        for key in included:
            if key in payload["values"]:
                setattr(self, key, payload["values"][key])

    def load_checkpoint(
        self,
        path: str | os.PathLike[str] | None = None,
        tag: str = "latest",
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Reads a checkpoint into this workspace; `kwargs` go to the modules' `load_state_dict`."""
        payload = read_checkpoint(self.get_checkpoint_path(tag) if path is None else path)
        self.load_payload(payload, exclude_keys, include_keys, **kwargs)
        return payload

    @classmethod
    def create_from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Builds the workspace of a checkpoint's config and loads it."""
        payload = read_checkpoint(path)
        workspace = cls(OmegaConf.create(payload["cfg"]))
        workspace.load_payload(payload, exclude_keys, include_keys, **kwargs)
        return workspace


def _has_state(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def _state_of(part: Any) -> Any:
    """The state of a part; weights that are views of a flat buffer as tensors of their own, in the CPU's memory.

    A file holds the whole storage of each tensor in it: whoever took one weight from it would hold all of them.
    """
    state = part.state_dict()
    if not isinstance(part, nn.Module):
        return state
    copies: dict[Any, Tensor] = {}  # weights that two names share stay shared
    for name, value in state.items():
        if isinstance(value, Tensor) and value.untyped_storage().nbytes() > value.nbytes:
            place = (value.data_ptr(), value.shape, value.stride())
            if place not in copies:
                copies[place] = value.to("cpu", copy=True)
            state[name] = copies[place]
    return state
