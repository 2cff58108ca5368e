"""The simulated robot through ur_rtde, whose author could not tell."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rtde_control
import rtde_receive
from dashboard_client import DashboardClient
from motion_log import MotionLog
from scipy.spatial.transform import Rotation

from diffusion_policy.real_world.sim.ur_controller import HOME, SimulatedUR
from diffusion_policy.real_world.sim.ur_kinematics import UR5, forward, matrix_to_pose

Control = rtde_control.RTDEControlInterface


@pytest.fixture(scope="module")
def robot() -> Iterator[SimulatedUR]:
    with SimulatedUR(servo_time_constant=0, unlock_delay=0.0) as robot:
        yield robot


@pytest.fixture(scope="module")
def running(robot: SimulatedUR) -> Control:
    return rtde_control.RTDEControlInterface(robot.host)


@pytest.fixture
def control(running: Control, robot: SimulatedUR) -> Control:
    """At home, with nothing in its hand."""
    assert running.setTcp([0.0] * 6)
    assert running.moveJ(HOME, 3.0, 10.0)
    return running


def until(condition: Callable[[], bool], timeout: float = 5) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def test_moves_end_where_they_should_at_the_speed_asked_for(robot: SimulatedUR, control: Control) -> None:
    start = time.monotonic()
    q = np.array(HOME) + np.array([0.5, 0, 0, 0, 0, -0.1])
    assert control.moveJ(q.tolist(), 1.0, 4.0)
    assert time.monotonic() - start > 0.7  # 0.5 rad at 1 rad/s, 0.25 s more to speed up and slow down
    np.testing.assert_allclose(robot.state()["q"], q, atol=1e-9)
    pose = robot.state()["pose"] + np.array([0, 0.05, -0.05, 0, 0, 0])
    assert control.moveL(pose.tolist(), 0.25, 2.0)
    np.testing.assert_allclose(robot.state()["pose"], pose, atol=1e-6)
    assert control.isSteady()


def test_an_asynchronous_move_can_be_stopped(robot: SimulatedUR, control: Control) -> None:
    before = control.getAsyncOperationProgress()
    assert control.moveJ((np.array(HOME) + 0.8).tolist(), 1.0, 4.0, True)
    assert until(lambda: control.getAsyncOperationProgress() >= 0)
    assert until(lambda: robot.state()["qd"][0] > 0.9)
    control.stopJ(10.0)
    assert np.abs(robot.state()["qd"]).max() == 0
    assert robot.state()["q"][0] < 0.7
    after = control.getAsyncOperationProgress()
    assert after < 0
    assert after != before


def test_servoing_follows_and_stops(robot: SimulatedUR, control: Control) -> None:
    pose = robot.state()["pose"]
    for _ in range(30):
        pose[0] += 0.001
        assert control.servoL(pose.tolist(), 0.5, 0.5, 0.008, 0.1, 300)
        time.sleep(0.008)
    assert until(lambda: np.allclose(robot.state()["pose"], pose, atol=1e-6))
    assert control.servoStop()
    assert np.abs(robot.state()["qd"]).max() == 0


def test_speeds_are_kept_until_the_stop(robot: SimulatedUR, control: Control) -> None:
    assert control.speedL([0, 0.1, 0, 0, 0, 0], 1.0, 1.0)
    assert until(lambda: abs(robot.state()["tool_speed"][1] - 0.1) < 1e-3)
    assert control.speedStop()
    assert control.speedJ([0, 0, 0, 0, 0, 0.5], 5.0, 1.0)
    assert until(lambda: abs(robot.state()["qd"][5] - 0.5) < 1e-6)
    assert control.speedStop()
    assert np.abs(robot.state()["qd"]).max() == 0


def test_kinematics_are_those_of_the_arm(control: Control) -> None:
    tcp = [0, 0, 0.13, 0, 0, 0]
    assert control.setTcp(tcp)
    np.testing.assert_allclose(control.getTCPOffset(), tcp, atol=1e-12)
    pose = control.getForwardKinematics(HOME, tcp)
    np.testing.assert_allclose(pose[:3], [0.4869, -0.10915, 0.431859 - 0.13], atol=1e-6)
    pose[0] += 0.05
    q = control.getInverseKinematics(pose)
    np.testing.assert_allclose(control.getForwardKinematics(q, tcp), pose, atol=1e-6)
    a, b = [0.1, 0.2, 0.3, 0.4, 0, 0], [0, 0, 0.1, 0, 0.5, 0]
    product = Rotation.from_rotvec(a[3:]) * Rotation.from_rotvec(b[3:])
    position = np.array(a[:3]) + Rotation.from_rotvec(a[3:]).apply(b[:3])
    np.testing.assert_allclose(control.poseTrans(a, b), [*position, *product.as_rotvec()], atol=1e-9)


def test_states_are_received(robot: SimulatedUR, control: Control) -> None:
    assert control.setPayload(1.5, [0, 0, 0.1])
    receive = rtde_receive.RTDEReceiveInterface(robot.host)
    np.testing.assert_allclose(receive.getActualQ(), HOME, atol=1e-9)
    np.testing.assert_allclose(receive.getActualTCPPose(), matrix_to_pose(forward(UR5, HOME)), atol=1e-9)
    assert receive.getPayload() == 1.5
    assert receive.getRobotMode() == 7
    assert receive.getSafetyMode() == 1
    assert receive.getJointMode() == [253] * 6
    assert receive.getActualMainVoltage() == 48
    first = receive.getTimestamp()
    time.sleep(0.4)
    assert receive.getTimestamp() - first == pytest.approx(0.4, abs=0.15)


def test_what_does_not_exist_is_not_found(robot: SimulatedUR) -> None:
    with pytest.raises(RuntimeError, match="no_such_thing"):
        rtde_receive.RTDEReceiveInterface(robot.host, -1.0, ["timestamp", "no_such_thing"])


def test_inputs_belong_to_one_client(robot: SimulatedUR, control: Control) -> None:
    with pytest.raises(RuntimeError, match="already in use"):
        rtde_control.RTDEControlInterface(robot.host)
    assert control.isConnected()


def test_a_protective_stop_is_released_by_the_dashboard(robot: SimulatedUR, control: Control) -> None:
    dashboard = DashboardClient(robot.host)
    dashboard.connect()
    assert dashboard.running()
    assert "NORMAL" in dashboard.safetymode()
    assert "3.15" in dashboard.polyscopeVersion()
    robot.protective_stop()
    assert until(lambda: not control.isProgramRunning())
    assert "PROTECTIVE_STOP" in dashboard.safetymode()
    assert not control.moveJ(HOME)
    dashboard.unlockProtectiveStop()
    time.sleep(0.05)
    control.reuploadScript()
    assert until(control.isProgramRunning)
    assert control.moveJ(HOME, 1.0, 1.0)
    dashboard.disconnect()


def test_the_watchdog_ends_a_program_without_commands(robot: SimulatedUR, control: Control) -> None:
    assert control.setWatchdog(10.0)
    for _ in range(10):
        time.sleep(0.03)
        control.kickWatchdog()
    assert robot.state()["is_program_running"]
    time.sleep(0.3)
    assert not robot.state()["is_program_running"]
    assert until(lambda: not control.isProgramRunning())
    control.reuploadScript()
    assert until(control.isProgramRunning)


def test_nonsense_costs_a_client_its_connection_and_nobody_else(robot: SimulatedUR, control: Control) -> None:
    for nonsense in (b"\x00\x05U\x09\x01", b"\x00\x04O\x01", b"\x00\x08I\xff\xff\xff\xff\xff"):
        with socket.create_connection((robot.host, 30004), timeout=2) as client:
            client.sendall(nonsense)
            assert client.recv(100) == b""
    with socket.create_connection((robot.host, 29999), timeout=2) as client, client.makefile() as lines:
        assert "Connected" in lines.readline()
        client.sendall(b"make me a sandwich\n")
        assert lines.readline() == "could not understand: 'make me a sandwich'\n"
    assert control.moveJ(HOME, 1.0, 1.0)


def test_every_tick_is_told_in_time() -> None:
    log = MotionLog()
    with SimulatedUR(on_tick=log):
        time.sleep(0.8)
    times, poses = log.read()
    assert np.median(np.diff(times)) == pytest.approx(1 / 125, rel=0.1)
    assert abs(times[-1] - time.monotonic()) < 1
    np.testing.assert_allclose(poses[0], matrix_to_pose(forward(UR5, HOME)), atol=1e-9)


def test_an_e_series_is_one_to_ur_rtde() -> None:
    with SimulatedUR(e_series=True, servo_time_constant=0) as robot:
        receive = rtde_receive.RTDEReceiveInterface(robot.host)
        times = []
        for _ in range(200):
            times.append(receive.getTimestamp())
            time.sleep(0.001)
        assert np.diff(np.unique(times)).min() == pytest.approx(0.002, abs=1e-6)
        np.testing.assert_allclose(receive.getFtRawWrench(), np.zeros(6))


def test_each_robot_has_an_address_of_its_own() -> None:
    with SimulatedUR() as one, SimulatedUR() as other:
        assert one.host != other.host
        with pytest.raises(OSError, match=f"No port of a UR robot could be opened on {one.host}"):
            SimulatedUR(host=one.host).start()


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from diffusion_policy.real_world.sim.ur_controller import SimulatedUR\n"
        "with SimulatedUR() as robot:\n"
        "    print(robot.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    stat = Path(f"/proc/{pid}/stat")
    assert until(lambda: not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def test_a_death_of_its_own_is_reported() -> None:
    with SimulatedUR() as robot:
        assert robot.pid is not None
        os.kill(robot.pid, signal.SIGKILL)
        with pytest.raises(OSError, match="The simulated robot has died"):
            robot.state()
