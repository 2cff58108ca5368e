"""A served policy in the place of one in this process, for evaluation."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.serving.client import PolicyClient


class RemotePolicy:
    """Asks a server for actions; runners take it for a policy.

    Each row of a batch is a client of its own, so the server keeps its episodes apart. With generators, the server
    draws what they would draw here: scores are those of the policy in this process.

    Args:
        connect: makes a client.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, connect: Callable[[], PolicyClient]) -> None:
        self._connect = connect
        self._clients: list[PolicyClient] = []
        self._generators: list[torch.Generator | None] = []
        self._threads = ThreadPoolExecutor(thread_name_prefix="remote policy")

    def reset(self) -> None:
        """Starts episodes."""
        self._generators = [None] * len(self._clients)
        for client in self._clients:
            client.reset()

    def predict_action(
        self, obs_dict: Mapping[str, Any], generator: Sequence[torch.Generator] | None = None
    ) -> dict[str, Tensor]:
        """Actions `(B, Ta, Da)` as `action`, given observations `(B, >= To, ...)` by key, and maybe others.

        A row's generator is one of an episode: the server draws on from its seed for as long as it stays the same.
        """
        rows = len(next(iter(obs_dict.values())))
        while len(self._clients) < rows:
            self._clients.append(self._connect())
            self._generators.append(None)
        generators = [None] * rows if generator is None else list(generator)
        answers = self._threads.map(lambda row: self._ask(row, obs_dict, generators[row]), range(rows))
        return {"action": torch.from_numpy(np.stack(list(answers)))}

    def close(self) -> None:
        """Ends the connections."""
        for client in self._clients:
            client.close()
        self._threads.shutdown()

    def _ask(self, row: int, obs_dict: Mapping[str, Any], generator: torch.Generator | None) -> np.ndarray:
        client, seed = self._clients[row], None
        if generator is not None and generator is not self._generators[row]:
            self._generators[row], seed = generator, generator.initial_seed()
        metadata = client.get_server_metadata()
        keys, n_steps = metadata["shape_meta"]["obs"], metadata["n_obs_steps"]
        obs = {key: np.asarray(value[row, :n_steps]) for key, value in obs_dict.items() if key in keys}
        actions: np.ndarray = client.infer(obs, seed)["actions"]
        return actions
