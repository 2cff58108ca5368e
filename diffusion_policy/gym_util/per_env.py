"""What the two vector envs share: arguments for each environment, and infos as they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Info = dict[str, Any]


def per_env_calls(
    num_envs: int, args_list: Sequence[Sequence[Any]] | None, kwargs_list: Sequence[dict[str, Any]] | None
) -> list[tuple[Sequence[Any], dict[str, Any]]]:
    """Pairs of (args, kwargs), one for each environment; None means none for any."""
    args_list = [()] * num_envs if args_list is None else args_list
    kwargs_list = [{}] * num_envs if kwargs_list is None else kwargs_list
    if not len(args_list) == len(kwargs_list) == num_envs:
        raise ValueError(
            f"args_list ({len(args_list)}) and kwargs_list ({len(kwargs_list)}) need one entry for each of "
            f"the {num_envs} environments."
        )
    return list(zip(args_list, kwargs_list, strict=True))


def per_env_seeds(num_envs: int, seeds: int | Sequence[int | None] | None) -> list[int | None]:
    """Seeds of the environments: as given, or `seeds, seeds + 1, ...`."""
    if seeds is None:
        return [None] * num_envs
    if isinstance(seeds, int):
        return [seeds + i for i in range(num_envs)]
    if len(seeds) != num_envs:
        raise ValueError(f"Got {len(seeds)} seeds for {num_envs} environments.")
    return list(seeds)


def add_info(vector_infos: Info, env_info: Info, index: int, num_envs: int) -> Info:
    """Adds one environment's info to the batch: object arrays `(num_envs,)` and, as `_<key>`, which are set.

    gymnasium stacks arrays, but MultiStepWrapper's histories differ in length between environments.
    """
    for key, value in env_info.items():
        values = vector_infos.setdefault(key, np.full(num_envs, None, dtype=object))
        values[index] = value
        vector_infos.setdefault(f"_{key}", np.zeros(num_envs, dtype=bool))[index] = True
    return vector_infos
