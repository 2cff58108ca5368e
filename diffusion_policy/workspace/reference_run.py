"""Continuing runs of the original: what its checkpoints lack, worked out from what they have.

They hold weights, the optimizer, `global_step` and `epoch`, both as they were before the epoch's end was counted. The
place in the learning-rate schedule, the decay of the moving average, the table of the best checkpoints and the state of
the random generators are not in them.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diffusion_policy.common.checkpoint_file import ORIGINAL_FORMAT, CheckpointError
from diffusion_policy.common.random_state import get_random_state, seed_everything, set_random_state

logger = logging.getLogger(__name__)

NORMALIZER = "normalizer."


def lacks_training_state(payload: Mapping[str, Any]) -> bool:
    """Whether a payload is one of the original's, which holds no state of random generators."""
    return "random_state" not in payload


def with_training_state(payload: Mapping[str, Any], workspace: Any, batches_per_epoch: int) -> dict[str, Any]:
    """A payload of the original, completed to one that `workspace` can continue from.

    The random generators are seeded anew, by the seed and the epoch. The normalizer stays as the data of this run make
    it. The best checkpoints are known by their names.

    Args:
        payload: with `cfg`, `state_dicts` and `values` (`global_step`, `epoch`).
        workspace: built and not yet trained, with `model`, `optimizer`, `lr_scheduler`, `ema`, `topk`.
        batches_per_epoch: of the data, in a whole epoch.

    Raises:
        CheckpointError: if the payload has no such values, or its optimizer is for other parameters.
    """
    values, states = payload["values"], dict(payload["state_dicts"])
    if "policy" in states:
        states["model"] = states.pop("policy")  # that is what the original calls BET's
    if not {"global_step", "epoch"} <= values.keys():
        raise CheckpointError(f"this checkpoint says only {sorted(values)}, not at which step and epoch it was made")
    # Where the original's models hold their optimizer themselves, robomimic's, its checkpoints have none.
    starts_afresh = payload.get("format") == ORIGINAL_FORMAT and "optimizer" not in states
    missing = {"model", *(() if starts_afresh else ("optimizer",))} - states.keys()
    if missing:
        raise CheckpointError(
            f"training cannot continue from this checkpoint: it has no state of {', '.join(sorted(missing))}, "
            f"only of {', '.join(states)}"
        )
    training = payload["cfg"].get("training", {})
    limit = 3 if training.get("debug") else training.get("max_train_steps")
    n_epochs = values["epoch"] + 1
    if limit is not None and limit < batches_per_epoch:
        # An epoch that is cut short counts one step too many, but not yet when it makes its checkpoint.
        global_step = values["global_step"]
        n_batches = global_step - values["epoch"]
    else:
        global_step = n_batches = values["global_step"] + 1
    # The original updates on the first of so many batches, not on the last.
    n_updates = math.ceil(n_batches / training.get("gradient_accumulate_every", 1))

    for name in ("model", "ema_model"):
        if name in states and getattr(workspace, name, None) is not None:
            states[name] = _with_normalizer_of(getattr(workspace, name), states[name])
    if starts_afresh:
        logger.warning("This checkpoint of the original has no state of an optimizer: that starts afresh")
    else:
        optimizer = _optimizer_state(states["optimizer"], states["model"], workspace.optimizer, workspace.model)
        states["optimizer"] = optimizer
    states["lr_scheduler"] = _schedule_state(workspace.lr_scheduler, n_updates)
    if workspace.ema is not None:
        states["ema"] = {"optimization_step": n_batches, "decay": workspace.ema.get_decay(n_batches - 1)}
    workspace.topk.recognise_files()
    states["topk"] = workspace.topk.state_dict()

    seed = workspace.cfg.training.seed + n_epochs
    logger.warning(
        "Continuing a run of the original at epoch %d, step %d. Its checkpoints hold no state of the random "
        "generators: these are seeded anew with %d, so it goes on otherwise than if it had not been stopped. "
        "The best checkpoints are known by their names: %s",
        n_epochs,
        global_step,
        seed,
        ", ".join(states["topk"]) or "there are none",
    )
    return {
        **payload,
        "state_dicts": states,
        "values": {"global_step": global_step, "epoch": n_epochs},
        "random_state": _random_state_of(seed),
    }


