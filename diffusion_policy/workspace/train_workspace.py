"""The one training loop."""

import copy
import inspect
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from diffusion_policy.common.atomic_file import remove_leftovers
from diffusion_policy.common.checkpoint_file import CheckpointError
from diffusion_policy.common.checkpoint_util import TopKCheckpointManager
from diffusion_policy.common.config import check_keys, instantiate
from diffusion_policy.common.distributed import (
    PROCESS_TIMEOUT_SEC,
    broadcast_,
    first_only,
    gather,
    is_first,
    local_device,
    mean_,
    rank,
    world_size,
)
from diffusion_policy.common.pytorch_util import dict_apply, optimizer_to
from diffusion_policy.common.random_state import process_seed, seed_everything, set_random_state
from diffusion_policy.common.report import write_report
from diffusion_policy.common.watchdog import Watchdog
from diffusion_policy.model.common.lr_scheduler import get_scheduler
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.policy.base_policy import as_obs_dict
from diffusion_policy.workspace.batch_source import BatchSource, check_divides
from diffusion_policy.workspace.evaluation import write_eval_log
from diffusion_policy.workspace.fused_adam import fuse_adam
from diffusion_policy.workspace.gradient_mean import GradientMean
from diffusion_policy.workspace.reference_run import lacks_training_state, with_training_state
from diffusion_policy.workspace.resident_data import make_resident_data
from diffusion_policy.workspace.resume import checkpoint_to_resume
from diffusion_policy.workspace.run_log import RunLog
from diffusion_policy.workspace.saving_workspace import SavingWorkspace
from diffusion_policy.workspace.step_choices import choose_precision, choose_step
from diffusion_policy.workspace.train_step import TrainStep, peak_memory_mb
from diffusion_policy.workspace.training_config import check_config, check_encoder, set_noise_draws, with_debug

logger = logging.getLogger(__name__)


