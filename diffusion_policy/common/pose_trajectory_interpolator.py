"""Poses `(6,)` over time, position (m) and rotation vector (rad): from waypoint to waypoint straight and evenly."""

import functools
import numbers
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

Array = NDArray[np.float64]


def rotation_distance(a: Rotation, b: Rotation) -> float:
    """Angle (rad) of the turn from `a` to `b`."""
    return float((b * a.inv()).magnitude())


def pose_distance(start_pose: ArrayLike, end_pose: ArrayLike) -> tuple[float, float]:
    """Distance (m) and angle (rad) between two poses `(6,)`."""
    start, end = np.asarray(start_pose, float), np.asarray(end_pose, float)
    turn = rotation_distance(Rotation.from_rotvec(start[3:]), Rotation.from_rotvec(end[3:]))
    return float(np.linalg.norm(end[:3] - start[:3])), turn


class PoseTrajectoryInterpolator:
    """A trajectory through waypoints; before the first and after the last it rests. It never changes: methods return
    new ones.

    Args:
        times: of the waypoints (s), ascending.
        poses: of the waypoints, `(N, 6)`.

    Raises:
        ValueError: there is no waypoint, times do not ascend, or shapes differ from these.
    """

    def __init__(self, times: ArrayLike, poses: ArrayLike) -> None:
        self._times: Array = np.array(times, float)
        self._poses: Array = np.array(poses, float)
        n = len(self._times)
        if n == 0 or self._times.ndim != 1 or self._poses.shape != (n, 6):
            raise ValueError(
                f"Waypoints need times (N,) and poses (N, 6), got {self._times.shape} and {self._poses.shape}."
            )
        if not np.all(np.diff(self._times) > 0):
            raise ValueError(f"Times of waypoints must ascend, got {self._times.tolist()}.")

    @functools.cached_property
    def _slerp(self) -> Slerp:
        return Slerp(self._times, Rotation.from_rotvec(self._poses[:, 3:]))

    @property
    def times(self) -> Array:
        """`(N,)`, s."""
        return self._times

    @property
    def poses(self) -> Array:
        """`(N, 6)`, m and rad."""
        return self._poses

    def __call__(self, t: float | ArrayLike) -> Array:
        """The pose `(6,)` at a time, or the poses `(T, 6)` at times `(T,)`."""
        times = np.clip(np.atleast_1d(np.asarray(t, float)), self._times[0], self._times[-1])
        if len(self._times) == 1:
            poses = np.repeat(self._poses, len(times), axis=0)
        else:
            positions = [np.interp(times, self._times, self._poses[:, axis]) for axis in range(3)]
            poses = np.column_stack([*positions, self._slerp(times).as_rotvec()])
        return poses[0] if isinstance(t, numbers.Number) or np.ndim(t) == 0 else poses

    def trim(self, start_t: float, end_t: float) -> "PoseTrajectoryInterpolator":
        """The part from `start_t` to `end_t`, which become its first and last waypoint.

        Raises:
            ValueError: it ends before it starts.
        """
        if start_t > end_t:
            raise ValueError(f"A part cannot start at {start_t} and end at {end_t}, which is earlier.")
        inner = self._times[(start_t < self._times) & (self._times < end_t)]
        times = np.unique([start_t, *inner, end_t])
        return PoseTrajectoryInterpolator(times, self(times))

    def drive_to_waypoint(
        self,
        pose: ArrayLike,
        time: float,
        curr_time: float,
        max_pos_speed: float = np.inf,
        max_rot_speed: float = np.inf,
    ) -> "PoseTrajectoryInterpolator":
        """From where it is at `curr_time` straight to `pose` `(6,)`, there at `time` or, as speeds (m/s, rad/s) allow,
        later."""
        time = max(time, curr_time)
        return self.trim(curr_time, curr_time)._then(pose, time, max_pos_speed, max_rot_speed)

    def schedule_waypoint(
        self,
        pose: ArrayLike,
        time: float,
        max_pos_speed: float = np.inf,
        max_rot_speed: float = np.inf,
        curr_time: float | None = None,
        last_waypoint_time: float | None = None,
    ) -> "PoseTrajectoryInterpolator":
        """The trajectory with `pose` `(6,)` at `time`, or, as speeds (m/s, rad/s) allow, later, and nothing after it.

        Args:
            pose: the new last waypoint.
            time: when to be there. If that is past (`time <= curr_time`) nothing is scheduled.
            max_pos_speed: of the way there from the waypoint before.
            max_rot_speed: likewise.
            curr_time: what lies before is forgotten. Given alone, what lies after is as well: the way leads from there.
            last_waypoint_time: when the waypoint scheduled before is due; up to it the trajectory stays as it is if
                `time` is later. Needs `curr_time`.

        Raises:
            ValueError: `last_waypoint_time` without `curr_time`.
        """
        if curr_time is None:
            if last_waypoint_time is not None:
                raise ValueError("last_waypoint_time is of use with curr_time only: give both.")
            start, kept_until = self._times[0], self._times[-1]
        elif time <= curr_time:
            return self
        else:
            start = max(curr_time, self._times[0])
            follows = last_waypoint_time is not None and time > last_waypoint_time
            kept_until = max(last_waypoint_time, curr_time) if follows and last_waypoint_time else curr_time
        kept_until = min(kept_until, time)
        return self.trim(min(start, kept_until), kept_until)._then(pose, time, max_pos_speed, max_rot_speed)

    def _then(
        self, pose: ArrayLike, time: float, max_pos_speed: float, max_rot_speed: float
    ) -> "PoseTrajectoryInterpolator":
        distance, angle = pose_distance(self._poses[-1], pose)
        end = self._times[-1]
        due = end + max(time - end, distance / max_pos_speed, angle / max_rot_speed)
        n_kept = np.searchsorted(self._times, due)  # a waypoint at this very time gives way
        times: Sequence[float] = [*self._times[:n_kept], due]
        return PoseTrajectoryInterpolator(times, [*self._poses[:n_kept], np.asarray(pose, float)])
