"""Representations of rotations, each to and from matrices `(..., 3, 3)` that act on column vectors.

Quaternions have the real part first. The six numbers are the matrix's first two rows (Zhou et al. 2019, On the
Continuity of Rotation Representations in Neural Networks), so any six numbers stand for a rotation.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_SMALL_ANGLE = 1e-6  # rad, below which series stand in for quotients that vanish


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """`(..., 4)`, of any length but 0, to `(..., 3, 3)`."""
    w, x, y, z = quaternion.unbind(-1)
    s = 2 / quaternion.square().sum(-1)
    rows = [
        [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
        [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
        [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """`(..., 3, 3)` to unit quaternions `(..., 4)` with a real part that is not negative."""
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    # Each row is four times the quaternion, times one of its entries: the largest entry rounds least.
    diagonal = 2 * torch.stack([m[..., i, i] for i in range(3)], -1) - trace[..., None]
    differences = [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]]
    sums = {(i, j): m[..., i, j] + m[..., j, i] for i in range(3) for j in range(i + 1, 3)}
    rows = [
        [1 + trace, *differences],
        [differences[0], 1 + diagonal[..., 0], sums[0, 1], sums[0, 2]],
        [differences[1], sums[0, 1], 1 + diagonal[..., 1], sums[1, 2]],
        [differences[2], sums[0, 2], sums[1, 2], 1 + diagonal[..., 2]],
    ]
    candidates = torch.stack([torch.stack(row, -1) for row in rows], -2)
    largest = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4)).squeeze(-2)
    quaternion = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rotation vectors `(..., 3)` (rad) to `(..., 3, 3)`."""
    angle = axis_angle.norm(dim=-1, keepdim=True)
    half = angle / 2
    # sin(angle / 2) / angle
    factor = torch.where(angle < _SMALL_ANGLE, 0.5 - angle.square() / 48, half.sin() / angle.clamp(min=_SMALL_ANGLE))
    return quaternion_to_matrix(torch.cat((half.cos(), axis_angle * factor), -1))


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """`(..., 3, 3)` to rotation vectors `(..., 3)` (rad) of at most pi."""
    quaternion = matrix_to_quaternion(matrix)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    sine = imaginary.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, real)
    factor = torch.where(sine < _SMALL_ANGLE, 2 / real.clamp(min=0.5), angle / sine.clamp(min=_SMALL_ANGLE))
    return imaginary * factor


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """`(..., 6)` to `(..., 3, 3)`: the two rows made orthonormal, and their cross product."""
    first = torch.nn.functional.normalize(rotation_6d[..., :3], dim=-1)
    second = rotation_6d[..., 3:]
    second = second - (first * second).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack((first, second, torch.linalg.cross(first, second)), -2)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """`(..., 3, 3)` to `(..., 6)`."""
    return matrix[..., :2, :].flatten(-2)


def euler_angles_to_matrix(angles: Tensor, convention: str) -> Tensor:
    """Angles `(..., 3)` (rad) about the axes that `convention` names, such as "XYZ": the product in that order."""
    first, second, third = (_about(axis, angles[..., i]) for i, axis in enumerate(convention))
    return first @ second @ third


def matrix_to_euler_angles(matrix: Tensor, convention: str) -> Tensor:
    """Inverse of `euler_angles_to_matrix`: the second angle in [-pi/2, pi/2], or [0, pi] where axes repeat."""
    i, j, k = ("XYZ".index(axis) for axis in convention)
    if i != k:
        sign = 1.0 if (j - i) % 3 == 1 else -1.0
        second = torch.asin((sign * matrix[..., i, k]).clamp(-1, 1))
        first = torch.atan2(-sign * matrix[..., j, k], matrix[..., k, k])
        third = torch.atan2(-sign * matrix[..., i, j], matrix[..., i, i])
        return torch.stack((first, second, third), -1)
    other = 3 - i - j
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    second = torch.acos(matrix[..., i, i].clamp(-1, 1))
    first = torch.atan2(matrix[..., j, i], -sign * matrix[..., other, i])
    third = torch.atan2(matrix[..., i, j], sign * matrix[..., i, other])
    return torch.stack((first, second, third), -1)


def _about(axis: str, angle: Tensor) -> Tensor:
    vector = torch.zeros(*angle.shape, 3, dtype=angle.dtype, device=angle.device)
    vector[..., "XYZ".index(axis)] = angle
    return axis_angle_to_matrix(vector)


Conversion = Callable[..., Tensor]
TO_MATRIX: dict[str, Conversion] = {
    "axis_angle": axis_angle_to_matrix,
    "quaternion": quaternion_to_matrix,
    "rotation_6d": rotation_6d_to_matrix,
    "euler_angles": euler_angles_to_matrix,
    "matrix": lambda matrix: matrix,
}
FROM_MATRIX: dict[str, Conversion] = {
    "axis_angle": matrix_to_axis_angle,
    "quaternion": matrix_to_quaternion,
    "rotation_6d": matrix_to_rotation_6d,
    "euler_angles": matrix_to_euler_angles,
    "matrix": lambda matrix: matrix,
}
