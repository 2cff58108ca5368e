"""The arm's controller drives the simulated robot, through the real client library."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from motion_log import MotionLog

from diffusion_policy.common.pose_trajectory_interpolator import pose_distance
from diffusion_policy.real_world.motion_limits import MotionLimits
from diffusion_policy.real_world.robot_fault import FaultKind, RobotFaultError
from diffusion_policy.real_world.rtde_interpolation_controller import Command, RTDEInterpolationController
from diffusion_policy.real_world.sim.ur_controller import HOME, SimulatedUR

CB3 = 1 / 125


def connect(robot: SimulatedUR, **settings: Any) -> RTDEInterpolationController:
    """In real time where that is allowed: this machine may be busy."""
    return RTDEInterpolationController(None, robot.host, soft_real_time=True, **settings)


def start_pose(controller: RTDEInterpolationController) -> np.ndarray:
    return controller.get_state()["ActualTCPPose"]


def arrives(robot: SimulatedUR, target: np.ndarray, within: float = 1e-4) -> bool:
    deadline = time.monotonic() + 10
    while not np.allclose(robot.state()["pose"], target, atol=within):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_waypoints_are_passed_in_time() -> None:
    log = MotionLog()
    with (
        SimulatedUR(servo_time_constant=0, on_tick=log) as robot,
        connect(robot, max_pos_speed=0.25, max_rot_speed=0.6) as controller,
    ):
        start = start_pose(controller)
        begin = time.time() + 0.2
        monotonic_begin = time.monotonic() + begin - time.time()
        for i in range(1, 9):
            target = start + np.array([0.01 * i, -0.005 * i, 0, 0, 0, 0])
            controller.schedule_waypoint(target, begin + 0.1 * i)
        assert arrives(robot, target)
    times, poses = log.read()
    wanted = start[:3] + np.outer(times - monotonic_begin, [0.1, -0.05, 0])
    between = (times > monotonic_begin + 0.2) & (times < monotonic_begin + 0.7)
    errors = np.linalg.norm(poses[between, :3] - wanted[between], axis=1)
    assert np.median(errors) < 0.004  # 0.11 m/s, so within 4 cycles


def test_servoL_arrives_and_keeps_the_limits_on_speed() -> None:
    log = MotionLog()
    with (
        SimulatedUR(servo_time_constant=0, on_tick=log) as robot,
        connect(robot, max_pos_speed=0.2, max_rot_speed=0.5) as controller,
    ):
        target = start_pose(controller) + np.array([0, 0.1, -0.05, 0, 0, 0])
        controller.servoL(target, duration=0.05)  # would be 2.2 m/s
        assert arrives(robot, target)
    _, speeds = log.speeds(CB3)
    over_ticks = np.convolve(speeds, np.full(20, 1 / 20), "valid")  # two commands may come in one tick, or none
    assert 0.15 < over_ticks.max() < 0.2 * 1.15


def test_states_are_the_robots_at_its_rate() -> None:
    with SimulatedUR() as robot, connect(robot, get_max_k=64) as controller:
        time.sleep(0.8)
        states = controller.get_all_state()
        last = controller.get_state(k=5)
        newest = controller.get_state()
        now = time.time()
    assert states["ActualQ"].shape == (64, 6)
    assert last["TargetTCPSpeed"].shape == (5, 6)
    assert set(states) == {
        *("ActualTCPPose", "ActualTCPSpeed", "ActualQ", "ActualQd"),
        *("TargetTCPPose", "TargetTCPSpeed", "TargetQ", "TargetQd", "robot_receive_timestamp"),
    }
    np.testing.assert_allclose(newest["ActualQ"], HOME, atol=1e-9)
    assert 0 <= now - newest["robot_receive_timestamp"] < 0.2
    assert np.median(np.diff(states["robot_receive_timestamp"])) == pytest.approx(CB3, rel=0.2)


def test_tool_payload_and_first_joint_angles_are_set() -> None:
    joints = np.array(HOME) + np.array([0.3, -0.2, 0, 0, 0, 0.1])
    with (
        SimulatedUR() as robot,
        connect(
            robot,
            tcp_offset_pose=[0, 0, 0.13, 0, 0, 0],
            payload_mass=1.2,
            payload_cog=[0, 0.01, 0.05],
            joints_init=joints.tolist(),
            receive_keys=["ActualQ", "SpeedScaling", "ActualToolAccelerometer"],
        ) as controller,
    ):
        state = robot.state()
        received = controller.get_state()
    np.testing.assert_allclose(state["q"], joints, atol=1e-3)
    np.testing.assert_allclose(state["tcp"], [0, 0, 0.13, 0, 0, 0], atol=1e-9)
    assert state["payload"] == pytest.approx(1.2)
    np.testing.assert_allclose(state["payload_cog"], [0, 0.01, 0.05])
    assert {name: value.shape for name, value in received.items()} == {
        "ActualQ": (6,),
        "SpeedScaling": (),
        "ActualToolAccelerometer": (3,),
        "ActualTCPPose": (6,),
        "robot_receive_timestamp": (),
    }


def test_the_arm_rests_while_its_tool_is_set() -> None:
    """The pose of states from before and from after differs by the tool's length."""
    with (
        SimulatedUR(servo_time_constant=0) as robot,
        connect(robot, tcp_offset_pose=[0, 0, 0.13, 0, 0, 0]),
    ):
        for _ in range(20):
            np.testing.assert_allclose(robot.state()["q"], HOME, atol=1e-4)
            time.sleep(0.01)