class TrainWorkspace(SavingWorkspace):
    """Trains a policy, rolls it out, validates, samples and checkpoints, epoch by epoch.

    `epoch` and `global_step` count what is done. A run that is stopped anywhere and resumed ends with the same
    weights and the same log as one that was not (bit for bit on a CPU).

    Processes that train together (see `launch`) each run this, on their part of every batch, with generators of their
    own. They average gradients, so that all have the same weights, and share the episodes of a rollout. What is written
    is written by the first, which also keeps the moving average.
    """

    include_keys = ("global_step", "epoch", "first_epoch_rng")
    trains_together = True

    def __init__(self, cfg: DictConfig, output_dir: str | None = None) -> None:
        super().__init__(with_debug(cfg), output_dir)
        check_config(cfg)
        seed_everything(cfg.training.seed)
        self.model = instantiate(cfg.policy, "policy")
        self.ema_model = copy.deepcopy(self.model) if cfg.training.get("use_ema") else None
        check_encoder(self.model, cfg.training)
        set_noise_draws(self.model, cfg.training.get("noise_draws", 1))
        self.optimizer = self.make_optimizer()
        self.global_step = 0
        self.epoch = 0

    def make_optimizer(self) -> Optimizer:
        """The optimizer of the policy's parameters, or the policy's own if the config names no class."""
        cfg = self.cfg.get("optimizer", {})
        if "_target_" not in cfg and hasattr(self.model, "get_optimizer"):
            arguments: dict[Any, Any] = {**cfg}
            check_keys(arguments, inspect.signature(self.model.get_optimizer).parameters, "optimizer")
            return self.model.get_optimizer(**arguments)
        return instantiate(self.cfg.optimizer, "optimizer", params=self.model.parameters())

    def make_lr_scheduler(self, n_updates: int) -> LRScheduler:
        """The schedule of the learning rate over all `n_updates` of the run."""
        training = self.cfg.training
        return get_scheduler(
            training.lr_scheduler,
            optimizer=self.optimizer,
            num_warmup_steps=training.lr_warmup_steps,
            num_training_steps=n_updates,
        )

    def make_normalizer(self, dataset: Any) -> LinearNormalizer:
        """What the policy normalises by."""
        normalizer: LinearNormalizer = dataset.get_normalizer()
        return normalizer

    def fit_to_data(self, dataset: Any) -> None:
        """What a method learns of the data before training; the policy has its normalizer and is on its device."""

    @property
    def policy(self) -> Any:
        """The policy that is evaluated: the moving average if there is one."""
        return self.model if self.ema_model is None else self.ema_model

    def run(self) -> None:
        """Trains from the last checkpoint, if there is one, to `training.num_epochs`."""
        cfg = self.cfg.training
        device = local_device(cfg.device)
        step = choose_step(cfg.get("step", "auto"), device)
        precision = choose_precision(cfg.get("precision", "auto"), device)
        part: dict[str, Any] = {"rank": rank(), "n_ranks": world_size()}
        for loader in ("dataloader", "val_dataloader"):
            batch_size = OmegaConf.select(self.cfg, f"{loader}.batch_size", default=world_size())
            check_divides(batch_size, world_size(), f"{loader}.batch_size")
        payload = self._payload_to_resume()
        if self.cfg.checkpoint.save_last_snapshot:
            logger.warning("checkpoint.save_last_snapshot is ignored: a checkpoint holds everything there is to resume")
        dataset = instantiate(self.cfg.task.dataset, "task.dataset")
        validation = dataset.get_validation_dataset()
        resident = make_resident_data(cfg.get("data_device", "auto"), dataset, device, validation, **part)
        batches = BatchSource(dataset, device, resident=resident, **self.cfg.dataloader, **part)
        val_batches = None
        if len(validation) >= world_size():
            val_batches = BatchSource(validation, device, resident=resident, **self.cfg.val_dataloader, **part)
        self._build(dataset, len(batches), device)
        env_runner = instantiate(self.cfg.task.env_runner, "task.env_runner", output_dir=self.output_dir)
        self._resume(payload, len(batches))
        self.train_step = self._make_train_step(step, precision)
        sampling_batch = self._first_batch(batches)

        steps_per_epoch = min(len(batches), cfg.max_train_steps or len(batches))
        total_steps = steps_per_epoch * cfg.num_epochs
        with (
            closing(env_runner),
            RunLog(self.output_dir, self.cfg, total_steps, self.global_step) as log,
            self.save_finished(),
        ):
            while self.epoch < cfg.num_epochs:
                self.settle_ended_save()
                is_last = self.epoch == cfg.num_epochs - 1
                record = self._train_epoch(islice(batches, cfg.max_train_steps), log)
                rolls_out = is_last or self.epoch % cfg.rollout_every == 0
                samples = self.epoch % cfg.sample_every == 0
                self._agree_on_policy(acts=rolls_out or samples)
                if rolls_out:
                    record |= self._rollout(env_runner)
                if val_batches is not None and self.epoch % cfg.val_every == 0:
                    record["val_loss"] = self._validate(val_batches)
                if samples:
                    record["train_action_mse_error"] = self._sample(sampling_batch)
                log.write(record)
                self.epoch += 1
                if is_last or (self.epoch - 1) % cfg.checkpoint_every == 0:
                    self._checkpoint(record)
        self._finish()

    @first_only
    def _finish(self) -> None:
        try:
            report = write_report(self.output_dir)
        finally:
            self.refuse_to_end_unsaved()
        logger.info("Done. Checkpoints, log and videos are in %s", Path(self.output_dir).resolve())
        logger.info("Open the report in a browser: %s", Path(report).resolve())

    # Before the loop

    def _payload_to_resume(self) -> dict[str, Any] | None:
        self._remove_leftovers()
        return checkpoint_to_resume(self.get_checkpoint_path()) if self.cfg.training.resume else None

    @first_only
    def _remove_leftovers(self) -> None:
        for leftover in remove_leftovers(self.output_dir) + remove_leftovers(self.get_checkpoint_path().parent):
            logger.info("Removed %s, which a process that was stopped had not finished", leftover)

    def _build(self, dataset: Any, steps_per_epoch: int, device: torch.device) -> None:
        """Completes the parts that depend on the data and puts all of them on the device."""
        cfg = self.cfg
        normalizer = self.make_normalizer(dataset)
        for policy in (self.model, self.ema_model):
            if policy is not None:
                policy.set_normalizer(normalizer)
                policy.to(device)
        self.fit_to_data(dataset)
        optimizer_to(self.optimizer, device)
        n_updates = steps_per_epoch * cfg.training.num_epochs // cfg.training.gradient_accumulate_every
        self.lr_scheduler = self.make_lr_scheduler(n_updates)
        self.ema = None if self.ema_model is None else instantiate(cfg.ema, "ema", model=self.ema_model)
        self.topk = TopKCheckpointManager(str(self.get_checkpoint_path().parent), **cfg.checkpoint.topk)

    def _resume(self, payload: dict[str, Any] | None, steps_per_epoch: int) -> None:
        """Takes over a checkpoint; the random generators last, so that nothing draws from them in between."""
        self.first_epoch_rng = torch.get_rng_state()
        if payload is not None:
            if lacks_training_state(payload):
                payload = with_training_state(payload, self, steps_per_epoch)
            self.load_payload(payload)
        steps = gather(self.global_step)
        if len(set(steps)) > 1:
            raise CheckpointError(
                f"the processes found checkpoints of steps {steps}: {self.output_dir} has to be one folder, which all "
                "machines share"
            )
        for policy in (self.model, self.ema_model):
            if policy is not None:
                broadcast_((*policy.parameters(), *policy.buffers()))
        self._set_random_state({} if payload is None else payload)

    def _set_random_state(self, payload: Mapping[str, Any]) -> None:
        """The first process goes on with the checkpoint's generators; so do the others if they were as many."""
        others = payload.get("other_random_states", [])
        if is_first():
            if payload:
                set_random_state(payload["random_state"])
        elif len(others) == world_size() - 1:
            set_random_state(others[rank() - 1])
        else:
            seed_everything(process_seed(self.cfg.training.seed, rank(), self.global_step))

    def _make_train_step(self, step: str, precision: torch.dtype) -> TrainStep:
        fuse_adam(self.optimizer)
        return TrainStep(
            self.model,
            self.optimizer,
            self.lr_scheduler,
            self.ema if is_first() else None,
            accumulate=self.cfg.training.gradient_accumulate_every,
            max_grad_norm=self.cfg.training.get("grad_norm_clip"),
            step=step,
            precision=precision,
            gradient_mean=GradientMean(self.model.parameters()) if world_size() > 1 else None,
        )

    def _first_batch(self, batches: BatchSource) -> Any:
        """The first batch of the first epoch, on which sampling is judged, also in a resumed run."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.first_epoch_rng)
            return next(iter(batches))

    # In the loop

    def _set_train_mode(self) -> None:
        self.model.train()
        if self.cfg.training.get("freeze_encoder"):
            self.model.obs_encoder.eval().requires_grad_(False)

    def _train_epoch(self, batches: Iterable[Any], log: RunLog) -> dict[str, Any]:
        self._set_train_mode()
        start, n_samples = time.perf_counter(), 0
        records: list[dict[str, Any]] = []
        timeout_sec = self.cfg.training.get("process_timeout_sec", PROCESS_TIMEOUT_SEC)
        with Watchdog(timeout_sec if world_size() > 1 else None) as watchdog:
            for batch in batches:
                if log.is_full:
                    records += log.flush()
                losses = self.train_step(batch, self.global_step)
                log.step(losses, {"global_step": self.global_step, "epoch": self.epoch, "lr": self.train_step.lr})
                self.global_step += 1
                n_samples += len(batch["action"]) * world_size()
                watchdog.beat()
            records += log.flush(keep_last=True)
        seconds = time.perf_counter() - start
        return {
            **records[-1],
            "train_loss": sum(record["train_loss"] for record in records) / len(records),
            "steps_per_second": len(records) / seconds,
            "samples_per_second": n_samples / seconds,
            "peak_memory_mb": peak_memory_mb(self.model.device),
        }

    def _agree_on_policy(self, acts: bool) -> None:
        """Has all processes evaluate the same: statistics of norms are kept by each, the average by the first.

        Args:
            acts: whether the average is needed: it is as large as the model.
        """
        broadcast_(self.model.buffers())
        if acts and self.ema_model is not None:
            broadcast_(self.ema_model.parameters())
        self.policy.eval()

    def _rollout(self, env_runner: Any) -> dict[str, Any]:
        """Scores the policy in simulation; the result is kept in `eval_log.json` too, as by eval.py."""
        result = env_runner.run(self.policy)
        write_eval_log(Path(self.output_dir, "eval_log.json"), result)
        return result

    @torch.no_grad()
    def _validate(self, batches: BatchSource) -> float:
        self.model.eval()
        limit = self.cfg.training.max_val_steps or len(batches)
        n_batches, title = min(limit, len(batches)), f"Validation epoch {self.epoch}"
        with tqdm(total=n_batches, desc=title, unit="batch", leave=False, mininterval=1, disable=not is_first()) as bar:
            losses = []
            for batch in islice(batches, limit):
                losses.append(self.model.compute_loss(batch))
                bar.update()
        return mean_(torch.stack(losses).mean()).item()

    @torch.no_grad()
    def _sample(self, batch: Mapping[str, Any]) -> float:
        """Mean squared error of sampled against demonstrated actions, in the dataset's units."""
        limit = self.cfg.training.get("sample_max_batch")
        batch = dict_apply(batch, lambda x: x[: limit and max(1, limit // world_size())])
        return mean_(F.mse_loss(*self.sampled_and_demonstrated(batch))).item()

    def sampled_and_demonstrated(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """What the policy does on a training batch, and what was done: actions `(B, T, Da)`, or `(B, Ta, Da)`."""
        result = self.policy.predict_action(as_obs_dict(batch["obs"]))
        if "action_pred" in result and not self.cfg.get("pred_action_steps_only"):
            return result["action_pred"], batch["action"]
        start = self.cfg.n_obs_steps - 1
        return result["action"], batch["action"][:, start : start + self.cfg.n_action_steps]
