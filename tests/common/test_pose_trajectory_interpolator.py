import itertools
from pathlib import Path

import numpy as np
import pytest
from fixtures import Fixture, load_fixture
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.common.pose_trajectory_interpolator import PoseTrajectoryInterpolator, pose_distance

POSES = np.array([[0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0.5], [1, 2, 0, 0.3, 0, 0.5]], float)
TARGET = np.array([2, 1, 0, 0, 0.2, 1])


@pytest.fixture(scope="module")
def fixture(compat: Path) -> Fixture:
    return load_fixture(compat, "l_pose_interp")


@pytest.fixture
def trajectory(fixture: Fixture) -> PoseTrajectoryInterpolator:
    return PoseTrajectoryInterpolator(fixture.arrays["in/times"], fixture.arrays["in/poses"])


def check(actual: PoseTrajectoryInterpolator, fixture: Fixture, case: str) -> None:
    np.testing.assert_allclose(actual.times, fixture.arrays[f"out/{case}/times"], atol=1e-12)
    np.testing.assert_allclose(actual.poses, fixture.arrays[f"out/{case}/poses"], atol=1e-12)


def test_poses_equal_the_originals(fixture: Fixture, trajectory: PoseTrajectoryInterpolator) -> None:
    query = fixture.arrays["in/query"]
    np.testing.assert_allclose(trajectory(query), fixture.arrays["out/base/query"], atol=1e-12)
    np.testing.assert_allclose(trajectory(1.7), fixture.arrays["out/base/scalar_1.7"], atol=1e-12)
    single = PoseTrajectoryInterpolator([1.0], [fixture.arrays["in/poses"][1]])
    np.testing.assert_allclose(single(query), fixture.arrays["out/single/query"], atol=1e-12)


def test_trimmed_and_driven_trajectories_equal_the_originals(
    fixture: Fixture, trajectory: PoseTrajectoryInterpolator
) -> None:
    target = fixture.arrays["in/target"]
    checked = 0
    for case, arguments in fixture.meta["cases"].items():
        if case.startswith("trim"):
            check(trajectory.trim(**arguments), fixture, case)
            checked += 1
        elif case.startswith("drive"):
            del arguments["method"]
            check(trajectory.drive_to_waypoint(target, **arguments), fixture, case)
            checked += 1
    assert checked == 7


def test_scheduled_trajectories_equal_the_originals(fixture: Fixture, trajectory: PoseTrajectoryInterpolator) -> None:
    checked = 0
    for case, facts in fixture.meta["cases"].items():
        if not case.startswith("sched") or facts.get("raises"):
            continue
        arguments = {key: value for key, value in facts.items() if key not in ("method", "same_object_returned")}
        scheduled = trajectory.schedule_waypoint(fixture.arrays["in/target"], **arguments)
        check(scheduled, fixture, case)
        if f"out/{case}/query" in fixture.arrays:
            expected = fixture.arrays[f"out/{case}/query"]
            np.testing.assert_allclose(scheduled(np.linspace(0, 6, 13)), expected, atol=1e-12)
        assert (scheduled is trajectory) == facts["same_object_returned"]
        checked += 1
    assert checked == 8


def test_a_controllers_sequence_equals_the_originals(fixture: Fixture) -> None:
    poses = fixture.arrays["in/poses"]
    trajectory, last = PoseTrajectoryInterpolator([10.0], [poses[0]]), 10.0
    for i, (now, target_time) in enumerate(fixture.meta["cases"]["seq"]["curr_time,target_time"]):
        trajectory = trajectory.schedule_waypoint(poses[i], target_time, 0.25, 0.6, now, last)
        last = target_time
        check(trajectory, fixture, f"seq{i}")


def test_pose_distance_equals_the_originals(fixture: Fixture) -> None:
    poses = fixture.arrays["in/poses"]
    assert pose_distance(poses[0], poses[3]) == pytest.approx(fixture.arrays["out/pose_distance_0_3"])
    assert pose_distance(poses[1], poses[2]) == pytest.approx(fixture.arrays["out/pose_distance_1_2"])


@pytest.mark.parametrize("time", [2.0, 1.0, 0.5, 0.0])
def test_a_waypoint_before_the_last_one_replaces_what_came_later(time: float) -> None:
    """The original raises, as two waypoints get the same time."""
    scheduled = PoseTrajectoryInterpolator([0, 1, 2.5], POSES).schedule_waypoint(TARGET, time)
    assert scheduled.times[-1] == time
    np.testing.assert_allclose(scheduled(time), TARGET, atol=1e-12)
    np.testing.assert_allclose(scheduled(9.0), TARGET, atol=1e-12)


@given(
    times=st.lists(st.floats(0.01, 3), min_size=1, max_size=8),
    targets=st.lists(st.tuples(*[st.floats(-1, 1)] * 6), min_size=8, max_size=8),
)
def test_scheduled_waypoints_never_exceed_the_speeds(times: list[float], targets: list[tuple[float, ...]]) -> None:
    trajectory, now, last = PoseTrajectoryInterpolator([0.0], [np.zeros(6)]), 0.0, 0.0
    driven = [trajectory(0.0)]
    for ahead, target in zip(times, targets, strict=False):
        trajectory = trajectory.schedule_waypoint(target, now + ahead, 0.25, 0.6, now, last)
        last = now + ahead
        driven += list(trajectory(np.linspace(now, now + 0.1, 11))[1:])
        now += 0.1
    for before, after in itertools.pairwise(driven):
        distance, angle = pose_distance(before, after)
        assert distance <= 0.25 * 0.01 + 1e-9
        assert angle <= 0.6 * 0.01 + 1e-7


@pytest.mark.parametrize(
    ("times", "poses"), [([], np.zeros((0, 6))), ([0, 0], POSES[:2]), ([1, 0], POSES[:2]), ([0], np.zeros((1, 7)))]
)
def test_impossible_waypoints_are_refused(times: list[float], poses: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"ascend|need times"):
        PoseTrajectoryInterpolator(times, poses)


def test_a_last_waypoint_time_needs_the_current_time() -> None:
    with pytest.raises(ValueError, match="curr_time"):
        PoseTrajectoryInterpolator([0], POSES[:1]).schedule_waypoint(TARGET, 1.0, last_waypoint_time=0.5)
