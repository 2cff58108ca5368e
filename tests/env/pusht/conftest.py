"""The published demonstrations and the original simulator's figures, as the Push-T tests read them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr


@dataclass
class Demonstrations:
    """The published dataset: `data[key][start:end]` is an episode for each of `bounds`."""

    data: dict[str, np.ndarray]
    images: zarr.Array
    bounds: list[tuple[int, int]]


@pytest.fixture(scope="session")
def demonstrations(real_pusht: Path) -> Demonstrations:
    root = zarr.open_group(zarr.storage.ZipStore(real_pusht, mode="r"), mode="r")
    data = {key: root["data"][key][:] for key in ("state", "action", "keypoint", "n_contacts")}
    ends = root["meta/episode_ends"][:].tolist()
    return Demonstrations(data, root["data/img"], list(zip([0, *ends[:-1]], ends, strict=True)))


@pytest.fixture(scope="session")
def original(compat: Path) -> Any:
    """Arrays of the original simulator, by name."""
    return np.load(compat / "numerics" / "m_pusht.npz")


@pytest.fixture(scope="session")
def original_rendering(compat: Path) -> dict[str, Any]:
    """Figures of the original simulator's images, drawn by pygame 2.1 as the published ones."""
    text = (compat / "numerics" / "m_pusht.json").read_text()
    return json.loads(text)["pinned_stack"]["data"]
