"""State of an experiment and its checkpoints."""

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from diffusion_policy.common.background_job import BackgroundJob
from diffusion_policy.common.checkpoint_file import link_checkpoint, read_checkpoint, write_checkpoint
from diffusion_policy.common.plain_state import HostSnapshots
from diffusion_policy.common.safe_targets import without_pretrained_weights
from diffusion_policy.policy.policy_loading import read_config

logger = logging.getLogger(__name__)


class BaseWorkspace:
    """Holds what an experiment needs to be continued; subclasses add models, optimizers and `run()`.

    Every attribute with a `state_dict` (models, optimizers, schedules, averages) belongs to a checkpoint, and
    so do the plain attributes named in `include_keys`.

    Attributes:
        trains_together: whether `run()` can share its work with processes that run the same.
    """

    include_keys: tuple[str, ...] = ()
    exclude_keys: tuple[str, ...] = ()
    trains_together: bool = False

    def __init__(self, cfg: DictConfig, output_dir: str | None = None) -> None:
        self.cfg = cfg
        self._output_dir = output_dir
        self._snapshots = HostSnapshots()
        self._saving = BackgroundJob("save checkpoint")

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
            "state_dicts": {key: value.state_dict() for key, value in parts.items()},
            "values": {key: getattr(self, key) for key in included},
        }

    def save_checkpoint(
        self,
        path: str | os.PathLike[str] | None = None,
        tag: str = "latest",
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
        use_thread: bool = True,
    ) -> str:
        """Writes a checkpoint atomically and returns its absolute path.

        With `use_thread` the state is copied now and written behind the caller's back: what the workspace does next
        is not in it, and `wait_for_save` says when the file is there.

        Raises:
            CheckpointError: if it, or the save before, failed; in a thread, once somebody waits for it.
        """
        target = self.get_checkpoint_path(tag) if path is None else Path(path)
        self._start_saving([target], self.state(exclude_keys, include_keys))
        if not use_thread:
            self.wait_for_save()
        return str(target.absolute())

    def wait_for_save(self) -> None:
        """Returns when no checkpoint is being written.

        Raises:
            CheckpointError: if the last could not be.
        """
        self._saving.wait()

    def _start_saving(
        self, targets: Sequence[Path], state: dict[str, Any], around: AbstractContextManager[Any] | None = None
    ) -> None:
        """Copies a state, then writes it in a thread: the first target as a file, the others as further names of it.

        Args:
            around: closed in the thread when all is written, or with the error.
        """
        self.wait_for_save()  # its snapshot would be overwritten
        snapshot = self._snapshots.take(state)

        def save() -> None:
            try:
                with around or nullcontext():
                    write_checkpoint(targets[0], snapshot)
                    for name in targets[1:]:
                        link_checkpoint(targets[0], name)
            except Exception as error:
                logger.error("A checkpoint is missing: %s", error)
                raise

        self._saving.start(save)

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
            if key in payload["values"] and key != "_output_dir":  # the original's say where they were made
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
        self.wait_for_save()
        payload = read_checkpoint(self.get_checkpoint_path(tag) if path is None else path)
        self.load_payload(payload, exclude_keys, include_keys, **kwargs)
        return payload

    @classmethod
    def create_from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Builds the workspace of a checkpoint's config and loads it; see `load_policy` for what `trust` lifts."""
        payload = read_checkpoint(path, trust=trust)
        cfg = read_config(payload, trust)
        cfg["policy"] = without_pretrained_weights(cfg["policy"])
        workspace = cls(OmegaConf.create(cfg))
        workspace.load_payload(payload, exclude_keys, include_keys, **kwargs)
        return workspace


def _has_state(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")
