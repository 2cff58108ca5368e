"""The whole rig, driven as a demonstration is: SpaceMouse to arm to block to cameras."""

import multiprocessing
import os
import time

import numpy as np
import pytest

from diffusion_policy.real_world.cameras.multi_camera import MultiCamera
from diffusion_policy.real_world.rtde_interpolation_controller import RTDEInterpolationController
from diffusion_policy.real_world.sim.pusht_world import GOAL
from diffusion_policy.real_world.sim.rig import TOOL_LENGTH, SimulatedRig
from diffusion_policy.real_world.spacemouse_shared_memory import Spacemouse

DT = 0.1  # s


class Teleoperation:
    """The arm goes where the mouse asks, at 10 Hz."""

    def __init__(self, arm: RTDEInterpolationController, mouse: Spacemouse) -> None:
        self._arm, self._mouse = arm, mouse
        self._pose = arm.get_state()["TargetTCPPose"].copy()
        self._next = time.time()

    def step(self) -> None:
        self._next = max(self._next + DT, time.time() - DT)
        time.sleep(max(self._next - time.time(), 0))
        velocity = self._mouse.get_motion_state_transformed()[:3] * 0.25
        velocity[2] *= self._mouse.is_button_pressed(1)
        self._pose[:3] += velocity * DT
        self._arm.schedule_waypoint(self._pose, self._next + DT)


@pytest.mark.slow
def test_operator_pushes_the_block_to_its_goal() -> None:
    with (
        SimulatedRig(resolution=(320, 180)) as rig,
        RTDEInterpolationController(None, rig.robot_ip, tcp_offset_pose=[0, 0, TOOL_LENGTH, 0, 0, 0]) as arm,
        Spacemouse(None) as mouse,
        MultiCamera.of_sources(rig.cameras) as cameras,
        rig.operator() as operator,
    ):
        before = rig.world.put_block(np.add(GOAL, [0, 0.06, 0.1]))
        picture = cameras.get()[0]["color"]
        teleoperation = Teleoperation(arm, mouse)
        assert operator.is_done
        operator.begin()
        end = time.monotonic() + 80
        while not operator.is_done:
            assert time.monotonic() < end
            teleoperation.step()
        assert before.coverage() < 0.6
        assert rig.world.state().coverage() > 0.9
        assert (cameras.get()[0]["color"] != picture).any()
        assert np.allclose(mouse.get_motion_state(), 0)

        operator.begin()
        time.sleep(0.2)
        operator.kill()
        with pytest.raises(RuntimeError, match="The scripted operator has stopped"):
            _ = [time.sleep(0.05) for _ in range(10)], operator.is_done
        rig.robot.protective_stop()
        rig.spacenavd.plug(False)
        deadline = time.monotonic() + 5
        while arm.fault is None or mouse.fault is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "SPNAV_SOCKET" not in os.environ
    assert multiprocessing.active_children() == []
