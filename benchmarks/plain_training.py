"""Training the plain way, part by part, as one writes it first; what `train_step.py` holds the workspace against."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diffusion_policy.common.pytorch_util import dict_apply
from diffusion_policy.model.common.lr_scheduler import get_scheduler


def endless(loader: DataLoader) -> Iterator[Any]:
    """Batches of one epoch after the other."""
    while True:
        yield from loader


def plain_training(
    policy: Any, ema_policy: Any, dataset: Any, device: torch.device, lr: float, **loader: Any
) -> Callable[[], Tensor]:
    """A function that trains on the next batch.

    Sample by sample from the dataset, float32, one operation after the other, parameters averaged one by one, and the
    loss fetched at each step.
    """
    batches = endless(DataLoader(dataset, shuffle=True, pin_memory=device.type == "cuda", **loader))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=lr, betas=(0.95, 0.999), weight_decay=1e-6)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=100_000)
    policy.train()

    def step() -> Tensor:
        batch = dict_apply(next(batches), lambda x: x.to(device, non_blocking=True))
        loss: Tensor = policy.compute_loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        average(ema_policy, policy, 0.999)
        return torch.tensor(loss.item())

    return step


@torch.no_grad()
def average(ema_policy: nn.Module, policy: nn.Module, decay: float) -> None:
    """Moves the averaged parameters one by one."""
    for averaged, parameter in zip(ema_policy.parameters(), policy.parameters(), strict=True):
        averaged.mul_(decay)
        averaged.add_(parameter.detach(), alpha=1 - decay)