def _with_normalizer_of(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of a policy with the normalizer of another, which was fitted to the data that training goes on with."""
    kept = {key: value for key, value in state.items() if not key.startswith(NORMALIZER)}
    return kept | {key: value for key, value in module.state_dict().items() if key.startswith(NORMALIZER)}


def _optimizer_state(
    saved: Mapping[str, Any], model_state: Mapping[str, Any], optimizer: Optimizer, model: nn.Module
) -> dict[str, Any]:
    """A saved optimizer's state in the order of ours, parameter by parameter."""
    own = optimizer.state_dict()
    sizes = [[len(group["params"]) for group in each["param_groups"]] for each in (saved, own)]
    if sizes[0] != sizes[1]:
        raise CheckpointError(
            f"the checkpoint's optimizer has groups of {sizes[0]} parameters, that of this config {sizes[1]}: "
            "resume with the config of the run"
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    own_names = {
        name: index
        for group, own_group in zip(optimizer.param_groups, own["param_groups"], strict=True)
        for name, index in zip((names[id(p)] for p in group["params"]), own_group["params"], strict=True)
    }
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    groups, states = [], {}
    for saved_group, own_group in zip(saved["param_groups"], own["param_groups"], strict=True):
        of_group = {name: index for name, index in own_names.items() if index in set(own_group["params"])}
        order = list(of_group)  # where there are several groups, they are made from sorted names
        if len(sizes[0]) == 1:
            order = list(_parameters_in_order(model_state, model, of_group))
        for name, saved_index in zip(order, saved_group["params"], strict=True):
            state = saved["state"].get(saved_index)
            if state is None:
                continue  # it never had a gradient
            state = {key: _as_tensor(value) for key, value in state.items()}
            if any(value.ndim and value.shape != shapes[name] for value in state.values()):
                raise CheckpointError(
                    f"the checkpoint's optimizer has another shape for {name}: resume with its config"
                )
            states[of_group[name]] = state
        settings = {key: value for key, value in saved_group.items() if key in own_group and key != "params"}
        groups.append({**own_group, **settings})
    return {"state": dict(sorted(states.items())), "param_groups": groups}


def _parameters_in_order(model_state: Mapping[str, Any], model: nn.Module, wanted: Mapping[str, int]) -> Iterator[str]:
    """Our names of the parameters of one group, in the order in which the saved model lists them.

    A module that is used in two places is listed twice, but a parameter for an optimizer only once.
    """
    canonical = {id(parameter): name for name, parameter in model.named_parameters()}
    every_name = {name: canonical[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    yield from dict.fromkeys(every_name[key] for key in model_state if every_name.get(key) in wanted)


def _as_tensor(value: Any) -> Tensor:
    """Steps were plain numbers once."""
    return value if isinstance(value, Tensor) else torch.tensor(float(value))


def _schedule_state(lr_scheduler: Any, n_updates: int) -> dict[str, Any]:
    """State of a schedule after so many updates."""
    factors = [factor(n_updates) for factor in lr_scheduler.lr_lambdas]
    lrs = [base * factor for base, factor in zip(lr_scheduler.base_lrs, factors, strict=True)]
    changed = {"last_epoch": n_updates, "_step_count": n_updates + 1, "_last_lr": lrs}
    return {**lr_scheduler.state_dict(), **changed}


def _random_state_of(seed: int) -> dict[str, Any]:
    """State of all generators just after seeding, without changing them for others."""
    before = get_random_state()
    seed_everything(seed)
    state = get_random_state()
    set_random_state(before)
    return state
