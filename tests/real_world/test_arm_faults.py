"""Whatever goes wrong, the arm stops in time, somebody says what happened, and nothing is left running."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arm_faults import FAULTS, PROGRAM_FAULTS, Fault, Rig, move, moving_arm, moving_arm_of_a_program

from diffusion_policy.real_world.robot_fault import FaultKind, RobotFaultError
from diffusion_policy.real_world.rtde_interpolation_controller import RTDEInterpolationController
from diffusion_policy.real_world.sim.ur_controller import SimulatedUR

OBSERVED_FOR = 1.0


def inject(rig: Rig, fault: Fault) -> None:
    since = time.monotonic()
    fault.inject(rig)
    time.sleep(OBSERVED_FOR)
    seconds, metres = rig.stopping(since)
    assert seconds < 2 * fault.bound  # twice: other tests run beside
    assert metres < 0.12
    times, speeds = rig.log.speeds(1 / 125)
    assert speeds[times < since].max() > 0.15


def until(condition: Callable[[], bool], timeout: float = 5) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_the_arm_stops_and_the_controller_says_why(name: str) -> None:
    fault = FAULTS[name]
    with moving_arm() as rig:
        controller = rig.controller
        assert controller is not None
        inject(rig, fault)
        if "SIGSTOP" in name:
            assert controller.fault is not None
            assert controller.fault.kind == FaultKind.PROCESS_HANGS
            os.kill(rig.arm_pid, signal.SIGCONT)
            assert until(lambda: controller.fault is None or controller.fault.kind != FaultKind.PROCESS_HANGS)
        if not fault.kinds:
            assert controller.fault is None
            return
        assert until(lambda: controller.fault is not None)
        assert not controller.is_ready
        assert controller.fault is not None
        assert controller.fault.kind in fault.kinds
        with pytest.raises(RobotFaultError, match=r"\. [A-Z].*\.$"):  # what happened, and what to do
            controller.schedule_waypoint(np.zeros(6), time.time() + 1)
    assert not is_running(rig.arm_pid)


@pytest.mark.parametrize("name", sorted(PROGRAM_FAULTS))
def test_the_arm_stops_when_the_program_dies_and_leaves_nothing(name: str) -> None:
    with moving_arm_of_a_program() as rig:
        assert rig.program is not None
        for pid in (rig.program.pid, rig.arm_pid):
            assert "/dev/shm/" not in Path(f"/proc/{pid}/maps").read_text()  # nothing that could stay there
        inject(rig, PROGRAM_FAULTS[name])
        assert rig.program.poll() is not None
        assert not is_running(rig.arm_pid)
        assert not rig.robot.state()["is_program_running"]


def test_without_new_waypoints_the_arm_holds_where_the_last_one_is() -> None:
    with (
        SimulatedUR(servo_time_constant=0.02) as robot,
        RTDEInterpolationController(None, robot.host, soft_real_time=True) as controller,
    ):
        target = controller.get_state()["ActualTCPPose"] + np.array([0.03, 0, 0, 0, 0, 0])
        controller.schedule_waypoint(target, time.time() + 0.2)
        time.sleep(1.0)
        np.testing.assert_allclose(robot.state()["pose"], target, atol=1e-4)
        assert robot.state()["is_program_running"]
        assert controller.is_ready


def test_a_protective_stop_is_released_only_on_request() -> None:
    with moving_arm() as rig:
        controller = rig.controller
        assert controller is not None
        rig.robot.protective_stop()
        assert until(lambda: controller.fault is not None)
        with pytest.raises(RobotFaultError, match="Cannot unlock protective stop"):
            controller.recover()
        assert controller.fault is not None
        time.sleep(0.5)
        assert rig.robot.state()["safety_mode"] == 3
        before = rig.robot.state()["pose"]
        controller.recover()
        assert controller.is_ready
        assert controller.fault is None
        time.sleep(0.2)
        np.testing.assert_allclose(rig.robot.state()["pose"], before, atol=1e-3)  # it does not go on to the old target
        move(controller)
        time.sleep(0.5)
        assert np.linalg.norm(rig.robot.state()["pose"] - before) > 0.03
        os.kill(rig.arm_pid, signal.SIGKILL)  # the watchdog works as before
        time.sleep(0.5)
        assert not rig.robot.state()["is_program_running"]


@pytest.mark.parametrize(
    ("stop", "kind"),
    [
        (SimulatedUR.protective_stop, FaultKind.PROTECTIVE_STOP),
        (SimulatedUR.emergency_stop, FaultKind.EMERGENCY_STOP),
        (SimulatedUR.stop_program, FaultKind.PROGRAM_STOPPED),
    ],
)
def test_the_reason_of_a_stop_is_known_though_it_comes_after_the_stop(
    stop: Callable[[SimulatedUR], None], kind: FaultKind
) -> None:
    with (
        SimulatedUR(observer_lag=2) as robot,
        RTDEInterpolationController(None, robot.host, soft_real_time=True) as controller,
    ):
        stop(robot)
        assert until(lambda: controller.fault is not None)
        assert controller.fault is not None
        assert controller.fault.kind == kind


def test_a_program_that_was_stopped_is_started_again_on_request() -> None:
    with moving_arm() as rig:
        controller = rig.controller
        assert controller is not None
        rig.robot.stop_program()
        assert until(lambda: controller.fault is not None)
        controller.recover()
        assert controller.is_ready
        assert rig.robot.state()["is_program_running"]


def test_a_pose_out_of_reach_ends_the_program_and_not_more() -> None:
    with (
        SimulatedUR() as robot,
        RTDEInterpolationController(None, robot.host, soft_real_time=True, max_pos_speed=1) as controller,
    ):
        controller.servoL(controller.get_state()["ActualTCPPose"] + np.array([0.45, 0, 0, 0, 0, 0]), duration=0.1)
        assert until(lambda: controller.fault is not None)
        assert controller.fault.kind == FaultKind.PROGRAM_STOPPED
        assert "out of reach" in str(controller.fault)
        controller.recover()
        assert controller.is_ready


@pytest.mark.parametrize("how", ["stop", "terminate"])
def test_the_way_to_the_first_joint_angles_can_be_stopped(how: str) -> None:
    with SimulatedUR() as robot:
        controller = RTDEInterpolationController(
            None, robot.host, soft_real_time=True, joints_init=[1.5, -1.57, -1.57, -1.57, 1.57, 0]
        )
        controller.start(wait=False)
        assert until(lambda: np.abs(robot.state()["qd"]).max() > 0.5)
        getattr(controller, how)()
        assert until(lambda: not controller.is_alive(), timeout=2)
        assert (controller.fault is None) == (how == "stop")
        assert until(lambda: np.abs(robot.state()["qd"]).max() == 0)
        assert robot.state()["q"][0] < 1.4
        controller.stop()
