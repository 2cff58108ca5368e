"""The one Push-T world of a rig: stepped by the simulated robot, seen by cameras and operator in other processes."""

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_policy.real_world.sim import tee
from diffusion_policy.real_world.sim.pusht_world import GOAL, PushTWorld
from diffusion_policy.shared_memory.shared_memory_queue import SharedMemoryQueue
from diffusion_policy.shared_memory.shared_memory_ring_buffer import SharedMemoryRingBuffer

FloatArray = NDArray[np.float64]

RESET_TIMEOUT = 5.0  # s
_FASTEST_TICKS = 500  # Hz, of an e-Series controller


class WorldState(NamedTuple):
    """The world at a time.

    Attributes:
        time: wall clock (s).
        tool_pose: x, y, z of the tool's tip (m) and its rotation vector (rad), (6,).
        block_pose: x, y (m), angle (rad), (3,).
        n_resets: how often the block was put elsewhere.
    """

    time: float
    tool_pose: FloatArray
    block_pose: FloatArray
    n_resets: int

    def coverage(self, goal: ArrayLike = GOAL) -> float:
        """Part of the goal's area, 0 to 1, that the block covers."""
        return tee.coverage(self.block_pose, goal)


class SharedWorld:
    """Made before the processes that use it, to which it is handed over.

    One process calls `on_tick` and owns the world; one other may `reset` it; any read `state`.

    Args:
        seed: of where the block starts.
        goal: x, y, angle where the block should go.
    """

    def __init__(self, seed: int = 0, goal: ArrayLike = GOAL) -> None:
        self.goal = np.array(goal, np.float64)
        self._seed = seed
        self._world: PushTWorld | None = None
        self._n_resets = 0
        example = WorldState(0.0, np.zeros(6), np.zeros(3), 0)._asdict()
        self._states = SharedMemoryRingBuffer.create_from_examples(
            None, example, get_max_k=64, get_time_budget=1.0, put_desired_frequency=_FASTEST_TICKS
        )
        command = {"seed": 0, "has_pose": False, "block_pose": np.zeros(3)}
        self._commands = SharedMemoryQueue.create_from_examples(None, command, buffer_size=16)

    def on_tick(self, t: float, tool_pose: ArrayLike) -> None:
        """The tool's tip is at `tool_pose` (6,) at time `t` (s): pushes, and publishes the state."""
        pose = np.asarray(tool_pose, np.float64)
        if self._world is None:
            self._world = PushTWorld(self._seed, self.goal)
            self._world.step(t, pose)
            self._world.reset(self._seed)  # off the tool
        self._world.step(t, pose)
        self._obey(self._world)
        state = WorldState(time.time(), self._world.tool_pose, self._world.block_pose, self._n_resets)
        self._states.put(state._asdict())

    def _obey(self, world: PushTWorld) -> None:
        while not self._commands.empty():
            command = self._commands.get()
            if command["has_pose"]:
                world.block_pose = command["block_pose"]
            else:
                world.reset(int(command["seed"]))
            self._n_resets += 1

    def state(self) -> WorldState:
        """The latest state. Raises RuntimeError before the robot's first tick."""
        if self._states.count == 0:
            raise RuntimeError("The simulated robot has not ticked yet: start it first.")
        state = self._states.get()
        return WorldState(state["time"].item(), state["tool_pose"], state["block_pose"], state["n_resets"].item())

    def state_at(self, wall_time: float) -> WorldState:
        """The state at a time (s) of the last fraction of a second: the last one that is not later, if there is one."""
        states = self._states.get_all()
        if len(states["time"]) == 0:
            raise RuntimeError("The simulated robot has not ticked yet: start it first.")
        i = max(int(np.searchsorted(states["time"], wall_time, side="right")) - 1, 0)
        return WorldState(*(states[name][i] for name in WorldState._fields))

    def reset(self, seed: int) -> WorldState:
        """Puts the block where `seed` says; returns the new state.

        Raises:
            TimeoutError: the robot, which moves the world, does not tick.
        """
        return self._command({"seed": seed, "has_pose": False, "block_pose": np.zeros(3)})

    def put_block(self, pose: ArrayLike) -> WorldState:
        """Puts the block at `pose` (x, y, angle); returns the new state. Raises as `reset`."""
        pose = np.asarray(pose, np.float64)
        if pose.shape != (3,) or not np.isfinite(pose).all():
            raise ValueError(f"got block pose {pose}, expected finite x, y (m) and angle (rad)")
        return self._command({"seed": 0, "has_pose": True, "block_pose": pose})

    def _command(self, command: dict[str, object]) -> WorldState:
        before = self.state().n_resets
        self._commands.put(command)
        end = time.monotonic() + RESET_TIMEOUT
        while (state := self.state()).n_resets == before:
            if time.monotonic() > end:
                raise TimeoutError(f"The simulated robot has not ticked for {RESET_TIMEOUT} s: it is not running.")
            time.sleep(0.002)
        return state
