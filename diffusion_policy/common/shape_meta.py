"""`shape_meta` of a config: which cameras and sensors a task has, and the shapes of their data and of an action."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TYPES = ("rgb", "low_dim")


@dataclass(frozen=True)
class ShapeMeta:
    """A task's observations and action.

    Attributes:
        obs: shape of each observation by key, in the order of the config: `(C, H, W)` of a camera, `(D,)` of a
            sensor.
        rgb_keys: the cameras among them.
        low_dim_keys: the sensors among them.
        action_dim: length Da of an action.
    """

    obs: dict[str, tuple[int, ...]]
    rgb_keys: tuple[str, ...]
    low_dim_keys: tuple[str, ...]
    action_dim: int

    @classmethod
    def parse(cls, shape_meta: Mapping[str, Any]) -> "ShapeMeta":
        """Reads `{"obs": {key: {"shape": [...], "type": "rgb" | "low_dim"}}, "action": {"shape": [Da]}}`.

        Raises:
            ValueError: naming the key at fault.
        """
        for section in ("obs", "action"):
            if section not in shape_meta:
                raise ValueError(f"shape_meta has no {section!r}; it has {sorted(map(str, shape_meta))}")
        obs: dict[str, tuple[int, ...]] = {}
        keys: dict[str, list[str]] = {kind: [] for kind in TYPES}
        for key, attributes in shape_meta["obs"].items():
            kind = attributes.get("type", "low_dim")
            if kind not in TYPES:
                raise ValueError(f"shape_meta.obs.{key} has type {kind!r}, expected one of {', '.join(TYPES)}")
            obs[key] = _shape(attributes, f"obs.{key}", "C, H, W" if kind == "rgb" else "D")
            keys[kind].append(key)
        if not obs:
            raise ValueError("shape_meta.obs is empty: name at least one camera or sensor")
        (action_dim,) = _shape(shape_meta["action"], "action", "Da")
        return cls(obs, tuple(keys["rgb"]), tuple(keys["low_dim"]), action_dim)


@contextmanager
def naming_camera(key: str) -> Iterator[None]:
    """Names the camera in a ValueError of what the block builds for it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"camera {key!r}: {error}") from None


def _shape(attributes: Mapping[str, Any], where: str, expected: str) -> tuple[int, ...]:
    shape = tuple(attributes.get("shape", ()))
    if len(shape) != len(expected.split(", ")) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"shape_meta.{where}.shape is {list(shape)}, expected [{expected}], positive integers")
    return shape
