"""Learning-rate schedules: those of diffusers, by name."""

from typing import Any

from diffusers.optimization import TYPE_TO_SCHEDULER_FUNCTION, SchedulerType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_NEEDS_NOTHING = {SchedulerType.CONSTANT, SchedulerType.PIECEWISE_CONSTANT}
_NEEDS_WARMUP = {SchedulerType.CONSTANT_WITH_WARMUP}


def get_scheduler(
    name: str | SchedulerType,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    **kwargs: Any,
) -> LambdaLR:
    """Builds a schedule; extra arguments (`last_epoch`, `num_cycles`, ...) go to diffusers' function.

    Args:
        name: "cosine", "linear", "constant", "constant_with_warmup", "polynomial", "cosine_with_restarts", ...
        optimizer: whose learning rate is scheduled.
        num_warmup_steps: optimizer steps of linear warm-up from zero.
        num_training_steps: optimizer steps until the end of the schedule.
    """
    try:
        kind = SchedulerType(name)
    except ValueError:
        names = ", ".join(sorted(each.value for each in SchedulerType))
        raise ValueError(f"unknown learning-rate schedule {name!r}; there are: {names}") from None
    if kind not in _NEEDS_NOTHING:
        if num_warmup_steps is None:
            raise ValueError(f"the schedule {kind.value!r} needs num_warmup_steps")
        kwargs["num_warmup_steps"] = num_warmup_steps
    if kind not in _NEEDS_NOTHING | _NEEDS_WARMUP:
        if num_training_steps is None:
            raise ValueError(f"the schedule {kind.value!r} needs num_training_steps")
        kwargs["num_training_steps"] = num_training_steps
    make: Any = TYPE_TO_SCHEDULER_FUNCTION[kind]
    return make(optimizer, **kwargs)
