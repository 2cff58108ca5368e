"""The state of every random generator a run draws from."""

import hashlib
import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seeds torch (all devices), numpy and random; on GPUs has convolutions round the same each time."""
    torch.backends.cudnn.deterministic = True
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def process_seed(seed: int, rank: int, step: int) -> int:
    """A seed for one of the processes that train together from a step on, unlike the others' and unlike `seed`."""
    digest = hashlib.sha256(f"{seed} {rank} {step}".encode()).digest()
    return int.from_bytes(digest[:4], "little")  # numpy takes no more


def get_random_state() -> dict[str, Any]:
    """State of the generators, as tensors and numbers."""
    version, internal, gauss = random.getstate()
    _, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "random": [version, list(internal), gauss],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores `get_random_state()`; GPU generators only where there are as many as there were."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), *rest))
    version, internal, gauss = state["random"]
    random.setstate((version, tuple(internal), gauss))
