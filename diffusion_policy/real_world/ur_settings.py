"""How to reach a UR robot, what it carries, how it servos."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class URSettings:
    """See `RTDEInterpolationController` for what each means.

    Raises:
        ValueError: one is of the wrong shape or out of range.
    """

    robot_ip: str
    receive_keys: Sequence[str]
    frequency: float
    lookahead_time: float
    gain: float
    tcp_offset_pose: Sequence[float] | None
    payload_mass: float | None
    payload_cog: Sequence[float] | None
    joints_init: Sequence[float] | None
    joints_init_speed: float
    soft_real_time: bool
    watchdog_frequency: float
    max_silence: float

    def __post_init__(self) -> None:
        _check_range("frequency", self.frequency, 1, 500)
        _check_range("lookahead_time", self.lookahead_time, 0.03, 0.2)
        _check_range("gain", self.gain, 100, 2000)
        _check_range("joints_init_speed", self.joints_init_speed, 0.01, 3.2)
        _check_range("watchdog_frequency", self.watchdog_frequency, 1, self.frequency / 2)
        _check_range("max_silence", self.max_silence, 2 / self.frequency, 2)
        if self.payload_mass is not None:
            _check_range("payload_mass", self.payload_mass, 0, 20)
        for name, size in (("tcp_offset_pose", 6), ("payload_cog", 3), ("joints_init", 6)):
            _check_vector(name, getattr(self, name), size)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {value}.")


def _check_vector(name: str, values: Sequence[float] | None, size: int) -> None:
    if values is None:
        return
    array = np.asarray(values, float)
    if array.shape != (size,) or not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be {size} finite numbers, got {values}.")