def test_an_e_series_is_servoed_at_500_hz() -> None:
    with SimulatedUR(e_series=True, servo_time_constant=0.01) as robot, connect(robot, frequency=500) as controller:
        target = start_pose(controller) + np.array([0.02, 0, 0, 0, 0, 0])
        controller.servoL(target, duration=0.2)
        assert arrives(robot, target, within=2e-4)
        times = robot.state()["command_times"]
    assert 300 < (len(times) - 1) / (times[-1] - times[0]) < 550


@pytest.mark.parametrize(
    "bad",
    [
        [np.nan, 0, 0, 0, 0, 0],
        [0.5, -0.1, np.inf, 0, 0, 0],
        [0.5, -0.1, 0.4],
        [300, -100, 400, 0, 3, 0],
        [-0.5, 0.1, 0.4, 0, 3.1, 0],
    ],
)
def test_bad_targets_are_refused_and_the_arm_holds(bad: list[float]) -> None:
    log = MotionLog()
    with (
        SimulatedUR(servo_time_constant=0.01, on_tick=log) as robot,
        connect(robot) as controller,
    ):
        controller.schedule_waypoint(start_pose(controller) + np.array([0, 0, -0.2, 0, 0, 0]), time.time() + 1)
        time.sleep(0.25)
        refused = time.monotonic()
        with pytest.raises(ValueError, match=r"six finite numbers|away from the tool"):
            controller.schedule_waypoint(bad, time.time() + 0.3)
        time.sleep(0.4)
        assert log.seconds_to_rest(refused, CB3, slow=0.005) < 0.35
        assert controller.is_ready
        before = robot.state()["pose"]
        with pytest.raises(ValueError, match=r"six finite numbers|away from the tool"):
            controller.servoL(bad)
        time.sleep(0.1)
        np.testing.assert_allclose(robot.state()["pose"], before, atol=1e-3)
        controller.servoL(before + np.array([0.01, 0, 0, 0, 0, 0]))  # good ones are taken as before
        time.sleep(0.3)
        assert robot.state()["pose"][0] - before[0] == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"payload_cog": [0, 0]}, "payload_cog must be 3 finite numbers"),
        ({"joints_init": [0, 0, 0, 0, 0, np.nan]}, "joints_init must be 6 finite numbers"),
        ({"gain": 3}, "gain must be from 100 to 2000"),
        ({"lookahead_time": 1}, r"lookahead_time must be from 0\.03"),
        ({"max_pos_speed": -1}, "max_pos_speed must be positive"),
        ({"receive_keys": ["Temperature"]}, "ur_rtde receives no 'Temperature'"),
    ],
)
def test_bad_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RTDEInterpolationController(None, "127.0.0.1", **arguments)


