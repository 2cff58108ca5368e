"""What the simulated robot's tool did, tick by tick, as the robot itself saw it."""

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.shared_memory.shared_memory_util import SharedAtomicCounter
from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray


class MotionLog:
    """An `on_tick` for `SimulatedUR`; readable here while it fills there.

    Args:
        n: ticks that it keeps, from the first on.
    """

    def __init__(self, n: int = 50_000) -> None:
        self._rows: SharedNDArray[np.float64] = SharedNDArray.create_from_shape(None, (n, 7), np.float64)
        self._n_rows = SharedAtomicCounter(None)

    def __call__(self, now: float, pose: NDArray[np.float64]) -> None:
        n = self._n_rows.load()
        if n < self._rows.shape[0]:
            self._rows.get()[n] = now, *pose
            self._n_rows.store(n + 1)

    def read(self, since: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times (monotonic, s) `(T,)` and poses `(T, 6)`, from the last tick before `since` on."""
        rows = self._rows.get()[: self._n_rows.load()]
        first = max(int(np.searchsorted(rows[:, 0], since)) - 1, 0)
        return rows[first:, 0].copy(), rows[first:, 1:].copy()

    def speeds(self, dt: float, since: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times `(T,)` from `since` on and the tool's speeds (m/s) `(T,)`, given the robot's tick `dt` (s)."""
        times, poses = self.read(since)
        return times[1:], np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1) / dt

    def seconds_to_rest(self, since: float, dt: float, slow: float = 0.001) -> float:
        """From the time `since` until the tool was slower than `slow` (m/s) for good."""
        times, speeds = self.speeds(dt, since)
        moving = np.flatnonzero(speeds > slow)
        return float(times[moving[-1]] - since) if len(moving) else 0.0
