"""What a run writes while it trains: `logs.json.txt`, W&B and a progress bar, as one."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from diffusion_policy.common.distributed import is_first, mean_
from diffusion_policy.common.json_logger import JsonLogger
from diffusion_policy.common.wandb_run import wandb_run


class RunLog:
    """Logs records; losses wait on the device and are read `training.log_every` at a time, not one by one.

    Processes that train together read the mean of their losses, and the first of them writes.

    Args:
        output_dir: folder of the run.
        cfg: of the run.
        total_steps: training steps of the whole run.
        done_steps: those of them that an earlier process did; its later records are dropped.
    """

    def __init__(self, output_dir: str, cfg: DictConfig, total_steps: int, done_steps: int) -> None:
        self._stack = ExitStack()
        self._sinks: list[Callable[[Mapping[str, Any]], None]] = []
        if is_first():
            self._open(output_dir, cfg, done_steps)
        self._bar = self._stack.enter_context(
            tqdm(
                total=total_steps,
                initial=done_steps,
                desc="Training",
                unit="step",
                mininterval=cfg.training.tqdm_interval_sec,
                dynamic_ncols=True,
                disable=not is_first(),
            )
        )
        self._log_every = cfg.training.get("log_every", 50)
        self._pending: list[tuple[Mapping[str, Tensor], dict[str, Any]]] = []

    def _open(self, output_dir: str, cfg: DictConfig, done_steps: int) -> None:
        json = self._stack.enter_context(JsonLogger(str(Path(output_dir, "logs.json.txt"))))
        json.rewind(done_steps)
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        logging: Any = OmegaConf.to_container(cfg.logging, resolve=True)
        wandb = self._stack.enter_context(wandb_run(output_dir=output_dir, config=config, **logging))
        self._sinks = [lambda record: json.log(dict(record)), lambda record: wandb(record, record["global_step"])]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(exc_type, exc, traceback)

    def step(self, losses: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Takes the losses of a training step by name, still on the device, and what else is known of the step."""
        self._pending.append((losses, dict(values)))
        self._bar.update()

    def flush(self, keep_last: bool = False) -> list[dict[str, Any]]:
        """Writes the records of the waiting steps and returns them; the last may be left to the epoch's record."""
        if not self._pending:
            return []
        waiting = [loss for losses, _ in self._pending for loss in losses.values()]
        read = iter(mean_(torch.stack(waiting)).tolist())
        records = [{f"train_{name}": next(read) for name in losses} | values for losses, values in self._pending]
        for record in records[:-1] if keep_last else records:
            self.write(record)
        self._bar.set_postfix(epoch=records[-1]["epoch"], loss=f"{records[-1]['train_loss']:.4f}", refresh=False)
        self._pending.clear()
        return records

    @property
    def is_full(self) -> bool:
        """Whether enough losses wait to be worth a synchronisation with the device."""
        return len(self._pending) >= self._log_every

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record everywhere."""
        for sink in self._sinks:
            sink(record)