def test_times_that_make_no_sense_are_refused() -> None:
    with SimulatedUR() as robot, connect(robot) as controller:
        pose = start_pose(controller)
        with pytest.raises(ValueError, match="target_time"):
            controller.schedule_waypoint(pose, np.nan)
        with pytest.raises(ValueError, match="duration"):
            controller.servoL(pose, duration=0)
        controller.schedule_waypoint(pose + np.array([0.1, 0, 0, 0, 0, 0]), time.time() - 1)  # late: dropped
        time.sleep(0.2)
        assert pose_distance(robot.state()["pose"], pose)[0] < 1e-6
        assert controller.is_ready


def test_the_workspace_is_not_left() -> None:
    log = MotionLog()
    with SimulatedUR(servo_time_constant=0, on_tick=log) as robot:
        with connect(robot) as probe:
            start = start_pose(probe)
        low, high = start[:3] - 0.03, start[:3] + 0.03
        limits = MotionLimits(workspace=(tuple(low), tuple(high)))
        with connect(robot, motion_limits=limits) as controller:
            for offset in ([0.2, 0, 0], [0.2, 0.2, -0.2], [-0.2, 0, 0.2]):
                controller.servoL(start + np.array([*offset, 0, 0, 0]), duration=0.2)
                time.sleep(0.5)
    _, poses = log.read()
    assert np.all(poses[:, :3] > low - 1e-4)
    assert np.all(poses[:, :3] < high + 1e-4)
    assert np.ptp(poses[:, 0]) > 0.05


def test_it_stops_and_cannot_be_used_after() -> None:
    with SimulatedUR() as robot:
        controller = connect(robot)
        with pytest.raises(RuntimeError, match="start the controller first"):
            controller.servoL(np.zeros(6))
        controller.start(wait=False)
        controller.start_wait()
        assert controller.is_ready
        assert robot.state()["is_program_running"]
        controller.stop(wait=False)
        controller.stop_wait()
        controller.stop()
        assert not controller.is_ready
        assert controller.fault is None
        assert controller.exitcode == 0
        assert not robot.state()["is_program_running"]
        with pytest.raises(RuntimeError, match="none after stop"):
            controller.servoL(np.zeros(6))


NOT_FORKED = """
import multiprocessing, time
from motion_log import MotionLog
from diffusion_policy.real_world.rtde_interpolation_controller import RTDEInterpolationController
from diffusion_policy.real_world.sim.ur_controller import SimulatedUR
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    log = MotionLog()
    with SimulatedUR(on_tick=log, servo_time_constant=0) as robot:
        with RTDEInterpolationController(None, robot.host, launch_timeout=20) as controller:
            pose = controller.get_state()["ActualTCPPose"]
            pose[2] += 0.02
            controller.servoL(pose, 0.2)
            time.sleep(0.6)
            assert abs(robot.state()["pose"][2] - pose[2]) < 1e-3
    assert len(log.read()[0]) > 50
    print("done")
"""


def test_it_works_where_processes_are_not_forked(tmp_path: Path, repository: Path) -> None:
    script = tmp_path / "not_forked.py"
    script.write_text(NOT_FORKED)
    environment = {**os.environ, "PYTHONPATH": f"{repository}:{repository / 'benchmarks'}"}
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=120)
    assert result.stdout.splitlines()[-1:] == ["done"], result.stderr


def test_commands_have_the_originals_numbers() -> None:
    assert (Command.STOP.value, Command.SERVOL.value, Command.SCHEDULE_WAYPOINT.value) == (0, 1, 2)


def test_a_robot_that_is_not_there_is_named() -> None:
    controller = RTDEInterpolationController(None, "127.0.0.1")
    with pytest.raises(
        RobotFaultError, match=r"No connection to the robot \(127\.0\.0\.1: .*Could not connect"
    ) as raised:
        controller.start()
    assert raised.value.kind == FaultKind.NO_CONNECTION
    assert not controller.is_alive()
