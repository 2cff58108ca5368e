"""From one representation of rotations to another, and back."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

Rotations = TypeVar("Rotations", Tensor, NDArray)


class RotationTransformer:
    """Converts arrays or tensors of rotations, of any leading shape; type, dtype and device are kept.

    Representations: "axis_angle" `(..., 3)` (rad), "quaternion" `(..., 4)`, real part first, "rotation_6d" `(..., 6)`,
    the matrix's first two rows, "matrix" `(..., 3, 3)`, "euler_angles" `(..., 3)` (rad). What comes out has a real part
    of at least 0, an angle of at most pi.

    Args:
        from_rep: representation that `forward` takes.
        to_rep: representation that it gives.
        from_convention: of euler angles: axes such as "XYZ", neighbours different.
        to_convention: likewise.
    """

    valid_reps = ["axis_angle", "euler_angles", "quaternion", "rotation_6d", "matrix"]

    def __init__(
        self,
        from_rep: str = "axis_angle",
        to_rep: str = "rotation_6d",
        from_convention: str | None = None,
        to_convention: str | None = None,
    ) -> None:
        if from_rep == to_rep:
            raise ValueError(f"from_rep and to_rep are both {from_rep!r}: there is nothing to convert")
        self._from = from_rep, _convention("from", from_rep, from_convention)
        self._to = to_rep, _convention("to", to_rep, to_convention)

    def forward(self, x: Rotations) -> Rotations:
        """From `from_rep` to `to_rep`."""
        return _convert(x, self._from, self._to)

    def inverse(self, x: Rotations) -> Rotations:
        """From `to_rep` to `from_rep`."""
        return _convert(x, self._to, self._from)


def _convention(which: str, rep: str, convention: str | None) -> tuple[str, ...]:
    if rep not in RotationTransformer.valid_reps:
        raise ValueError(f"{which}_rep is {rep!r}, expected one of {RotationTransformer.valid_reps}")
    if rep != "euler_angles":
        return ()
    axes = convention or ""
    if len(axes) != 3 or set(axes) - set("XYZ") or axes[1] in (axes[0], axes[2]):
        raise ValueError(f"euler_angles need a {which}_convention such as 'XYZ', got {convention!r}")
    return (axes,)


def _convert(x: Rotations, from_: tuple[str, tuple[str, ...]], to: tuple[str, tuple[str, ...]]) -> Rotations:
    if isinstance(x, Tensor):
        converted = _convert(x.detach().cpu().numpy(), from_, to)
        return torch.from_numpy(converted).to(x.device)
    entries = x.shape[len(x.shape) - (2 if from_[0] == "matrix" else 1) :]
    leading = x.shape[: len(x.shape) - len(entries)]
    flat = x.reshape(-1, *entries).astype(np.float64)
    converted = _FROM_ROTATION[to[0]](_TO_ROTATION[from_[0]](flat, *from_[1]), *to[1])
    return converted.reshape(*leading, *converted.shape[1:]).astype(x.dtype)


def _from_rows(rows: NDArray) -> Rotation:
    """Any six numbers `(N, 6)`: two rows made orthonormal, and their cross product (Zhou et al. 2019, section 4)."""
    first, second = rows[:, :3], rows[:, 3:]
    first = first / np.linalg.norm(first, axis=1, keepdims=True)
    second = second - (first * second).sum(axis=1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=1, keepdims=True)
    return Rotation.from_matrix(np.stack((first, second, np.cross(first, second)), axis=1))


_TO_ROTATION: dict[str, Callable[..., Rotation]] = {
    "axis_angle": Rotation.from_rotvec,
    "quaternion": lambda x: Rotation.from_quat(x, scalar_first=True),
    "rotation_6d": _from_rows,
    "euler_angles": lambda x, axes: Rotation.from_euler(axes, x),
    "matrix": Rotation.from_matrix,
}
_FROM_ROTATION: dict[str, Callable[..., NDArray]] = {
    "axis_angle": Rotation.as_rotvec,
    "quaternion": lambda rotation: rotation.as_quat(canonical=True, scalar_first=True),
    "rotation_6d": lambda rotation: rotation.as_matrix()[:, :2].reshape(-1, 6),
    "euler_angles": lambda rotation, axes: rotation.as_euler(axes),
    "matrix": Rotation.as_matrix,
}
