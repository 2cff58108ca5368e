"""A policy that answers several clients at once, in batches where these are faster."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.serving.observation_reader import stack
from diffusion_policy.serving.policy_spec import PolicySpec

logger = logging.getLogger(__name__)

TIMED_CALLS = 3
WORTHWHILE = 0.95
"""A batch twice as large must cost less than this part of two."""


class DeviceError(RuntimeError):
    """The GPU failed: what it computes from here on is not to be trusted."""


@dataclass
class EpisodeState:
    """What a policy needs of a client's episode beside observations.

    Attributes:
        generator: source of its randomness, as if the client were alone.
        memory: what a recurrent policy has kept.
    """

    generator: torch.Generator = field(default_factory=torch.Generator)
    memory: Any = None


@dataclass
class Query:
    """One client's observations `(To, ...)` by key, images as bytes or float32 in [0, 1], and its episode."""

    obs: Mapping[str, np.ndarray]
    episode: EpisodeState


class InferenceEngine:
    """Predicts actions for several clients.

    A client's action depends on its own observations and random stream alone, up to the rounding of float32, which
    differs between sizes of batches.

    Args:
        policy: in evaluation mode, on its device.
        spec: its shapes.
        max_batch: clients answered at a time.

    Attributes:
        seconds: what a prediction takes, by size of the batch; filled by `warm_up` with the sizes that pay.
    """

    def __init__(self, policy: Any, spec: PolicySpec, max_batch: int) -> None:
        self._policy = policy
        self._spec = spec
        self._remembers = type(policy).reset is not BasePolicy.reset
        self._max_batch = 1 if self._remembers else max_batch
        self.seconds: dict[int, float] = {}

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self._policy.device
        return device

    def use_device(self) -> None:
        """Makes the policy's GPU the calling thread's."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def warm_up(self) -> None:
        """Predicts for 1, 2, 4, ... clients, as long as that pays, and times it; GPUs compile and capture meanwhile."""
        self.use_device()
        size = 1
        while size <= self._max_batch:
            seconds = self._time(size)
            if size > 1 and seconds > WORTHWHILE * 2 * self.seconds[size // 2]:
                break
            self.seconds[size] = seconds
            size *= 2
        timings = ", ".join(f"{size}: {1e3 * seconds:.1f} ms" for size, seconds in self.seconds.items())
        logger.info("%s on %s, by clients at a time: %s", type(self._policy).__name__, self.device, timings)

    def batch_size(self, n_waiting: int) -> int:
        """How many of so many clients to answer next: as many as takes the least time for each."""
        best = min(self.seconds, key=lambda size: self.seconds[size] / min(size, n_waiting))
        return min(best, n_waiting)

    def predict(self, queries: Sequence[Query]) -> list[np.ndarray]:
        """Actions `(Ta, Da)` float32 for each client.

        Raises:
            DeviceError: the GPU failed.
            Exception: what else the policy raises; the random streams are then where they were.
        """
        size = next(size for size in (*sorted(self.seconds), len(queries)) if size >= len(queries))
        filled = [*queries, *(Query(queries[0].obs, EpisodeState()) for _ in range(size - len(queries)))]
        generators = [query.episode.generator for query in filled]
        states = [generator.get_state() for generator in generators]
        try:
            obs = {key: self._on_device([query.obs[key] for query in filled]) for key in queries[0].obs}
            self._policy.memory = queries[0].episode.memory
            result = self._policy.predict_action(obs, generator=generators)
            actions: np.ndarray = result["action"][: len(queries)].to("cpu", torch.float32).numpy()
        except Exception as error:
            if is_device_error(error):
                raise DeviceError(f"the GPU failed: {str(error).splitlines()[0]}") from error
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
            raise
        if self._remembers:
            queries[0].episode.memory = self._policy.memory
        return list(actions)

    def _on_device(self, rows: Sequence[np.ndarray]) -> Tensor:
        batch = torch.from_numpy(rows[0][None] if len(rows) == 1 else stack(rows)).to(self.device)
        return batch.float().div_(255) if batch.dtype == torch.uint8 else batch

    def _time(self, size: int) -> float:
        shapes = {key: (self._spec.n_obs_steps, *shape) for key, shape in self._spec.meta.obs.items()}
        cameras = self._spec.meta.rgb_keys
        obs = {key: np.zeros(shape, np.uint8 if key in cameras else np.float32) for key, shape in shapes.items()}
        times = []
        for _ in range(1 + TIMED_CALLS):
            start = time.perf_counter()
            self.predict([Query(obs, EpisodeState()) for _ in range(size)])
            times.append(time.perf_counter() - start)
        return min(times[1:])


def is_device_error(error: BaseException) -> bool:
    """Whether the GPU itself failed, after which every further result is doubtful."""
    kinds = (torch.AcceleratorError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(name in str(error) for name in ("CUDA error", "CUDNN_STATUS", "CUBLAS_"))
