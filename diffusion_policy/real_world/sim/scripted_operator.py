"""A person at the SpaceMouse, simulated: pushes the block to its goal as often as asked."""

import multiprocessing as mp
import time

import numpy as np

from diffusion_policy.real_world import child_process
from diffusion_policy.real_world.device_status import DeviceStatus
from diffusion_policy.real_world.sim.operator_policy import OperatorPolicy, Phase
from diffusion_policy.real_world.sim.shared_world import SharedWorld
from diffusion_policy.real_world.sim.spacenavd import SimulatedSpacenavd
from diffusion_policy.real_world.start_stop import StartStop
from diffusion_policy.real_world.teleop_device import TeleopError
from diffusion_policy.shared_memory.shared_ndarray import SharedNDArray

PERIOD = 0.05  # s between two motions of the cap
HEIGHT_BUTTON = 1  # held, the cap moves the tool up and down too
WORKING_HEIGHT = (0.015, 0.038)  # m of the tool's tip above the table
SILENCE = 5.0  # s; to think may take one on a busy machine


class ScriptedOperator(StartStop, mp.Process):
    """Sees the world and moves the cap, in a process of its own; nothing else moves it while this runs.

    Args:
        world: with the block.
        spacenavd: whose device is played.
        speed: of the tool at full deflection of the cap (m/s): the limit of the program that reads it, times
            `FULL_DEFLECTION` over its `max_value`.
        latency: from a motion of the cap to that of the tool (s).
        target_coverage: part of the goal that is good enough.
    """

    def __init__(
        self,
        world: SharedWorld,
        spacenavd: SimulatedSpacenavd,
        speed: float = 0.25 * 350 / 500,
        latency: float = 0.25,
        target_coverage: float = 0.93,
    ) -> None:
        super().__init__(name="scripted operator", daemon=True)
        self._world = world
        self._spacenavd = spacenavd
        self._speed = speed
        self._latency = latency
        self._target_coverage = target_coverage
        self._n_asked = SharedNDArray[np.int64].create_from_shape(None, (1,), np.int64)
        self._n_done = SharedNDArray[np.int64].create_from_shape(None, (1,), np.int64)
        self._status = DeviceStatus()

    # ---- in the process that has started it

    def begin(self) -> None:
        """Starts to push the block to its goal, from whatever the world is like now."""
        self._n_asked.get()[0] += 1

    def give_up(self) -> None:
        """Lets the cap go."""
        self._n_done.get()[0] = self._n_asked.get()[0]

    @property
    def is_done(self) -> bool:
        """Whether the block is at its goal, or cannot be brought nearer, and the tool back at `END`.

        Raises:
            TeleopError: the process has ended or hangs.
        """
        if (problem := self._status.problem(self, SILENCE)) is not None:
            raise TeleopError(f"The scripted operator {problem}")
        return bool(self._n_done.get()[0] >= self._n_asked.get()[0])

    def stop(self) -> None:
        """Ends the process, which lets the cap go."""
        if self.pid is not None:
            self.terminate()
            child_process.end(self, timeout=2)
            self._spacenavd.move(np.zeros(6))
            self._spacenavd.press(HEIGHT_BUTTON, False)

    # ---- in its own

    def run(self) -> None:
        """The process's work."""
        child_process.attach_to_parent()
        try:
            while True:
                while self._n_done.get()[0] >= (job := self._n_asked.get()[0].item()):
                    self._tick()
                self._push_to_goal(job)
                self._move(np.zeros(3))
                self._n_done.get()[0] = max(job, self._n_done.get()[0].item())
        except Exception as error:
            self._status.fail(str(error))
            raise

    def _push_to_goal(self, job: int) -> None:
        self._lower(job)
        policy = OperatorPolicy(self._speed * 0.97, self._latency, self._target_coverage, self._world.goal)
        while policy.phase is not Phase.DONE and self._n_done.get()[0] < job:
            state = self._world.state()
            velocity = policy.act(time.monotonic(), state.tool_pose[:2], state.block_pose)
            self._move(np.append(velocity, 0))
            self._tick()

    def _lower(self, job: int) -> None:
        """Brings the tool to its working height, with the button held that allows it."""
        low, high = WORKING_HEIGHT
        if low < self._world.state().tool_pose[2] < high:
            return
        self._spacenavd.press(HEIGHT_BUTTON)
        while not low < (height := self._world.state().tool_pose[2]) < high and self._n_done.get()[0] < job:
            speed = np.clip(2 * ((low + high) / 2 - height), -self._speed / 2, self._speed / 2)
            self._move(np.array([0, 0, speed]))
            self._tick()
        self._move(np.zeros(3))
        self._spacenavd.press(HEIGHT_BUTTON, False)

    def _move(self, velocity: np.ndarray) -> None:
        """Asks for a velocity (3,) of the tool (m/s)."""
        self._spacenavd.move([*velocity / self._speed, 0, 0, 0])

    def _tick(self) -> None:
        self._status.beat(time.monotonic())
        time.sleep(PERIOD)
