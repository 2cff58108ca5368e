"""Where a UR arm's flange is, and which joint angles bring it there."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class URModel:
    """Denavit-Hartenberg lengths (m) as Universal Robots publishes them; the twists are those of every UR."""

    d1: float
    a2: float
    a3: float
    d4: float
    d5: float
    d6: float


UR5 = URModel(d1=0.089159, a2=-0.425, a3=-0.39225, d4=0.10915, d5=0.09465, d6=0.0823)
UR5E = URModel(d1=0.1625, a2=-0.425, a3=-0.3922, d4=0.1333, d5=0.0997, d6=0.0996)


def pose_to_matrix(pose: ArrayLike) -> Array:
    """Position and rotation vector `(6,)` as a transformation `(4, 4)`."""
    x, y, z, rx, ry, rz = np.asarray(pose, float).tolist()
    angle = math.sqrt(rx * rx + ry * ry + rz * rz)
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    if angle > 1e-12:
        kx, ky, kz = rx / angle, ry / angle, rz / angle
        s, c, v = math.sin(angle), math.cos(angle), 1 - math.cos(angle)
        matrix[:3, :3] = (
            (kx * kx * v + c, kx * ky * v - kz * s, kx * kz * v + ky * s),
            (kx * ky * v + kz * s, ky * ky * v + c, ky * kz * v - kx * s),
            (kx * kz * v - ky * s, ky * kz * v + kx * s, kz * kz * v + c),
        )
    return matrix


def matrix_to_pose(matrix: Array) -> Array:
    """The inverse of `pose_to_matrix`; rotation vectors are at most pi long."""
    (a, b, c), (d, e, f), (g, h, i) = matrix[:3, :3].tolist()
    # the largest of the quaternion's entries w, x, y, z first, so that half turns are exact too (Shepperd 1978)
    candidates = (
        (1 + a + e + i, h - f, c - g, d - b),
        (h - f, 1 + a - e - i, b + d, c + g),
        (c - g, b + d, 1 - a + e - i, f + h),
        (d - b, c + g, f + h, 1 - a - e + i),
    )
    largest = max(range(4), key=lambda n: candidates[n][n])
    w, x, y, z = candidates[largest]
    if w < 0:
        w, x, y, z = -w, -x, -y, -z
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2 * math.atan2(sine, w) / sine if sine > 0 else 0.0
    return np.array([*matrix[:3, 3].tolist(), x * scale, y * scale, z * scale])


def invert(matrix: Array) -> Array:
    """The inverse of a transformation `(4, 4)`."""
    inverse = np.eye(4)
    inverse[:3, :3] = matrix[:3, :3].T
    inverse[:3, 3] = -matrix[:3, :3].T @ matrix[:3, 3]
    return inverse


def _link(theta: float, d: float, a: float, twist: int) -> Array:
    """One joint and link; `twist` is -1, 0 or 1 quarter turns."""
    s, c = math.sin(theta), math.cos(theta)
    if twist == 0:
        rows = ((c, -s, 0.0, a * c), (s, c, 0.0, a * s), (0.0, 0.0, 1.0, d), (0.0, 0.0, 0.0, 1.0))
    else:
        rows = ((c, 0.0, twist * s, a * c), (s, 0.0, -twist * c, a * s), (0.0, twist, 0.0, d), (0.0, 0.0, 0.0, 1.0))
    return np.array(rows)


def forward(model: URModel, q: ArrayLike) -> Array:
    """The flange `(4, 4)` in the base frame at joint angles `q` `(6,)` (rad)."""
    q1, q2, q3, q4, q5, q6 = np.asarray(q, float).tolist()
    return (
        _link(q1, model.d1, 0, 1)
        @ _link(q2, 0, model.a2, 0)
        @ _link(q3, 0, model.a3, 0)
        @ _link(q4, model.d4, 0, 1)
        @ _link(q5, model.d5, 0, -1)
        @ _link(q6, model.d6, 0, 0)
    )


def inverse(model: URModel, flange: Array, near: ArrayLike) -> Array | None:
    """The joint angles `(6,)` for `flange` `(4, 4)` nearest to `near` `(6,)`; None out of reach.

    In closed form (Hawkins 2013, "Analytic inverse kinematics for the Universal Robots UR-5/UR-10 arms").
    """
    near_q = np.asarray(near, float)
    solutions = list(_solutions(model, flange, near_q[5]))
    if not solutions:
        return None
    turns = np.array(solutions)
    turns += 2 * np.pi * np.round((near_q - turns) / (2 * np.pi))
    best: Array = turns[np.argmin(np.abs(turns - near_q).sum(axis=1))]
    return best


def _solutions(model: URModel, flange: Array, free_q6: float) -> "itertools.chain[tuple[float, ...]]":
    wrist = flange[:3, 3] - model.d6 * flange[:3, 2]
    reach = math.hypot(wrist[0], wrist[1])
    if reach < model.d4:
        return itertools.chain()
    shoulder = math.acos(model.d4 / reach)
    base = math.atan2(wrist[1], wrist[0]) + math.pi / 2
    return itertools.chain.from_iterable(
        _wrist_solutions(model, flange, q1, sign, free_q6)
        for q1, sign in itertools.product((base + shoulder, base - shoulder), (1, -1))
    )


def _wrist_solutions(model: URModel, flange: Array, q1: float, sign: int, free_q6: float) -> list[tuple[float, ...]]:
    s1, c1 = math.sin(q1), math.cos(q1)
    c5 = (flange[0, 3] * s1 - flange[1, 3] * c1 - model.d4) / model.d6
    if abs(c5) > 1 + 1e-9:
        return []
    q5 = sign * math.acos(max(-1.0, min(1.0, c5)))
    s5 = math.sin(q5)
    q6 = free_q6
    if abs(s5) > 1e-6:  # else joints 4 and 6 turn about the same axis
        q6 = math.atan2((flange[1, 1] * c1 - flange[0, 1] * s1) / s5, (flange[0, 0] * s1 - flange[1, 0] * c1) / s5)
    forearm = (
        invert(_link(q1, model.d1, 0, 1)) @ flange @ invert(_link(q5, model.d5, 0, -1) @ _link(q6, model.d6, 0, 0))
    )
    elbow = forearm[:3, 3] - model.d4 * forearm[:3, 1]
    span = math.hypot(elbow[0], elbow[1])
    c3 = (span**2 - model.a2**2 - model.a3**2) / (2 * model.a2 * model.a3)
    if abs(c3) > 1:
        return []
    solutions: list[tuple[float, ...]] = []
    for q3 in (math.acos(c3), -math.acos(c3)):
        q2 = math.atan2(elbow[1], elbow[0]) - math.atan2(model.a3 * math.sin(q3), model.a2 + model.a3 * math.cos(q3))
        q4 = math.atan2(forearm[1, 0], forearm[0, 0]) - q2 - q3
        solutions.append((q1, q2, q3, q4, q5, q6))
    return solutions
