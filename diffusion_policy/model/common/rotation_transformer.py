"""From one representation of rotations to another, and back."""

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_policy.model.common.rotation_conversions import FROM_MATRIX, TO_MATRIX

Rotations = TypeVar("Rotations", Tensor, NDArray)


class RotationTransformer:
    """Converts arrays or tensors of rotations, of any leading shape; type, dtype and device are kept.

    Representations: "axis_angle" `(..., 3)` (rad), "quaternion" `(..., 4)`, real part first, "rotation_6d" `(..., 6)`,
    "matrix" `(..., 3, 3)`, "euler_angles" `(..., 3)` (rad). What comes out has a real part of at least 0, an angle of
    at most pi.

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
    if isinstance(x, np.ndarray):
        return _convert(torch.from_numpy(np.ascontiguousarray(x)), from_, to).numpy()
    return FROM_MATRIX[to[0]](TO_MATRIX[from_[0]](x, *from_[1]), *to[1])
