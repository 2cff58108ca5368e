"""What the server knows of one client."""

from typing import Any

import numpy as np

from diffusion_policy.serving.engine import EpisodeState
from diffusion_policy.serving.limits import RateLimit, RequestError
from diffusion_policy.serving.observation_reader import History, Obs, ObservationReader
from diffusion_policy.serving.wire import unpack

RESET, SEED = "reset", "seed"


class Session:
    """One client's episode: its observations so far and its randomness.

    Args:
        name: of the client, for the log.
        reader: of observations.
        n_obs_steps: observations that the policy sees.
        max_rate: requests a second.
    """

    def __init__(self, name: str, reader: ObservationReader, n_obs_steps: int, max_rate: float) -> None:
        self.name = name
        self._reader = reader
        self._history = History(n_obs_steps)
        self.rate = RateLimit(max_rate)
        self.episode = EpisodeState()
        self.episode.generator.seed()
        self.n_refused = 0
        self.last_total_ms: float | None = None

    def read(self, packed: bytes) -> Obs | None:
        """What the policy is to see after a request, `(To, ...)` by key; nothing after a mere reset.

        Raises:
            WireError: it is no message.
            RequestError: it is not what this policy can answer. It has changed nothing.
        """
        message = unpack(packed)
        if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
            raise RequestError("a request is a map from names to arrays")
        values = {key: value for key, value in message.items() if key not in (RESET, SEED)}
        is_reset, seed = _flag(message.get(RESET, False)), _seed(message.get(SEED))
        obs = self._reader.read(values) if values or not (is_reset or seed is not None) else None
        if is_reset:
            self._history.clear()
            self.episode.memory = None
        if seed is not None:
            self.episode.generator.manual_seed(seed)
        return None if obs is None else self._history.add(obs)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise RequestError(f"{RESET} is a {type(value).__name__}, expected true or false")
    return bool(value)


def _seed(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**64:
        raise RequestError(f"{SEED} is no integer from 0 to 2^64 - 1")
    return int(value)
