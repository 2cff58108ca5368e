"""A run's checkpoints: the best and the latest, saved while it goes on."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from diffusion_policy.common.checkpoint_file import CheckpointError
from diffusion_policy.common.checkpoint_util import TopKCheckpointManager
from diffusion_policy.common.distributed import first_only, gather
from diffusion_policy.common.random_state import get_random_state
from diffusion_policy.workspace.base_workspace import BaseWorkspace

logger = logging.getLogger(__name__)


class SavingWorkspace(BaseWorkspace):
    """Keeps the checkpoints that the config's `checkpoint` asks for, and knows when one is lost.

    Attributes:
        topk: the table of the best; subclasses make it.
    """

    topk: TopKCheckpointManager

    def __init__(self, cfg: DictConfig, output_dir: str | None = None) -> None:
        super().__init__(cfg, output_dir)
        self._save_error: Exception | None = None  # why what was to be saved last is not

    def state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**super().state(*args, **kwargs), "random_state": get_random_state()}

    @contextmanager
    def save_finished(self) -> Iterator[None]:
        """Ends when no save is under way, however the block ends; its own error goes before that of the save."""
        try:
            yield
        except BaseException:
            with suppress(Exception):  # the thread has said what is wrong
                self.wait_for_save()
            raise
        self._settle_save()

    def settle_ended_save(self) -> None:
        """If a save has ended: takes note of its error, or raises it, as `checkpoint.on_save_error` says."""
        if self._saving.has_ended:
            self._settle_save()

    def refuse_to_end_unsaved(self) -> None:
        """Raises a CheckpointError if what was to be saved last is not."""
        if self._save_error is not None:
            raise CheckpointError(
                f"training is done, but its final checkpoint is lost: {self._save_error}. Resume with the same command "
                f"and hydra.run.dir={self.output_dir} to train again from the last checkpoint that was saved"
            ) from self._save_error

    def _checkpoint(self, record: Mapping[str, Any]) -> None:
        """Saves the state of the first process, and the random generators of all."""
        self._save(record, gather(get_random_state())[1:])

    @first_only
    def _save(self, record: Mapping[str, Any], other_random_states: list[dict[str, Any]]) -> None:
        """Writes the checkpoint among the k best if it is one, and `latest` as a second name of the same file.

        In this order nothing is lost when the process dies in between: the epoch is then done again. What is no longer
        among the best goes last. All but a copy of the state is done while training goes on.
        """
        self._settle_save()
        metrics = {key.replace("/", "_"): value for key, value in record.items()}
        latest = [self.get_checkpoint_path()] if self.cfg.checkpoint.save_last_ckpt else []
        with ExitStack() as stack:
            path = None
            # Measured in some epochs only. The first measures all there is, so a wrong key fails there.
            if record["epoch"] == 0 or self.topk.monitor_key in metrics:
                path = stack.enter_context(self.topk.saving(metrics))
            targets = latest if path is None else [Path(path), *latest]
            if targets:
                state = self.state()
                if other_random_states:
                    state["other_random_states"] = other_random_states
                self._start_saving(targets, state, around=stack.pop_all())

    def _settle_save(self) -> None:
        """Waits for the save under way; if it failed, ends training or not, as the config says."""
        if self._saving.is_idle:
            return
        try:
            self.wait_for_save()
            self._save_error = None
        except Exception as error:
            self._save_error = error
            if self.cfg.checkpoint.get("on_save_error", "warn") == "raise":
                raise
            logger.warning("Training goes on (checkpoint.on_save_error=warn); the next checkpoint tries to save again")
