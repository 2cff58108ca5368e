"""What a run writes while it trains: `logs.json.txt`, W&B and a progress bar, as one."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from diffusion_policy.common.json_logger import JsonLogger
from diffusion_policy.common.wandb_run import wandb_run


class RunLog:
    """Logs records; losses wait on the device and are read `training.log_every` at a time, not one by one.

    Args:
        output_dir: folder of the run.
        cfg: of the run.
        total_steps: training steps of the whole run.
        done_steps: those of them that an earlier process did; its later records are dropped.
    """

    def __init__(self, output_dir: str, cfg: DictConfig, total_steps: int, done_steps: int) -> None:
        self._stack = ExitStack()
        self._json = self._stack.enter_context(JsonLogger(str(Path(output_dir, "logs.json.txt"))))
        self._json.rewind(done_steps)
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        logging: Any = OmegaConf.to_container(cfg.logging, resolve=True)
        self._wandb = self._stack.enter_context(wandb_run(output_dir=output_dir, config=config, **logging))
        self._bar = self._stack.enter_context(
            tqdm(
                total=total_steps,
                initial=done_steps,
                desc="Training",
                unit="step",
                mininterval=cfg.training.tqdm_interval_sec,
                dynamic_ncols=True,
            )
        )
        self._log_every = cfg.training.get("log_every", 50)
        self._pending: list[tuple[Tensor, dict[str, Any]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(exc_type, exc, traceback)

    def step(self, loss: Tensor, values: Mapping[str, Any]) -> None:
        """Takes the loss of a training step, still on the device, and what else is known of the step."""
        self._pending.append((loss, dict(values)))
        self._bar.update()

    def flush(self, keep_last: bool = False) -> list[float]:
        """Writes the waiting steps and returns their losses; the last may be left to the epoch's record."""
        if not self._pending:
            return []
        losses = torch.stack([loss for loss, _ in self._pending]).tolist()
        records = [{"train_loss": loss, **values} for loss, (_, values) in zip(losses, self._pending, strict=True)]
        for record in records[:-1] if keep_last else records:
            self.write(record)
        self._bar.set_postfix(epoch=records[-1]["epoch"], loss=f"{losses[-1]:.4f}", refresh=False)
        self._pending.clear()
        return losses

    @property
    def is_full(self) -> bool:
        """Whether enough losses wait to be worth a synchronisation with the device."""
        return len(self._pending) >= self._log_every

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record everywhere."""
        self._json.log(dict(record))
        self._wandb(record, record["global_step"])
