"""Reading of the numeric fixtures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Fixture:
    """One `.npz`: `meta` is JSON, arrays are grouped by a prefix such as `w/`, `in/`, `out/`."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as archive:
            self.arrays = {key: archive[key] for key in archive.files if key != "meta"}
            self.meta: dict[str, Any] = json.loads(str(archive["meta"])) if "meta" in archive.files else {}

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): torch.from_numpy(value)
            for key, value in self.arrays.items()
            if key.startswith(prefix)
        }

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])


def load_fixture(compat: Path, name: str) -> Fixture:
    return Fixture(compat / "numerics" / f"{name}.npz")
