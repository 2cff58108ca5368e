"""Limits hold for whatever trajectory is asked for; targets that no arm should go to are refused."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_policy.common.pose_trajectory_interpolator import PoseTrajectoryInterpolator, pose_distance
from diffusion_policy.real_world.motion_limits import MotionLimiter, MotionLimits, as_pose

DT = 0.008
WORKSPACE = ((-0.2, -0.2, 0.0), (0.2, 0.2, 0.3))
LIMITS = MotionLimits(0.25, 0.6, 6.0, 12.0, WORKSPACE)
START = np.array([0.1, 0.0, 0.1, 0.0, 3.1, 0.0])

coordinate = st.floats(-1, 1)
waypoint = st.tuples(st.floats(0.001, 0.5), st.tuples(*[coordinate] * 3), st.tuples(*[coordinate] * 3))


def moved(by: list[float]) -> np.ndarray:
    return START + np.array(by)


def drive(limiter: MotionLimiter, trajectory: PoseTrajectoryInterpolator, seconds: float) -> np.ndarray:
    """Commands `(T, 6)`, the resting pose first."""
    times = np.arange(1, round(seconds / DT) + 1) * DT
    return np.array([limiter.pose] + [limiter.step(trajectory, t) for t in times])


def check_limits(poses: np.ndarray, limits: MotionLimits = LIMITS) -> None:
    low, high = limits.box
    assert np.all(poses[:, :3] >= low - 1e-9)
    assert np.all(poses[:, :3] <= high + 1e-9)
    velocities = np.diff(poses[:, :3], axis=0, prepend=poses[:1, :3]) / DT
    assert np.linalg.norm(velocities, axis=1).max() <= limits.max_pos_speed + 1e-9
    accelerations = np.diff(velocities, axis=0) / DT
    assert np.linalg.norm(accelerations, axis=1).max() <= limits.max_pos_accel + 1e-6
    turns = [pose_distance(a, b)[1] for a, b in itertools.pairwise(poses)]
    assert max(turns) <= limits.max_rot_speed * DT + 1e-7
    spins = np.diff(turns, prepend=0) / DT**2
    assert np.abs(spins).max() <= limits.max_rot_accel + 1e-3


@settings(max_examples=40, deadline=None)
@given(st.lists(waypoint, min_size=1, max_size=6))
def test_every_command_keeps_every_limit(waypoints: list[tuple[float, tuple, tuple]]) -> None:
    """Waypoints anywhere, at any speed, in any order: also ones that the limits don't allow to be reached."""
    limiter = MotionLimiter(START, DT, LIMITS)
    times = np.cumsum([0.0] + [ahead for ahead, _, _ in waypoints])
    poses = [START] + [np.concatenate([position, rotation]) for _, position, rotation in waypoints]
    check_limits(drive(limiter, PoseTrajectoryInterpolator(times, poses), times[-1] + 0.5))


def test_it_comes_to_rest_at_the_end_without_passing_it() -> None:
    target = moved([0.05, 0, 0, 0, 0, 0])
    poses = drive(MotionLimiter(START, DT, LIMITS), PoseTrajectoryInterpolator([0, 0.01], [START, target]), 1.0)
    assert poses[:, 0].max() <= target[0] + 1e-9
    np.testing.assert_allclose(poses[-1], target, atol=1e-6)
    check_limits(poses)


def test_it_is_on_the_trajectory_between_waypoints_and_rounds_them() -> None:
    """0.1 m at 0.1 m/s and back: the way to speed and the turn take v^2 / a, about 3 mm."""
    there = moved([0, 0.1, 0.05, 0, 0, 0.1])
    trajectory = PoseTrajectoryInterpolator([0, 1, 2], [START, there, START])
    limiter = MotionLimiter(START, DT, LIMITS)
    poses = drive(limiter, trajectory, 2.2)
    times = np.arange(len(poses)) * DT
    errors = np.linalg.norm(poses[:, :3] - trajectory(times)[:, :3], axis=1)
    assert errors.max() < 0.004
    between = ((times > 0.2) & (times < 0.9)) | ((times > 1.2) & (times < 1.9))
    assert errors[between].max() < 1e-4
    check_limits(poses)


def test_it_stops_where_it_says_it_can() -> None:
    limiter = MotionLimiter(START, DT, LIMITS)
    far = PoseTrajectoryInterpolator([0, 1], [START, moved([-0.25, 0.05, 0, 0, 0, 0.6])])
    going = drive(limiter, far, 0.5)
    assert not limiter.is_at_rest
    stop = limiter.stopping_pose()
    moving = limiter.pose
    assert 0.004 < pose_distance(moving, stop)[0] < 0.011  # v^2 / (2 a / sqrt 3) = 9 mm
    poses = drive(limiter, PoseTrajectoryInterpolator([0], [stop]), 0.16)
    check_limits(np.concatenate([going, poses[1:]]))
    assert limiter.is_at_rest
    np.testing.assert_allclose(poses[-1], stop, atol=1e-4)


def test_an_arm_outside_the_workspace_stays_where_it_is_and_can_come_in() -> None:
    outside = np.array([0.3, 0.0, 0.1, 0.0, 3.1, 0.0])
    limiter = MotionLimiter(outside, DT, LIMITS)
    assert np.all(drive(limiter, PoseTrajectoryInterpolator([0], [outside]), 0.1) == limiter.pose)
    inside = drive(limiter, PoseTrajectoryInterpolator([0, 1], [outside, START]), 1.5)
    np.testing.assert_allclose(inside[-1], START, atol=1e-6)
    assert np.all(np.diff(inside[:, 0]) <= 1e-12)


def test_targets_are_moved_into_the_workspace() -> None:
    assert LIMITS.checked_target([0.4, -0.3, -0.1, 0, 3.1, 0], START).tolist() == [0.2, -0.2, 0.0, 0, 3.1, 0]
    assert MotionLimits().checked_target([0.4, -0.3, -0.1, 0, 3.1, 0], START)[0] == 0.4


@pytest.mark.parametrize(
    "bad", [[np.nan, 0, 0, 0, 0, 0], [0, 0, np.inf, 0, 0, 0], [0, 0, 0], np.zeros((1, 6)), None, {}]
)
def test_what_is_no_pose_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="six finite numbers"):
        as_pose(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="six finite numbers"):
        LIMITS.checked_target(bad, START)  # type: ignore[arg-type]


def test_far_targets_are_refused() -> None:
    limits = MotionLimits(max_target_distance=0.3, max_target_angle=0.5)
    for target in (moved([0.31, 0, 0, 0, 0, 0]), START * 1000, moved([0, 0, 0, 0, 0.6, 0])):
        with pytest.raises(ValueError, match="away from the tool"):
            limits.checked_target(target, START)
    limits.checked_target([0.1, 0, 0.1, 0, 3.1 - 2 * math.pi, 0], START)  # the same rotation, written otherwise


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_pos_speed": 0}, "max_pos_speed"),
        ({"max_rot_accel": -1}, "max_rot_accel"),
        ({"max_target_angle": math.nan}, "max_target_angle"),
        ({"workspace": ((0, 0, 0), (1, 1, 0))}, "workspace"),
        ({"workspace": ((0, 0), (1, 1))}, "workspace"),
    ],
)
def test_impossible_limits_are_refused(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MotionLimits(**arguments)
