"""Everything a robot's station has, simulated: arm, table, cameras, SpaceMouse and, if wanted, a person at it."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from diffusion_policy.real_world.sim.scene_renderer import VIEWS, PinholeCamera
from diffusion_policy.real_world.sim.scripted_operator import ScriptedOperator
from diffusion_policy.real_world.sim.shared_world import SharedWorld, WorldState
from diffusion_policy.real_world.sim.simulated_camera import SimulatedCamera
from diffusion_policy.real_world.sim.spacenavd import SimulatedSpacenavd
from diffusion_policy.real_world.sim.ur_controller import HOME, SimulatedUR
from diffusion_policy.real_world.sim.ur_kinematics import UR5, UR5E, forward, inverse
from diffusion_policy.real_world.start_stop import StartStop

TOOL_START = (0.44, 0.27, 0.026)  # x, y, z of the tool's tip (m): off `END`, where episodes of a policy would end
TOOL_LENGTH = 0.13  # m from the flange to the tip
START_TIMEOUT = 10.0  # s
SPNAV_SOCKET = "SPNAV_SOCKET"


class SimulatedRig(StartStop):
    """A context manager: inside the `with` the parts run, and libspnav finds the mouse.

    Args:
        seed: of where the block starts.
        views: where cameras stand; by default at two sides.
        resolution: of their images (px).
        fps: of cameras (Hz).
        e_series: a UR5e, at 500 Hz, instead of a UR5.

    Attributes:
        robot: the arm: its address is `robot_ip`; it can make protective stops, lose connections and freeze.
        world: the table; `world.reset(seed)` puts the block elsewhere.
        cameras: frame sources, named `sim_0`, `sim_1`, ...; `cameras[i].deliver(False)` stops one.
        spacenavd: the daemon; `spacenavd.plug(False)` unplugs the mouse.
    """

    def __init__(
        self,
        seed: int = 0,
        views: Sequence[PinholeCamera] = VIEWS[:2],
        resolution: tuple[int, int] = (1280, 720),
        fps: float = 30,
        e_series: bool = False,
    ) -> None:
        self.world = SharedWorld(seed)
        self.cameras = [SimulatedCamera(f"sim_{i}", self.world, view, resolution, fps) for i, view in enumerate(views)]
        self.spacenavd = SimulatedSpacenavd()
        self.robot = SimulatedUR(
            e_series=e_series, initial_joints=_start_joints(e_series).tolist(), on_tick=self.world.on_tick
        )
        self._parts = ExitStack()

    @property
    def robot_ip(self) -> str:
        """Address of the robot."""
        return self.robot.host

    def operator(self, speed: float = 0.25 * 350 / 500) -> ScriptedOperator:
        """A person at the SpaceMouse: another context manager. See `ScriptedOperator` for `speed`."""
        return ScriptedOperator(self.world, self.spacenavd, speed)

    def start(self) -> None:
        """Starts all parts; stops them again if one fails."""
        with ExitStack() as parts:
            parts.enter_context(self.spacenavd)
            parts.enter_context(self.robot)
            parts.callback(_set_environment, SPNAV_SOCKET, os.environ.get(SPNAV_SOCKET))
            _set_environment(SPNAV_SOCKET, self.spacenavd.socket_path)
            self._wait_for_the_world()
            self._parts = parts.pop_all()

    def stop(self) -> None:
        """Stops all parts."""
        self._parts.close()

    def _wait_for_the_world(self) -> WorldState:
        end = time.monotonic() + START_TIMEOUT
        while True:
            try:
                return self.world.state()
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.005)


def _start_joints(e_series: bool) -> np.ndarray:
    model = UR5E if e_series else UR5
    flange = forward(model, HOME)  # the tool points down
    flange[:3, 3] = np.add(TOOL_START, (0, 0, TOOL_LENGTH))
    joints = inverse(model, flange, HOME)
    assert joints is not None
    return joints


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
